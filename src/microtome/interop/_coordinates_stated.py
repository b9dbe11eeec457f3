"""What the HDF5 files of TRIDENT and CLAM state about their patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError

__all__ = ["StatedPatches"]

# How far a scale times a size may be from a whole number of pixels: what floats lose.
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class StatedPatches:
    """What a file says about its patches, as its attributes have it."""

    path: Path
    program: str
    patch: float
    """Side in pixels at the scale of the file."""
    factor: NDArray[np.float64] | None
    """That scale, (x, y); None if it is not stated."""
    level: int
    patch_level0: float | None = None

    @classmethod
    def of(cls, attributes: Mapping[str, Any], path: Path) -> StatedPatches:
        """Read the attributes.

        Raises
        ------
        FormatError
            If they are none of TRIDENT or CLAM.
        """
        try:
            given = {name: _number(attributes[name]) for name in _NUMBERS if name in attributes}
            factor = np.asarray(attributes.get("downsample", 1.0), np.float64)
        except (TypeError, ValueError) as error:
            msg = f"{path} has attributes of its coordinates that are no numbers: {error}"
            raise FormatError(msg) from error
        patch = given.get("patch_size")
        if patch is None or patch <= 0 or not float(patch).is_integer():
            msg = (
                f"{path} states the patch size {patch}; coordinates of TRIDENT and CLAM have it as "
                f"attribute patch_size, these have {', '.join(sorted(attributes)) or 'no attribute'}"
            )
            raise FormatError(msg)
        fine, coarse = given.get("level0_magnification"), given.get("target_magnification")
        if fine is not None and coarse is not None:
            return cls(
                path,
                "trident",
                patch,
                _positive(np.full(2, fine / coarse if coarse else np.nan), path),
                0,
                given.get("patch_size_level0"),
            )
        if "patch_level" not in given:
            msg = (
                f"{path} states neither patch_level, as CLAM does, nor level0_magnification and "
                "target_magnification, as TRIDENT does"
            )
            raise FormatError(msg)
        level = int(given["patch_level"])
        if "downsample" not in attributes and level:
            return cls(path, "clam", patch, None, level)
        shaped = np.broadcast_to(factor, (2,)) if factor.shape in {(), (1,), (2,)} else np.zeros(2)
        custom = given.get("custom_downsample", 1.0)
        return cls(path, "clam", patch, _positive(shaped * custom, path), level)

    def size(self, factor: NDArray[np.float64]) -> tuple[int, int]:
        """Return (width, height) of a patch in pixels at a scale, (x, y).

        Raises
        ------
        InvalidInputError
            If it is no whole number of pixels, or the file does not state its scale.
        """
        if self.factor is not None and np.allclose(self.factor, factor, rtol=_CLOSE):
            return int(self.patch), int(self.patch)
        if self.factor is None:
            msg = f"{self.path}: patches of level {self.level} are of unknown size on the finest level"
            raise InvalidInputError(msg)
        fine = self.patch * self.factor if self.patch_level0 is None else self.patch_level0
        size = fine / factor
        # The side on the finest level was rounded, too.
        if (np.abs(size - np.rint(size)) > np.maximum(_CLOSE * size, 0.5 / factor)).any():
            msg = (
                f"{self.path}: a patch is {np.broadcast_to(fine, (2,)).tolist()} pixels of the finest level, "
                f"which is no whole number of pixels at scale {factor[::-1].tolist()} (y, x)"
            )
            raise InvalidInputError(msg)
        width, height = np.rint(size).astype(np.int64).tolist()
        return width, height


_NUMBERS = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "patch_level",
    "custom_downsample",
)


def _positive(factor: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    if not (np.isfinite(factor) & (factor > 0)).all():
        msg = f"{path} states that patches are read {factor.tolist()} times coarser"
        raise FormatError(msg)
    return factor


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(()).item())
