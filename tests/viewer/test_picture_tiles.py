"""Tiles against numpy on whole arrays: every pixel, at every zoom."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import MemoryArray
from microtome.sources import image_from_levels, open_image
from microtome.viewer._blending import parse_lamps
from microtome.viewer._colours import CHANNEL_COLOURS
from microtome.viewer._slide import ChannelFacts, Placed, Slide
from microtome.viewer._zoom import max_zoom, read_tile, window_of


def halved(pixels, step):
    """Means of step x step blocks of what is there, on the whole array."""
    c, h, w = pixels.shape
    rows, columns = math.ceil(h / step), math.ceil(w / step)
    padded = np.full((c, rows * step, columns * step), np.nan)
    padded[:, :h, :w] = pixels
    return np.nanmean(padded.reshape(c, rows, step, columns, step), axis=(2, 4))


@settings(max_examples=40)
@given(st.data())
def test_a_zoom_is_the_mean_of_what_its_pixels_cover(data):
    height, width = (data.draw(st.integers(1, 1300)) for _ in range(2))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = (rng.random((2, height, width)) * 250).astype(dtype)
    image = open_image(pixels, axes="cyx", mpp=data.draw(st.sampled_from([0.25, 0.3, 1.0])))
    last = max_zoom(height, width)
    assert math.ceil(max(height, width) / 2**last) <= 256
    assert last == 0 or math.ceil(max(height, width) / 2 ** (last - 1)) > 256
    zoom = data.draw(st.integers(0, last))
    step = 2 ** (last - zoom)
    whole = halved(pixels, step)
    row = data.draw(st.integers(0, (whole.shape[1] - 1) // 256))
    col = data.draw(st.integers(0, (whole.shape[2] - 1) // 256))
    window = window_of(height, width, zoom, col, row)
    expected = whole[:, row * 256 : row * 256 + 256, col * 256 : col * 256 + 256]
    found = read_tile(image, window)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-4)
    np.testing.assert_array_equal(read_tile(image, window, [1])[0], found[1])


def test_levels_of_a_scanner_serve_the_zooms_between_them():
    """A factor of four between levels: every other zoom is made of the finer one."""
    pixels = np.random.default_rng(0).random((1, 1024, 2048)).astype(np.float32)
    coarse = halved(pixels, 4).astype(np.float32)
    image = image_from_levels(
        [MemoryArray(pixels), MemoryArray(coarse)],
        "cyx", mpp=Mpp.from_user(0.5), channel_names=["one"], uri="array", name="image",
    )  # fmt: skip
    assert image.level_count == 2
    for zoom, step in ((3, 1), (2, 2), (1, 4), (0, 8)):
        window = window_of(1024, 2048, zoom, 0, 0)
        assert window.step == step
        expected = halved(pixels, step)[:, :256, :256]
        np.testing.assert_allclose(read_tile(image, window), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("zoom", "col", "row"), [(3, 0, 0), (-1, 0, 0), (2, 4, 0), (2, 0, 3), (0, 1, 0), (2, 0, -1)]
)
def test_tiles_that_are_not_there_are_refused(zoom, col, row):
    assert max_zoom(613, 871) == 2
    with pytest.raises(OutOfRangeError):
        window_of(613, 871, zoom, col, row)


def test_an_image_without_levels_is_not_read_whole_for_a_tile():
    class Huge(MemoryArray):
        shape = (1, 200_000, 200_000)

    image = open_image(np.zeros((1, 8, 8), np.uint8), axes="cyx", mpp=1.0)
    object.__setattr__(image.level(0), "array", Huge(np.zeros((1, 8, 8), np.uint8)))
    with pytest.raises(InvalidInputError, match="build_levels"):
        read_tile(image, window_of(200_000, 200_000, 0, 0, 0))


@pytest.mark.parametrize("zoom", [0, 1, 2])
def test_true_colour_is_the_level_itself(study, client, picture, zoom):
    level = study.image().level(2 - zoom)[...]
    rows, columns = (-(-n // 256) for n in level.shape[1:])
    facts = client.get("api/image/a/he").json()
    assert (facts["max_zoom"], facts["kind"], facts["channels"]) == (2, "rgb", [])
    assert [facts["width"], facts["height"]] == [871, 613]
    for row in range(rows):
        for col in range(columns):
            expected = np.moveaxis(
                level[:, row * 256 : row * 256 + 256, col * 256 : col * 256 + 256], 0, -1
            )
            h, w = expected.shape[:2]
            shown = picture(f"api/image/a/he/tile/{zoom}/{col}/{row}.png")
            np.testing.assert_array_equal(shown[:h, :w, :3], expected)
            assert (shown[:h, :w, 3] == 255).all()
            assert not shown[h:].any()
            assert not shown[:, w:].any()


def test_a_jpeg_is_near_and_white_outside(study, picture):
    shown = picture("api/image/a/he/tile/0/0/0.jpeg").astype(int)
    level = np.moveaxis(study.image().level(2)[...], 0, -1).astype(int)
    h, w = level.shape[:2]
    assert np.abs(shown[:h, :w] - level).mean() < 8
    assert (shown[h + 8 :] > 250).all()


@settings(max_examples=25)
@given(st.data())
def test_channels_add_up_like_lamps(study, picture, data):
    zoom = data.draw(st.integers(0, 1))
    lamps = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.tuples(*[st.integers(0, 255)] * 3),
                st.integers(0, 1500),
                st.integers(1600, 4000),
                st.sampled_from([1.0, 0.5, 2.2]),
            ),
            max_size=5,
        )
    )
    level = study.image(modality="codex").level(1 - zoom)[...].astype(np.float64)
    col = data.draw(st.integers(0, (level.shape[2] - 1) // 256))
    row = data.draw(st.integers(0, (level.shape[1] - 1) // 256))
    part = level[:, row * 256 : row * 256 + 256, col * 256 : col * 256 + 256]
    light = np.zeros((*part.shape[1:], 3))
    texts = []
    for channel, colour, low, high, gamma in lamps:
        share = np.clip((part[channel] - low) / (high - low), 0, 1) ** gamma
        light += share[..., None] * np.array(colour)
        texts.append(f"{channel}:{bytes(colour).hex()}:{low}:{high}:{gamma}")
    shown = picture(f"api/image/a/codex/tile/{zoom}/{col}/{row}.png", channels=",".join(texts))[
        : part.shape[1], : part.shape[2]
    ]
    # Sums in single precision may fall on the other side of a half.
    difference = np.abs(shown[..., :3].astype(float) - np.minimum(light, 255))
    assert difference.max() < 0.51
    assert (shown[..., 3] == 255).all()


def test_channels_as_they_are_shown_at_first(study, client, picture):
    facts = client.get("api/image/a/codex").json()
    assert [c["name"] for c in facts["channels"]] == [
        "DNA", "CD3", "CD8", "odd:name,&=%",
    ]  # fmt: skip
    for channel, pixels in zip(facts["channels"], study.codex, strict=True):
        low, high = np.quantile(pixels, [0.005, 0.998])
        assert channel["low"] == pytest.approx(low, abs=40)
        assert channel["high"] == pytest.approx(high, abs=40)
        assert channel["min"] <= channel["low"] < channel["high"] <= channel["max"]
        assert channel["visible"]
        assert channel["measured"]
        assert channel["qc_pass"]
    asked = ",".join(
        f"{i}:{c['color'][1:]}:{c['low']}:{c['high']}" for i, c in enumerate(facts["channels"])
    )
    plain = picture("api/image/a/codex/tile/0/0/0.png")
    np.testing.assert_array_equal(
        plain, picture("api/image/a/codex/tile/0/0/0.png", channels=asked)
    )
    dark = picture("api/image/a/codex/tile/0/0/0.png", channels="")
    assert not dark[..., :3].any()


def test_of_many_channels_those_with_signal_are_shown_first():
    """As in MIBI files, whose channels are in the order of their names: background is the first."""
    rng = np.random.default_rng(0)
    pixels = rng.poisson(2, (9, 300, 300)).astype(np.uint16)
    bright = (2, 3, 4, 6, 7, 8)
    for channel in bright:
        pixels[channel, 100:130, 20 * channel : 20 * channel + 30] += 50 * (10 - channel)
    names = ["Background", "dark", "a", "b", "c", "dim", "d", "e", "f"]
    image = open_image(pixels, axes="cyx", mpp=0.5, channel_names=names)
    facts = tuple(ChannelFacts(n, nuclear=n == "e", qc_pass=n != "b") for n in names)
    plane = np.eye(3)
    slide = Slide(Placed(image, plane), False, tuple(map(ChannelFacts, names)), {}, ())
    assert [c["name"] for c in slide.first_channels if c["visible"]] == list("abcdef")
    colours = [c["color"] for c in slide.first_channels if c["visible"]]
    # None is called like nuclei: blue is the last choice.
    assert colours == [*CHANNEL_COLOURS[1:], CHANNEL_COLOURS[0]]
    # Nuclei are blue; what failed quality control waits for all that did not.
    slide = Slide(Placed(image, plane), False, facts, {}, ())
    shown = {c["name"]: c["color"] for c in slide.first_channels if c["visible"]}
    assert shown["e"] == CHANNEL_COLOURS[0]
    assert "b" not in shown
    assert len(shown) == 6


def test_channels_that_a_tissue_did_not_measure_are_told(client):
    facts = client.get("api/image/b/codex").json()
    assert [(c["name"], c["measured"], c["visible"]) for c in facts["channels"]] == [
        ("DNA", True, True), ("CD3", True, True),
        ("CD8", False, False), ("odd:name,&=%", False, False),
    ]  # fmt: skip
    answer = client.get("api/image/b/codex/tile/0/0/0.png", params={"channels": "2:ffffff:0:9"})
    assert answer.status_code == 404
    assert "no channel 2" in answer.json()["error"]


@pytest.mark.parametrize(
    "text",
    ["0", "0:ffffff:0", "0:fffff:0:1", "x:ffffff:0:1", "0:ffffff:nan:1", "0:ffffff:0:inf",
     "0:ffffff:0:1:0", "0:ffffff:0:1:1:1", "0:ffffgg:0:1", ",".join(["0:ffffff:0:1"] * 33)],
)  # fmt: skip
def test_channels_that_are_none_are_refused(text):
    with pytest.raises(InvalidInputError):
        parse_lamps(text, 4)


def test_a_browser_that_has_a_tile_is_not_sent_it_again(client):
    path = "api/image/a/he/tile/0/0/0.png"
    first = client.get(path)
    assert first.headers["cache-control"] == "private, max-age=3600"
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
