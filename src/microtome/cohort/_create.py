"""`create_cohort`: begin an empty cohort, with a name and words about it."""

from __future__ import annotations

import json
import os
from typing import Any

from microtome.errors import ExistsError, InvalidInputError
from microtome.storage import locked, replace_file

from ._layout import CohortLayout
from ._partial import sweep

__all__ = ["create_cohort"]


def create_cohort(
    path: str | os.PathLike[str], *, name: str | None = None, description: str | None = None
) -> CohortLayout:
    """Begin a cohort, or find the one that is there.

    Running it again with the same words changes nothing. `ingest` begins a cohort by itself; this
    is for one that shall have a name before its first image.

    Parameters
    ----------
    path
        Directory of the cohort: missing, empty, or a cohort already.
    name, description
        What the cohort is called and what it is, kept in cohort.json. A cohort that has none is
        given them; one that has others is left as it is.

    Returns
    -------
    The paths of the cohort.

    Raises
    ------
    FormatError
        If there is something that is no cohort; it is left as it is.
    ExistsError
        If the cohort has another name or description.
    InvalidInputError
        If a word is empty, or the cohort is a SPORA dataset, which has no place for them.
    """
    words = {"name": name, "description": description}
    wanted = {key: text for key, text in words.items() if text is not None}
    for key, text in wanted.items():
        if not text.strip():
            msg = f"the {key} of a cohort must not be empty; leave it out instead"
            raise InvalidInputError(msg)
    layout = CohortLayout.open_or_create(path)
    if wanted:
        with locked(layout.lock, what=f"the cohort {layout.root}"):
            _note(layout, wanted)
    return layout


def _note(layout: CohortLayout, wanted: dict[str, str]) -> None:
    manifest: dict[str, Any] = layout.read_manifest()
    if not manifest:
        msg = (
            f"{layout.root} is a SPORA dataset without cohort.json, where a name and a description "
            "would stand; it is used as it is"
        )
        raise InvalidInputError(msg)
    others = {key: manifest[key] for key in wanted if manifest.get(key) not in {None, wanted[key]}}
    if others:
        shown = ", ".join(f"{key} {value!r}" for key, value in others.items())
        msg = f"{layout.root} is a cohort with {shown}; to change it, edit {layout.manifest}"
        raise ExistsError(msg)
    if any(key not in manifest for key in wanted):
        sweep(layout.manifest)
        with replace_file(layout.manifest) as temporary:
            temporary.write_text(json.dumps({**manifest, **wanted}, indent=2) + "\n", "utf-8")
