"""Any region of any level of a real file is what numpy cuts out of the whole level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from microtome.image import MultiscaleImage
from microtome.sources import open_image

TIFFS = [
    "wsi/cmu-1-small-region.svs",
    "wsi/vectra.qptiff",
    "mibi/fov8_RowNumber0_Depth_Profile0-MassCorrected-Filtered.tiff",
    "mibi/fov8_whole_cell_mask.tiff",
    *[
        f"imc/{folder}/20210305_NE_mockData{slide}_00{region}.tiff"
        for folder in ("img", "masks")
        for slide in (1, 2, 3)
        for region in (1, 2, 3)
    ],
]
NAMES = [*TIFFS, "ihc_mif/Lung1.png"]


def whole_levels(path: Path) -> list[NDArray[Any]]:
    """The levels, decoded by other programs, channels first."""
    if path.suffix == ".png":
        from skimage.io import imread

        return [np.moveaxis(imread(path)[..., :3], -1, 0)]
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        levels = [level.asarray() for level in series.levels]
        return [np.moveaxis(level, -1, 0) for level in levels] if "S" in series.axes else levels


def windows(shape: tuple[int, int], count: int, *, over: int) -> list[tuple[int, int, int, int]]:
    """Random windows (y0, x0, y1, x1) that touch an image and hang over it by at most `over`."""
    rng = np.random.default_rng(sum(shape) + over)
    height, width = shape
    found: list[tuple[int, int, int, int]] = [(0, 0, height, width)]
    for _ in range(count):
        y0, x0 = int(rng.integers(-over, height)), int(rng.integers(-over, width))
        y1 = int(rng.integers(max(y0, 0) + 1, height + over + 1))
        x1 = int(rng.integers(max(x0, 0) + 1, width + over + 1))
        found.append((y0, x0, y1, x1))
    return found


def region(image: MultiscaleImage, level: int, window: tuple[int, int, int, int]) -> Any:
    y0, x0, y1, x1 = window
    return image.get_transform_from_level(level).apply_box((x0, y0, x1, y1))


def selections(image: MultiscaleImage) -> list[tuple[Any, Any]]:
    """What a user asks for, and the planes that it must be."""
    names = image.channel_names
    if names is None:
        return [(None, ...)]
    last = len(names) - 1
    return [
        (None, slice(None)),
        (last, [last]),
        (names[last], [last]),
        ([names[last], names[0]], [last, 0]),
        ([0, last, 0], [0, last, 0]),
        (slice(1, None), slice(1, None)),
        (slice(None, None, -2), slice(None, None, -2)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_any_region_of_any_level(shared_data: Path, name: str) -> None:
    image = open_image(shared_data / name)
    levels = whole_levels(shared_data / name)
    assert image.level_count == len(levels)
    for index, expected in enumerate(levels):
        for place, window in enumerate(windows(expected.shape[-2:], 20, over=0)):
            wanted, planes = selections(image)[place % len(selections(image))]
            read = image.read_spatial_region(
                index, region(image, index, window), channel_coords=wanted
            )
            y0, x0, y1, x1 = window
            np.testing.assert_array_equal(read.data, expected[planes][..., y0:y1, x0:x1])
            corners = read.coordinate_transform.apply_box((0, 0, x1 - x0, y1 - y0))
            np.testing.assert_allclose(corners, region(image, index, window))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pad", [0, 3, "edge", "reflect"])
def test_any_region_that_hangs_over_the_edge(shared_data: Path, name: str, pad: Any) -> None:
    image = open_image(shared_data / name)
    over = 25
    for index, expected in enumerate(whole_levels(shared_data / name)):
        mode = {"mode": pad} if isinstance(pad, str) else {"constant_values": pad}
        around = [(0, 0)] * (expected.ndim - 2) + [(over, over)] * 2
        padded = np.pad(expected, around, **mode)  # type: ignore[call-overload]
        for place, window in enumerate(windows(expected.shape[-2:], 8, over=over)):
            wanted, planes = selections(image)[place % len(selections(image))]
            read = image.read_spatial_region(
                index, region(image, index, window), channel_coords=wanted, pad=pad
            )
            y0, x0, y1, x1 = (edge + over for edge in window)
            np.testing.assert_array_equal(read.data, padded[planes][..., y0:y1, x0:x1])


@pytest.mark.parametrize("name", TIFFS)
def test_a_small_read_takes_no_more_segments_than_it_touches(
    shared_data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from microtome.sources._tiff import TiffArray

    decoded: list[int] = []
    decode = TiffArray._decode

    def counted(self: TiffArray, page: int, segment: int) -> Any:
        decoded.append(segment)
        return decode(self, page, segment)

    monkeypatch.setattr(TiffArray, "_decode", counted)
    # Of tiles that are decoded whole: where compiled code is loaded, parts of them are.
    monkeypatch.setattr("microtome.sources._jpeg_parts.JpegParts.calls", lambda *_: None)
    image = open_image(shared_data / name)
    with tifffile.TiffFile(shared_data / name) as tiff:
        page = tiff.series[0].keyframe
        side = page.tilelength if page.is_tiled else page.rowsperstrip
        per_page = 1 if "S" in tiff.series[0].axes else image.nchannels
    height, width = image.level_shape(0)[-2:]
    y, x = height // 2 // side * side, width // 2
    image.read(0, (y, y + 1), (x, x + 1))
    # Rows without compression are not decoded at all.
    assert len(decoded) == (0 if page.compression == 1 else per_page)
