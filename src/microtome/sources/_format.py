"""What a format is: how it is known, and the functions that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

from ._recipe import Recipe, function_at, traveling_image

__all__ = ["SourceFormat"]


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """A file format that images can be read from in place.

    Parameters
    ----------
    name
        Short name for people.
    matches
        Whether a path holds the format, given the path and its first 16 bytes (empty for a
        directory).
    opener
        ``"module:function"``, imported when first needed so that a format's reader costs nothing
        until then. The function takes the path and `mpp`, None or an `Mpp` that overrides what
        the file says; with `images` also `image`, and with `states_axes` False also `axes`.
    suffixes
        Usual ends of its names: used in messages only.
    images
        ``"module:function"`` that returns the names of the images at a path, for a format that
        holds several; the opener then takes `image`, one of the names, its number, or None.
    states_axes
        Whether a file says what its axes are. If not, the opener takes `axes`, a string or None.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    opener: str
    suffixes: tuple[str, ...]
    images: str = ""
    states_axes: bool = True

    def open(
        self,
        path: Path,
        mpp: Mpp | None,
        *,
        image: str | int | None = None,
        axes: str | None = None,
    ) -> MultiscaleImage:
        """Open a path as this format.

        Parameters
        ----------
        path
            The path.
        mpp
            Pixel size instead of what the file states.
        image
            Which of its images; for a format that holds several.
        axes
            Names of the axes; for a format that does not state them.

        Raises
        ------
        InvalidInputError
            If the format has no use for `image` or `axes`.
        """
        options: dict[str, Any] = {}
        if self.images:
            options["image"] = image
        elif image not in {None, 0}:
            msg = f"{path} is {self.name}, which holds one image: there is no {image!r}"
            raise InvalidInputError(msg)
        if not self.states_axes:
            options["axes"] = axes
        elif axes is not None:
            msg = f"{path}: axes are read from a file, they are given for arrays only"
            raise InvalidInputError(msg)
        options["mpp"] = mpp
        found = function_at(self.opener)(path, **options)
        return traveling_image(found, Recipe(self.opener, path, options, found))

    def image_names(self, path: Path) -> tuple[str, ...]:
        """Return the names of the images at a path; one that has a single image is called by its stem."""
        if self.images:
            return tuple(function_at(self.images)(path))
        return (path.name.split(".")[0],)
