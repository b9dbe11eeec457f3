"""Datasets of one modality that read boxes of a tissue's frame, however their images lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from microtome.coordinates import AffineTransform
from microtome.regions import (
    ImageRegionData,
    PatchSpecs,
    Windows,
    decollate_regions,
    region_batch,
)

from ._frames import FramePlace, pixel_start, read_framed
from ._request import Request
from ._stored import StoredDataset

__all__ = ["FramedDataset"]


class FramedDataset(StoredDataset):
    """Reads boxes of the frames in which a tissue's images lie."""

    def __getitems__(self, indices: Sequence[int]) -> list[ImageRegionData[PatchSpecs]]:
        """Return several at once, those with the same channels in one read."""
        wanted, count = np.asarray(indices, np.int64), len(self)
        if (
            self.tiles is None
            or not wanted.size
            or not (-count <= wanted.min() <= wanted.max() < count)
        ):
            return super().__getitems__(indices)  # which says what is wrong
        rows = wanted % count
        tissue = self.tiles.rows(rows if self._rows is None else self._rows[rows]).tissue
        images, place = np.unique(self._image_of[tissue], return_inverse=True)
        together: dict[Any, list[int]] = {}
        for number, image in enumerate(images.tolist()):
            key = self._batch_key(self._tissue_ids[image], None)
            together.setdefault(key, []).append(number)
        found: dict[int, ImageRegionData[PatchSpecs]] = {}
        for numbers in together.values():
            mine = np.flatnonzero(np.isin(place, numbers))
            regions = decollate_regions(self.read_batch(rows[mine]))
            found.update(zip(mine.tolist(), regions, strict=True))
        return [found[number] for number in range(wanted.size)]

    def _places(
        self,
        places: Sequence[FramePlace],
        to_frame: Mapping[str, AffineTransform],
        request: Request,
    ) -> list[ImageRegionData[PatchSpecs]]:
        """Read boxes of one size: those on the images' pixel grids as they are, in batches.

        Parameters
        ----------
        places
            Where.
        to_frame
            How images lie, by tissue id; those of other tissues have the frame's own grid.
        request
            What.
        """
        found: dict[int, ImageRegionData[PatchSpecs]] = {}
        together: dict[Any, list[tuple[int, tuple[int, int]]]] = {}
        for number, place in enumerate(places):
            transform = to_frame.get(place.tissue_id)
            start = None
            if transform is None:
                start = pixel_start(place.box, self.resolution.mpp)
            if start is None:
                found[number] = self._framed(place, transform, request)
            else:
                key = self._batch_key(place.tissue_id, request.select)
                together.setdefault(key, []).append((number, start))
        for group in together.values():
            mine = [places[number] for number, _ in group]
            windows = Windows.of(
                [self._number(place.tissue_id) for place in mine],
                [start for _, start in group],
                mine[0].box.pixels(self.resolution.mpp),
            )
            batch = self._batch(windows, [place.tile_id for place in mine], request)
            numbers = (number for number, _ in group)
            found.update(zip(numbers, decollate_regions(batch), strict=True))
        return [found[number] for number in range(len(places))]

    def _framed(
        self,
        place: FramePlace,
        to_frame: AffineTransform | None,
        request: Request,
    ) -> ImageRegionData[PatchSpecs]:
        """Read a box of the tissue's frame, resampled from the image as it lies there.

        Masks and cells lie on the image's grid, and do not come along.
        """
        mpp, tissue_id, box = self.resolution.mpp, place.tissue_id, place.box
        number = np.asarray([self._number(tissue_id)])
        picked = self._channels(number, request.select)
        channels = None if picked is None else picked[int(number[0])]
        halo = self.filters.halo if request.preprocess else 0
        size = box.pixels(mpp)
        pixels, inside = read_framed(
            self._opener, tissue_id, box.grown(halo, mpp), to_frame, channels
        )
        data = pixels[None]
        if request.preprocess:
            whole = np.asarray([[0, 0, *pixels.shape[-2:]]])
            data = self._standardize(data, number, whole, request.select)
            if halo:
                data = self.filters(data, out=data)
        cut = (..., slice(halo, halo + size[0]), slice(halo, halo + size[1]))
        data = np.ascontiguousarray(data[cut], np.float32)
        data[..., ~inside[cut]] = 0
        windows = Windows.of(number, [[round(box.y / mpp[0]), round(box.x / mpp[1])]], size)
        bare = replace(request, masks=False, cells=False)
        told = self._metadata_of(windows, [place.tile_id], bare)[0]
        told["frame_box"] = (box.y, box.x, box.y + box.height, box.x + box.width)
        told["to_frame"] = None if to_frame is None else to_frame.augmented_matrix[:2].tolist()
        batch = region_batch(self._images, windows, data, channels=picked, metadata=[told])
        return decollate_regions(batch)[0]
