"""What a composed dataset is made of: which modalities, and with which options."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._tables import read_tissues
from microtome.errors import InvalidInputError
from microtome.standardize import RgbStandardizer, StandardizationSpec

from ._brightfield import HEImagingDataset, SingleIHCImagingDataset
from ._imaging import BaseImagingDataset
from ._multiplex import ChannelKind, MultiplexImagingDataset
from ._options import options_of, verify_options

__all__ = [
    "expand_modalities",
    "modalities_in_split",
    "modalities_of_tissues",
    "modality_options",
    "open_modality",
    "verify_modality_options",
]

_log = logging.getLogger(__name__)

_IHC = "ihc"
# Of all modalities alike.
_SHARED = ("path", "split", "tile_size", "tile_strategy")


def expand_modalities(
    layout: CohortLayout, modalities: Sequence[str | Modality] | None
) -> list[Modality]:
    """Return the modalities asked for, each once, brightfield first."""
    there = layout.modalities()
    if isinstance(modalities, str):
        msg = f"modalities is a list of names, got {modalities!r}"
        raise InvalidInputError(msg)
    found: dict[str, Modality] = {}
    for asked in modalities if modalities is not None else there:
        if asked == _IHC:
            markers = [m for m in there if m.name.startswith("ihc_")]
            if not markers:
                msg = f"{layout.root} has no IHC images"
                raise InvalidInputError(msg)
            found.update({m.name: m for m in markers})
            continue
        modality = parse_modality(asked)
        if modality not in there:
            msg = f"{layout.root} has no images of {modality}; it has {', '.join(map(str, there)) or 'none'}"
            raise InvalidInputError(msg)
        found[modality.name] = modality
    if not found:
        msg = f"{layout.root} has no images"
        raise InvalidInputError(msg)
    return sorted(found.values(), key=lambda m: (m.name != "he", m.kind, m.name))


def modality_options(
    chosen: Sequence[Modality], given: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Mapping[str, Any]]:
    """Return the options of each modality; those of others may be meant for other cohorts.

    Raises
    ------
    UnknownNameError
        If there is no such modality at all.
    InvalidInputError
        If an option is none, or one that all modalities share.
    """
    verify_modality_options(given)
    names = [modality.name for modality in chosen]
    found: dict[str, Mapping[str, Any]] = {}
    for name, options in (given or {}).items():
        keys = (
            [n for n in names if n.startswith("ihc_")]
            if name == _IHC
            else [parse_modality(name).name]
        )
        for key in keys:
            found[key] = {**found.get(key, {}), **options}
    return found


def verify_modality_options(
    given: Mapping[str, Mapping[str, Any]] | None, what: str = "modality_kwargs"
) -> None:
    """Refuse options of modalities that no dataset of theirs takes; no cohort is looked at.

    Parameters
    ----------
    given
        Options by modality.
    what
        What they are, for messages.

    Raises
    ------
    UnknownNameError
        If there is no such modality at all.
    InvalidInputError
        If an option is none, is one that all modalities share, or names what there is not.
    """
    if given is not None and not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need not be typed)
        msg = f"{what} are options by modality, such as {{'imc': {{'standardization': 'identity'}}}}; got {given!r}"
        raise InvalidInputError(msg)
    for name, options in (given or {}).items():
        own = f"{what}[{name!r}]"
        dataset = SingleIHCImagingDataset if name == _IHC else _dataset_of(parse_modality(name))
        if not isinstance(options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (as above)
            msg = f"{own} are options by name, such as {{'resolution': 1.0}}; got {options!r}"
            raise InvalidInputError(msg)
        fixed = sorted(set(options).intersection(_SHARED))
        if fixed:
            msg = f"{own} cannot set {fixed}: they are the whole dataset's"
            raise InvalidInputError(msg)
        verify_options(own, options, [o for o in options_of(dataset) if o not in _SHARED])
        try:
            _verify_values(options)
        except InvalidInputError as error:
            msg = f"{own}: {error}"
            raise InvalidInputError(msg) from None


def _verify_values(options: Mapping[str, Any]) -> None:
    """Refuse values of which it can be told without a cohort that they are none."""
    if "mean_std_type" in options:
        RgbStandardizer.preset(options["mean_std_type"])
    if "standardization" in options:
        StandardizationSpec.parse(str(options["standardization"]))
    kinds = get_args(ChannelKind)
    if options.get("kind", kinds[0]) not in kinds:
        msg = f"kind must be one of {kinds}, got {options['kind']!r}"
        raise InvalidInputError(msg)


def _dataset_of(modality: Modality) -> type[BaseImagingDataset[Any]]:
    if modality.name == "he":
        return HEImagingDataset
    return SingleIHCImagingDataset if modality.kind == "brightfield" else MultiplexImagingDataset


def modalities_in_split(
    layout: CohortLayout, chosen: Sequence[Modality], split: str | None
) -> list[Modality]:
    """Return the modalities of which there are images in a split; all if there are of none.

    Then the first of them says what is wrong.
    """
    table = read_tissues(layout)
    if split is None or "split" not in table.column_names:
        return list(chosen)
    rows = table.select(["modality", "split"]).to_pylist()
    there = {row["modality"] for row in rows if row["split"] == split}
    for modality in chosen:
        if there and modality.name not in there:
            _log.info("%s: no tissue imaged as %s is in split %s", layout.root, modality, split)
    return [m for m in chosen if m.name in there] or list(chosen)


def open_modality(
    name: str, modality: Modality, options: dict[str, Any]
) -> BaseImagingDataset[Any]:
    if modality.name == "he":
        return HEImagingDataset(name, **options)
    if modality.kind == "brightfield":
        return SingleIHCImagingDataset(name, modality.name, **options)
    if "standardization" not in options:
        _log.warning(
            "%s: %s has no standardization and is read as it is stored ('identity'); give one in "
            "modality_kwargs",
            name,
            modality,
        )
        options = {**options, "standardization": "identity"}
    return MultiplexImagingDataset(name, modality, **options)


def modalities_of_tissues(datasets: Mapping[str, BaseImagingDataset[Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, dataset in datasets.items():
        for tissue in dataset.get_tissue_ids().tolist():
            found.setdefault(tissue, []).append(name)
    return found
