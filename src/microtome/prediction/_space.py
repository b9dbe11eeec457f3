"""Where a prediction lies: axes, pixel size and place of what a model makes of a level."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import ExistsError, InvalidInputError
from microtome.image import Level, MultiscaleImage, begin_image
from microtome.storage import Box, Layout, ShardWriter, StoredArray, is_left_over, verify_here

from ._batches import planned_level, spatial_shape
from ._canvas import Made
from ._mosaic import Unit

__all__ = [
    "ArrayTarget",
    "OutputSpace",
    "checked_fill",
    "checked_names",
    "free_place",
    "target_of",
]


@dataclass(frozen=True, slots=True)
class OutputSpace:
    """What is known of a new image before the model has answered.

    Parameters
    ----------
    level
        The level that tiles are cut from.
    mpp
        Its pixel size.
    rank
        Spatial axes of a tile.
    """

    level: Level
    mpp: Mpp
    rank: int

    @classmethod
    def of(cls, image: MultiscaleImage, level: int) -> OutputSpace:
        """Take what a level states; an error where it states no pixel size."""
        chosen = planned_level(image, level)
        # From the level itself: multiplying level 0's by a factor may round otherwise.
        mpp = Mpp(chosen.scale[-2], chosen.scale[-1], image.require_mpp().source)
        return cls(chosen, mpp, len(spatial_shape(chosen)))

    @property
    def axes(self) -> str:
        """Axes of the new image: the level's, and always channels."""
        return "".join(axis for axis in "tczyx" if axis == "c" or axis in self.level.axes)

    def shape(self, made: Made) -> tuple[int, ...]:
        """Return the shape of the new image, in the order of its axes."""
        sizes = dict(zip(self.level.axes, self.level.shape, strict=True))
        sizes |= dict(zip("zyx"[-self.rank :], made.shape, strict=True), c=made.channels)
        return tuple(sizes[axis] for axis in self.axes)

    def begin(
        self,
        out: str | os.PathLike[str],
        made: Made,
        *,
        channel_names: Sequence[str] | None,
        overwrite: bool,
        metadata: Mapping[str, Any],
        layout: Layout | None,
    ) -> MultiscaleImage:
        """Begin the new image; it appears when it is closed."""
        factor = made.scale[-1]
        # A pixel's centre moves where its size changes and the picture stays where it is.
        shift = (1 / factor - 1) / 2
        y, x = self.level.translation[-2:]
        mpp, place = self.mpp, (y, x)
        if factor != 1:
            size = float(1 / factor)
            mpp = Mpp(self.mpp.y * size, self.mpp.x * size, self.mpp.source)
            place = (y + float(shift) * self.mpp.y, x + float(shift) * self.mpp.x)
        spacing = dict(zip(self.level.axes, self.level.scale, strict=True)).get("z", 1.0)
        return begin_image(
            out,
            dtype=made.dtype,
            shape=self.shape(made),
            axes=self.axes,
            channel_names=channel_names,
            mpp=mpp,
            translation=place,
            # 1 is what a level says that nobody measured.
            z_spacing=spacing if spacing != 1 else None,
            layout=layout,
            overwrite=overwrite,
            metadata=metadata,
        )


@dataclass(slots=True)
class ArrayTarget:
    """An array on disk that the units of a picture are written to.

    Parameters
    ----------
    array
        The array.
    axes
        Its axes.
    rank
        Spatial axes of a unit.
    """

    array: StoredArray
    axes: str
    rank: int
    _writer: ShardWriter | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.array.path, Path):
            self._writer = ShardWriter.of(self.array.path, self.array.document)

    @property
    def unit(self) -> tuple[int, ...]:
        """Write unit along (Z)YX."""
        return self.array.write_unit[-self.rank :]

    def is_done(self, unit: Unit, /) -> bool:
        """Whether a unit was written before: none was."""
        del unit
        return False

    def write(self, unit: Unit, box: Box, pixels: NDArray[Any], /) -> None:
        """Write a unit."""
        whole = self.whole(unit, box)
        self.put(whole, pixels.reshape([stop - start for start, stop in whole]))

    def whole(self, unit: Unit, box: Box) -> Box:
        """Return the box of a unit in the array."""
        spans = {"t": (unit[0], unit[0] + 1), "z": (0, 1), "c": box[0]}
        spans |= dict(zip("zyx"[-self.rank :], box[1:], strict=True))
        return tuple(spans[axis] for axis in self.axes)

    def is_there(self, box: Box) -> bool:
        """Whether there is a file that holds a box."""
        unit = self.array.write_unit
        numbers = [str(start // step) for (start, _), step in zip(box, unit, strict=True)]
        return Path(str(self.array.path)).joinpath("c", *numbers).exists()

    def put(self, box: Box, pixels: NDArray[Any]) -> None:
        """Write a file of the array."""
        if self._writer is not None and self._writer.takes(box, pixels):
            self._writer.write(box, pixels)
        else:
            self.array.write(box, pixels)


def target_of(image: MultiscaleImage, rank: int) -> ArrayTarget:
    """Return the first level of a new image as a target."""
    return ArrayTarget(cast("StoredArray", image.level(0).array), image.axes, rank)


def checked_names(names: Sequence[str] | None, channels: int) -> list[str] | None:
    """Return the names of the channels that a model made.

    Raises
    ------
    InvalidInputError
        If there is not one for each.
    """
    found = None if names is None else list(names)
    if found is not None and len(found) != channels:
        msg = f"{len(found)} channel names {found} for the {channels} channels that the model returned"
        raise InvalidInputError(msg)
    return found


def checked_fill(fill: float, made: Made, *, adding: bool) -> None:
    """Refuse a fill value that the new image cannot hold.

    Raises
    ------
    InvalidInputError
        If its type has no such value, or it would spread into what is blended with it.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        value = np.asarray(fill).astype(made.dtype)
    if made.dtype.kind != "f" and (fill != fill or value != fill):  # noqa: PLR0124 - NaN
        msg = f"fill={fill!r} is no value of {made.dtype}, which the model returns"
        raise InvalidInputError(msg)
    if adding and not np.isfinite(fill):
        msg = f"fill={fill!r} would spread over all that is blended with it; use blend='crop'"
        raise InvalidInputError(msg)


def free_place(out: str | os.PathLike[str], image: MultiscaleImage, *, overwrite: bool) -> Path:
    """Refuse before the first tile is predicted what would be refused after the last."""
    verify_here(out)
    path = Path(out)
    if path.exists() and Path(image.uri).exists() and path.samefile(image.uri):
        msg = f"{path} is the image that is predicted; choose another place"
        raise InvalidInputError(msg)
    # Something else than an image is never replaced: nobody means their home directory.
    # What a killed writer left but for its last step is nobody's: whoever writes there takes its place.
    taken = path.exists() and not is_left_over(path)
    if taken and not (overwrite and MultiscaleImage.exists(path)):
        what = "an image" if MultiscaleImage.exists(path) else "something that is no image"
        # Overwriting would be refused too.
        hint = " or allow overwriting" if MultiscaleImage.exists(path) and not overwrite else ""
        msg = f"{path} exists already and is {what}; choose another place{hint}"
        raise ExistsError(msg)
    return path
