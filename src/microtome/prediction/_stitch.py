"""The kept part of every tile back to its place: into a new image, or into an array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import ExistsError, InvalidInputError, ModeError
from microtome.image import MultiscaleImage, begin_image
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import Layout, StoredArray
from microtome.tiling import TilePlan

from ._batches import level_index, plane_level
from ._mosaic import Mosaic
from ._output import checked_maps, place_of

__all__ = ["Stitcher", "library_version", "stitch_tiles"]


class Stitcher:
    """A new image, put together from the tiles of another one.

    It lies where the level lies that the tiles were cut from: the same rows and columns, scale and
    translation. It appears at `out`, whole, with `finish`; leaving the `with` block without that
    removes what was written. Every shard is written once, when its last tile has come, whatever
    the order of the tiles.

    Parameters
    ----------
    out
        Directory of the new OME-Zarr image.
    image
        The image that the tiles were cut from.
    plan
        The tiles.
    level
        Index of the level of `image` that the plan speaks of.
    channel_names
        One a channel of the new image; ``"channel 0"``, ... by default.
    overwrite
        Whether an image at `out` is replaced, when the new one is complete.
    allow_nan
        Whether NaN may be written.
    metadata
        Further attributes of the image. What was cut how is added under
        ``["microtome"]["prediction"]``.
    model
        Name of the model, for the attributes.
    layout
        Chunks, shards and codec; the default of intensity images by default.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    InvalidInputError
        If image and plan do not fit each other, or `out` is the image itself.
    NoResolutionError
        If the image does not state its pixel size.

    Examples
    --------
    ::

        plan = plan_tiles(image.level_shape(0)[-2:], tile_size=512, overlap=64)
        with Stitcher("out.ome.zarr", image, plan) as stitcher:
            for batch in iter_tile_batches(image, plan):
                stitcher.add(batch._replace(data=model(batch.data)))
            result = stitcher.finish()
    """

    def __init__(  # noqa: PLR0913 - what a new image needs to know, all but three optional
        self,
        out: str | os.PathLike[str],
        image: MultiscaleImage,
        plan: TilePlan,
        *,
        level: int = 0,
        channel_names: Sequence[str] | None = None,
        overwrite: bool = False,
        allow_nan: bool = False,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        layout: Layout | None = None,
    ) -> None:
        chosen = plane_level(image, level)
        if plan.shape != chosen.shape[-2:]:
            msg = f"the plan covers {plan.shape}, level {level} of {image.uri} {chosen.shape[-2:]}"
            raise InvalidInputError(msg)
        # From the level itself: multiplying level 0's by a factor may round otherwise.
        self._mpp = Mpp(chosen.scale[-2], chosen.scale[-1], image.require_mpp().source)
        self._translation = chosen.translation[-2], chosen.translation[-1]
        self._out = _free_place(out, image, overwrite=overwrite)
        self._overwrite = overwrite
        self._plan = plan
        self._names = None if channel_names is None else list(channel_names)
        self._allow_nan = allow_nan
        self._layout = layout
        self._metadata = _provenance(metadata, image, level_index(image, level), plan, model)
        rows = plan.take(np.arange(plan.grid[0]) * plan.grid[1])
        columns = plan.take(np.arange(plan.grid[1]))
        self._seams = rows.stitch[:, 0], columns.stitch[:, 1]
        self._kept = rows.crop_size[:, 0], columns.crop_size[:, 1]
        self._seen = np.zeros(plan.grid, np.bool_)
        self._image: MultiscaleImage | None = None
        self._mosaic: Mosaic | None = None
        self._closed = False

    @property
    def tiles_done(self) -> int:
        """Number of tiles that have come."""
        return int(self._seen.sum())

    def add(self, batch: ImageRegionData[Any]) -> None:
        """Put the tiles of a batch in their places.

        Parameters
        ----------
        batch
            A batch of `iter_tile_batches` whose data are the model's output, (B, C', Y, X) with
            the tiles' own Y and X: a numpy array or a torch tensor. The first batch decides the
            number of channels and the dtype of the image.

        Raises
        ------
        InvalidInputError
            If the output has another shape, or other channels or another dtype than before, or NaN
            in a kept part; or if a tile is not of the plan, or came before. The message names the
            tile.
        """
        data = checked_maps(batch)
        mosaic = self._fitting(data, batch)
        spec = cast("dict[str, Any]", batch.region_spec)
        stitch = np.asarray(spec["stitch_coords"], np.int64)
        crop = np.asarray(spec["crop_coords"], np.int64)
        size = np.asarray(spec["crop_size"], np.int64)
        for row in range(len(data)):
            self._mark(batch, row, stitch[row], size[row])
            (top, left), (height, width) = crop[row].tolist(), size[row].tolist()
            kept = data[row, :, top : top + height, left : left + width]
            if not self._allow_nan and kept.dtype.kind == "f" and np.isnan(kept).any():
                msg = (
                    f"the model returned NaN for {place_of(batch, row)}, in "
                    f"{int(np.isnan(kept).sum())} of {kept.size} values; allow_nan=True stores it"
                )
                raise InvalidInputError(msg)
            mosaic.paste(int(stitch[row, 0]), int(stitch[row, 1]), kept)

    def finish(self, *, progress: Progress = silent) -> MultiscaleImage:
        """Build the pyramid, make the image appear at its place, and open it.

        Parameters
        ----------
        progress
            Called with the blocks of the pyramid done and to do.

        Raises
        ------
        InvalidInputError
            If tiles are missing.
        """
        try:
            left = self._seen.size - self.tiles_done
            if left or self._image is None:
                self._check_open()
                row, col = np.argwhere(~self._seen)[0]
                first = self._plan.take([int(row * self._plan.grid[1] + col)])
                msg = f"{self._out}: {left} of {self._seen.size} tiles are missing, the first at (row, col) {tuple(first.coords[0].tolist())}"
                raise InvalidInputError(msg)
            self._check_open()
            self._image.build_levels(progress=progress)
            self._image.close()
            self._closed = True
        finally:
            self.discard()
        return MultiscaleImage.open(self._out)

    def discard(self) -> None:
        """Remove what was written, unless it is finished."""
        if not self._closed and self._image is not None:
            self._image.discard()
        self._closed = True
        self._mosaic = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the stitcher of {self._out} is finished or discarded"
            raise ModeError(msg)

    def _fitting(self, data: NDArray[Any], batch: ImageRegionData[Any]) -> Mosaic:
        """Return the mosaic, begun with the first batch; the data must fit it."""
        self._check_open()
        if self._image is None or self._mosaic is None:
            if self._names is not None and len(self._names) != data.shape[1]:
                msg = f"{len(self._names)} channel names {self._names} for the {data.shape[1]} channels that the model returned"
                raise InvalidInputError(msg)
            shape = (data.shape[1], self._plan.shape[0], self._plan.shape[1])
            self._image = begin_image(
                self._out,
                dtype=data.dtype,
                shape=shape,
                axes="cyx",
                channel_names=self._names,
                mpp=self._mpp,
                translation=self._translation,
                layout=self._layout,
                overwrite=self._overwrite,
                metadata=self._metadata,
            )
            array = cast("StoredArray", self._image.level(0).array)
            unit = array.write_unit
            self._mosaic = Mosaic(shape, (unit[-2], unit[-1]), array.write)
        elif data.shape[1] != self._image.nchannels or data.dtype != self._image.dtype:
            msg = (
                f"the model returned {data.shape[1]} channels of {data.dtype} from "
                f"{place_of(batch, 0)}, before that {self._image.nchannels} of {self._image.dtype}"
            )
            raise InvalidInputError(msg)
        return self._mosaic

    def _mark(
        self,
        batch: ImageRegionData[Any],
        row: int,
        stitch: NDArray[np.int64],
        size: NDArray[np.int64],
    ) -> None:
        """Tick a tile off; it must be one of the plan that has not come before."""
        at = tuple(
            min(int(np.searchsorted(seams, value)), len(seams) - 1)
            for seams, value in zip(self._seams, stitch, strict=True)
        )
        planned = [int(seams[i]) for seams, i in zip(self._seams, at, strict=True)]
        kept = [int(sizes[i]) for sizes, i in zip(self._kept, at, strict=True)]
        if planned != stitch.tolist() or kept != size.tolist():
            msg = f"{place_of(batch, row)} keeps {size.tolist()} pixels for {stitch.tolist()}: not a tile of the plan"
            raise InvalidInputError(msg)
        if self._seen[at]:
            msg = f"{place_of(batch, row)} came twice"
            raise InvalidInputError(msg)
        self._seen[at] = True


def stitch_tiles(batches: Iterable[ImageRegionData[Any]]) -> NDArray[Any]:
    """Put the tiles of one image together in memory.

    Parameters
    ----------
    batches
        Batches of tiles, in any order, whose data are a model's output, (B, C', Y, X).

    Returns
    -------
    (C', Y, X) of the level that the tiles were cut from, in the dtype of the first batch.

    Raises
    ------
    InvalidInputError
        If there is none, tiles are missing, come twice or belong to several images, or batches
        differ in channels or dtype.
    """
    canvas: NDArray[Any] | None = None
    covered = np.zeros((0, 0), np.bool_)
    place: tuple[Any, ...] | None = None
    for batch in batches:
        data = checked_maps(batch)
        spec = cast("dict[str, Any]", batch.region_spec)
        shape = tuple(int(sizes[0]) for sizes in list(batch.data_shape)[-2:])
        if canvas is None:
            canvas = np.empty((data.shape[1], *shape), data.dtype)
            covered = np.zeros(shape, np.bool_)
            place = (batch.source[0], int(spec["data_idx"][0]))
        sources = set(zip(batch.source, np.asarray(spec["data_idx"]).tolist(), strict=True))
        if sources != {place} or data.shape[1] != len(canvas) or data.dtype != canvas.dtype:
            msg = (
                f"tiles of one image are stitched, all with {len(canvas)} channels of "
                f"{canvas.dtype}; got {data.shape[1]} of {data.dtype} from {sorted(sources)}"
            )
            raise InvalidInputError(msg)
        for row, tile in enumerate(data):
            (top, left), (height, width), (y, x) = (
                np.asarray(spec[key][row]).tolist()
                for key in ("crop_coords", "crop_size", "stitch_coords")
            )
            target = np.s_[y : y + height, x : x + width]
            if covered[target].any():
                msg = f"{place_of(batch, row)} covers pixels that another tile has covered"
                raise InvalidInputError(msg)
            covered[target] = True
            canvas[:, y : y + height, x : x + width] = tile[
                :, top : top + height, left : left + width
            ]
    if canvas is None or not covered.all():
        msg = f"tiles are missing: {int(covered.sum())} of {covered.size} pixels are covered"
        raise InvalidInputError(msg)
    return canvas


def library_version() -> str:
    """Return the version that is written into what we make."""
    try:
        return version("microtome")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def _free_place(out: str | os.PathLike[str], image: MultiscaleImage, *, overwrite: bool) -> Path:
    """Refuse before the first tile is predicted what would be refused after the last."""
    path = Path(out)
    if path.exists() and Path(image.uri).exists() and path.samefile(image.uri):
        msg = f"{path} is the image that is predicted; choose another place"
        raise InvalidInputError(msg)
    # Something else than an image is never replaced: nobody means their home directory.
    if path.exists() and not (overwrite and MultiscaleImage.exists(path)):
        what = "an image" if MultiscaleImage.exists(path) else "something that is no image"
        hint = "" if overwrite else " or allow overwriting"
        msg = f"{path} exists already and is {what}; choose another place{hint}"
        raise ExistsError(msg)
    return path


def _provenance(
    metadata: Mapping[str, Any] | None,
    image: MultiscaleImage,
    level: int,
    plan: TilePlan,
    model: str | None,
) -> dict[str, Any]:
    given = dict(metadata or {})
    ours = {
        "source": image.uri,
        "level": level,
        "tile_size": list(plan.tile_size),
        "overlap": list(plan.overlap),
        "blend": "crop",
        "model": model,
        "version": library_version(),
    }
    return {**given, "microtome": {**given.get("microtome", {}), "prediction": ours}}
