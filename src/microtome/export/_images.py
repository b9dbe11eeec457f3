"""What is exported is an open image: a path is what people try first, and what would fail far from here."""

from __future__ import annotations

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

__all__ = ["verify_image"]


def verify_image(image: object, what: str) -> None:
    """Refuse what is no image.

    Parameters
    ----------
    image
        What was given.
    what
        The name of the argument.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    if not isinstance(image, MultiscaleImage):
        given = repr(image) if isinstance(image, str) else f"a {type(image).__name__}"
        msg = f"{what} must be an open image (microtome.open_image(path)), got {given}"
        raise InvalidInputError(msg)
