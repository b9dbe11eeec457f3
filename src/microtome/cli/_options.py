"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome.errors import InvalidInputError

__all__ = [
    "Flag",
    "OneTissue",
    "ResolutionOption",
    "TileSize",
    "Tissues",
    "parse_mpp",
]

Tissues = Annotated[list[str] | None, Parameter(name=["--tissue"], negative=())]
# One thing is called alike by every verb, and by the name that it once had where that differed.
OneTissue = Parameter(name=["--tissue", "--tissue-id"])
TileSize = Annotated[int, Parameter(name=["--size", "--tile-size"])]
ResolutionOption = Annotated[str | None, Parameter(name="--resolution")]
Flag = Parameter(negative=(), show_default=False)


def parse_mpp(text: str | None) -> float | tuple[float, float] | None:
    """Read `--mpp 0.5` or, for pixels that are not square, `--mpp 0.5,0.6` (y, x)."""
    if text is None:
        return None
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    whole = all(part.strip().isdecimal() for part in parts)
    if len(numbers) == 2 and whole and numbers[0] != numbers[1]:
        # Half the world writes 0.5 so, and a pixel of 1 by 25 micrometres nobody means.
        point, pair = ".".join(p.strip() for p in parts), ",".join(f"{n:.1f}" for n in numbers)
        other = f"; or, for pixels of two sizes y,x, {pair}" if all(numbers) else ""
        msg = f"--mpp {text}: with a decimal comma? Write {point}{other}"
        raise InvalidInputError(msg)
    if len(numbers) not in {1, 2}:
        msg = f"--mpp takes micrometres per pixel, one number or y,x, got {text!r}"
        raise InvalidInputError(msg)
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
