"""Which of the images in a file or directory is meant."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.errors import InvalidInputError, UnknownNameError

__all__ = ["SeveralImagesError", "chosen", "distinct"]

_MOST_NAMED = 12


class SeveralImagesError(InvalidInputError):
    """Something holds several images and none was named; who cannot be told which says so in its words."""

    where: str = ""
    """What holds them."""
    listed: str = ""
    """Their names."""


def chosen(names: Sequence[str], image: str | int | None, *, where: object) -> int:
    """Return the number of the image that is meant.

    Parameters
    ----------
    names
        Names of the images, in order.
    image
        One of them, or its number; None where there is no choice.
    where
        What holds them, for messages.

    Raises
    ------
    InvalidInputError
        If there are several and none is named.
    UnknownNameError
        If there is no such image.
    """
    if image is None:
        if len(names) == 1:
            return 0
        msg = (
            f"{where} holds {len(names)} images; say which with --image (image=): {_listed(names)}"
        )
        error = SeveralImagesError(msg)
        error.where, error.listed = str(where), _listed(names)
        raise error
    if isinstance(image, str) and image in names:
        return names.index(image)
    if isinstance(image, int) and not isinstance(image, bool) and 0 <= image < len(names):
        return image
    msg = f"{where} has no image {image!r}; it has {_listed(names)}"
    raise UnknownNameError(msg)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which none occurs twice: those that do are followed by their number.

    >>> distinct(["ROI", "ROI", "", "whole"])
    ('ROI', 'ROI 2', 'image 3', 'whole')
    """
    found: list[str] = []
    for number, name in enumerate(names, start=1):
        wanted = name or f"image {number}"
        while wanted in found:
            wanted = f"{wanted} {number}"
        found.append(wanted)
    return tuple(found)


def _listed(names: Sequence[str]) -> str:
    some = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{some}{more}" if names else "none"
