"""H&E and IHC pixels to standardized pixels: 8-bit colours by one mean and deviation a colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.storage import Conversion

from ._window import fill_outside

__all__ = ["MEAN_STD", "ImageMode", "RgbStandardizer", "register_mean_std"]

ImageMode = Literal["CHW", "HWC"]
"""Whether the colours are the first or the last axis of an image."""

Colours = tuple[float, float, float]

MEAN_STD: dict[str, tuple[Colours, Colours]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "hibou": ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)),
    "identity": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "raw": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Mean and standard deviation of red, green and blue, from 0 to 1, by name.

`imagenet` are those of the ImageNet training images that torchvision's models expect, `hibou`
those of the histology foundation model of that name, `identity` gives values from 0 to 1 and `raw`
those that are stored, from 0 to 255.
"""


def register_mean_std(name: str, mean: Colours, std: Colours) -> None:
    """Add a preset of `RgbStandardizer` under a name.

    Parameters
    ----------
    name
        Name that `mean_std_type` then takes.
    mean, std
        Of red, green and blue from 0 to 1; std above 0.

    Raises
    ------
    InvalidInputError
        If the name is taken or empty, or the numbers are not three each.

    Examples
    --------
    >>> register_mean_std("half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> RgbStandardizer.preset("half").mean
    (0.5, 0.5, 0.5)
    """
    if not name or name in MEAN_STD:
        raise InvalidInputError(
            f"a preset needs a name that is none of {', '.join(MEAN_STD)}; got {name!r}"
        )
    made = RgbStandardizer(mean, std)
    MEAN_STD[name] = (made.mean, made.std)


@dataclass(frozen=True, slots=True)
class RgbStandardizer:
    """`(x / 255 - mean) / std` for each colour.

    Parameters
    ----------
    mean, std
        Of red, green and blue from 0 to 1; std above 0.

    Raises
    ------
    InvalidInputError
        If a standard deviation is not above 0.
    """

    mean: Colours
    std: Colours

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std)
        if not (
            len(self.mean) == len(self.std) == 3
            and all(math.isfinite(number) for number in numbers)
            and min(self.std) > 0
        ):
            raise InvalidInputError(
                f"mean and std must be three numbers each, std above 0; got {self.mean} and "
                f"{self.std}"
            )

    @classmethod
    def preset(cls, mean_std_type: str) -> Self:
        """`imagenet`, `hibou`, `identity` (from 0 to 1), `raw` (from 0 to 255) or a registered one.

        Raises
        ------
        InvalidInputError
            If there is no such preset.
        """
        if mean_std_type not in MEAN_STD:
            raise InvalidInputError(
                f"mean_std_type must be one of {', '.join(MEAN_STD)}, got {mean_std_type!r}"
            )
        return cls(*MEAN_STD[mean_std_type])

    @property
    def conversion(self) -> Conversion:
        """The same for `read_regions` to do to 8-bit colours while it reads, to the same bytes."""
        scale, shift = self._factors(-1)
        return Conversion.of([("multiply", scale), ("add", shift)])

    def __call__(
        self,
        image: NDArray[Any],
        *,
        image_mode: ImageMode = "CHW",
        out: NDArray[np.float32] | None = None,
        valid: ArrayLike | None = None,
        fill: float | None = 0.0,
    ) -> NDArray[np.float32]:
        """Standardize an image or a batch.

        Parameters
        ----------
        image
            (3, H, W) or (H, W, 3), or a batch of them; uint8, or floats from 0 to 255.
        image_mode
            Which of the two.
        out
            Float32 of the same shape to write to, possibly the image itself; by default new.
        valid
            (row, col, height, width) of the part of the tile that lies inside the image, or (B, 4)
            of them; by default all of it.
        fill
            Value of everything outside `valid`; None leaves what standardization makes of it.

        Raises
        ------
        InvalidInputError
            If the shape or type does not fit.
        """
        if image_mode not in {"CHW", "HWC"}:
            raise InvalidInputError(f"image_mode must be 'CHW' or 'HWC', got {image_mode!r}")
        axis = -3 if image_mode == "CHW" else -1
        if image.ndim not in {3, 4} or image.shape[axis] != 3:
            raise InvalidInputError(
                f"an image must be {image_mode} with 3 colours, or a batch of them; got shape "
                f"{image.shape}"
            )
        if image.dtype != np.uint8 and image.dtype.kind != "f":
            raise InvalidInputError(
                f"colours must be uint8, or floats from 0 to 255; got {image.dtype}"
            )
        if out is None:
            out = np.empty(image.shape, np.float32)
        elif out.shape != image.shape or out.dtype != np.float32:
            raise InvalidInputError(
                f"out must be float32 of shape {image.shape}, got {out.dtype} of {out.shape}"
            )
        scale, shift = self._factors(axis)
        np.multiply(image, scale, out=out, casting="same_kind")
        out += shift
        if valid is not None and fill is not None:
            channel_first = out if axis == -3 else np.moveaxis(out, -1, -3)
            fill_outside(channel_first, valid, fill)
        return out

    def _factors(self, axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # One multiplication and one addition a pixel instead of two divisions and a subtraction.
        std = np.array(self.std)
        scale, shift = 1 / (255 * std), -np.array(self.mean) / std
        shape = (3, 1, 1) if axis == -3 else (3,)
        return scale.astype(np.float32).reshape(shape), shift.astype(np.float32).reshape(shape)
