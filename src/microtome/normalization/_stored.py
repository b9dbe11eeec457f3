"""Normalizations as dictionaries and as JSON files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from microtome.errors import FormatError, NotFoundError
from microtome.storage import replace_file

from ._normalization import Normalization, normalization_from_dict

__all__ = ["load_normalization", "save_normalization"]


def save_normalization(normalization: Normalization, path: str | os.PathLike[str]) -> None:
    """Write a normalization to a JSON file, in one step.

    Parameters
    ----------
    normalization
        What to write.
    path
        Where; a file that is there is replaced.
    """
    text = json.dumps(normalization.to_dict(), indent=1, allow_nan=False)
    with replace_file(Path(path)) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def load_normalization(path: str | os.PathLike[str]) -> Normalization:
    """Read what `save_normalization` wrote.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it holds something else.
    """
    try:
        made = json.loads(Path(path).read_text(encoding="utf-8"))
        return normalization_from_dict(made)
    except FileNotFoundError:
        msg = f"{path} does not exist"
        raise NotFoundError(msg) from None
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{path} is not a normalization: {error}"
        raise FormatError(msg) from error
