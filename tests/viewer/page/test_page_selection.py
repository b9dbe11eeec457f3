"""What is selected, what the list is filtered by, and the link that leads to it again."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

from microtome.viewer._colours import MASK_COLOUR

from .conftest import LONG_NAME

pytestmark = pytest.mark.slow

HE = "#tissue=core_one&modality=he"


def click(viewer, x, y, view=0):
    """Click a level-0 pixel of a view that is at 1:1 around (450, 350)."""
    box = viewer.page.locator(".stage").nth(view).bounding_box()
    viewer.page.mouse.click(
        box["x"] + box["width"] / 2 + (x - 450), box["y"] + box["height"] / 2 + (y - 350)
    )
    viewer.settle()


def facts(viewer, section):
    """The terms of a section, with what it says of each."""
    found = viewer.page.locator(f"#{section}")
    if found.is_hidden():
        return None
    terms, values = (found.locator(tag).all_inner_texts() for tag in ("dt", "dd"))
    return dict(zip(terms, values, strict=True))


def test_a_cell_that_is_clicked_shows_its_row(viewer, site):
    viewer.open(HE + "&x=450&y=350&zoom=1")
    click(viewer, 550, 450)
    assert facts(viewer, "cell") is None, "cells are not shown, and none was meant"
    viewer.page.keyboard.press("c")
    viewer.settle()
    plain = viewer.pixels()
    assert site.cells[450, 550] == 8
    click(viewer, 550, 450)
    known = {"cell": "8", "type": "T <b>cell</b>", "CD3": "3.25", LONG_NAME: "0.67206"}
    assert facts(viewer, "cell") == known
    assert "No value of CD8." in viewer.page.locator("#cell").inner_text()
    lines = viewer.page.locator("#cell dd", has_text="0.67206").evaluate(
        "e => { const r = document.createRange(); r.selectNodeContents(e);"
        " return new Set([...r.getClientRects()].map((b) => b.top)).size; }"
    )
    assert lines == 1, "a number is not broken"
    assert viewer.hash()["cell"] == "8"
    # A white frame in black, around this cell and nothing else.
    changed = np.abs(viewer.pixels() - plain).max(-1) > 0
    y, x = np.nonzero(changed[:, 200:])
    box = viewer.page.locator(".stage").first.bounding_box()
    left, top = (round(box[k] / 2 + d) for k, d in (("width", 520 - 450), ("height", 420 - 350)))
    assert (x.min() + 200, y.min()) == pytest.approx((left - 3, top - 3), abs=1)
    assert (x.max() + 200, y.max()) == pytest.approx((left + 62, top + 62), abs=1)
    click(viewer, 350, 250)
    assert facts(viewer, "cell") == {"cell": "7"}
    assert "has no row of this cell" in viewer.page.locator("#cell").inner_text()
    click(viewer, 350, 250)
    assert facts(viewer, "cell") is None
    assert "cell" not in viewer.hash()
    click(viewer, 550, 450)
    viewer.page.keyboard.press("c")  # What it was chosen from is gone.
    viewer.settle()
    assert facts(viewer, "cell") is None
    # Without the rim, where the focus has its own frame.
    left = viewer.pixels()[8:-8, 8:-8]
    viewer.open(viewer.page.evaluate("location.hash"))
    np.testing.assert_array_equal(left, viewer.pixels()[8:-8, 8:-8])


def test_the_middle_is_selected_by_the_keyboard(viewer):
    viewer.open(HE + "&x=550&y=450&zoom=1&layers=cells:instances:1:style=fill,tilings:default-64:1")
    viewer.page.keyboard.press("Enter")
    viewer.settle()
    assert facts(viewer, "cell")["cell"] == "8"
    assert facts(viewer, "tile")["size"] == "64 \N{MULTIPLICATION SIGN} 64 px"


def test_a_link_leads_to_what_was_selected(viewer):
    viewer.open(HE + "&x=450&y=350&zoom=1&modality2=stains")
    for key in ("c", "t"):
        viewer.page.keyboard.press(key)
    viewer.settle()
    click(viewer, 550, 450)
    viewer.page.get_by_label("patient_id").select_option(label="colon")
    viewer.page.get_by_label("Filter tissues by words").fill("core & one")
    viewer.page.get_by_label("Filter tissues by words").fill("core one")
    viewer.settle()
    link = viewer.page.evaluate("location.hash")
    said = [facts(viewer, "cell"), facts(viewer, "tile")]
    assert None not in said
    seen = [viewer.pixels(0), viewer.pixels(1)]
    viewer.page.mouse.move(5, 5)  # Away: what is told is of the link alone.
    viewer.open(link)
    assert viewer.page.evaluate("location.hash") == link
    assert [facts(viewer, "cell"), facts(viewer, "tile")] == said
    assert viewer.page.get_by_label("Filter tissues by words").input_value() == "core one"
    assert viewer.page.locator("#tissue-count").inner_text() == "1 of 3 tissues"
    for view, before in enumerate(seen):
        changed = np.abs(before - viewer.pixels(view)).max(-1) > 8
        assert changed.mean() < 0.003  # The tile under the pointer had a frame, too.
    # Another tissue has none of it but the filter.
    viewer.page.keyboard.press("/")
    viewer.page.get_by_label("Filter tissues by words").fill("")
    viewer.page.get_by_label("patient_id").select_option(label="lung")
    viewer.page.get_by_role("button", name="core_2").click()
    viewer.settle()
    assert {"cell", "tile", "find"}.isdisjoint(viewer.hash())
    assert viewer.hash()["where"] == "patient_id:lung"
    viewer.page.go_back()
    viewer.settle()
    assert facts(viewer, "cell") == said[0]


def test_what_a_link_selects_and_is_not_there_is_told(viewer):
    viewer.meant = ("404",)
    viewer.open(
        HE
        + "&tile=default-64:99999&cell=0&where=site:one,patient_id:nobody,patient_id:colon&channels=DAPI:ffffff:0:1"
    )
    told = viewer.page.get_by_role("alert").locator("p").all_inner_texts()
    assert sorted(told) == [
        "No tissue has patient_id nobody, which the link asks for.",
        "This part of the link cannot be read: cell=0",
        "Tissues are not told apart by site, which the link asks for.",
        "he of core_one has no channel DAPI, which the link asks for.",
        "tissue 'core_one' has no tile 99999 in 'default 64 px'",
    ]
    assert viewer.hash()["where"] == "patient_id:colon"


def test_masks_and_tilings_are_told_apart_and_named_by_their_colours(viewer):
    viewer.open(HE)
    swatches = viewer.page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#layers .swatch")].map((one) => [
            one.closest("li").querySelector(".name").textContent, one.style.getPropertyValue("--swatch")]))"""
    )
    assert swatches == {"default 64 px": tilings()[0], "tissue": f"#{bytes(MASK_COLOUR).hex()}"}


def tilings():
    """The colours of tilings, as the page has them."""
    text = (files("microtome.viewer") / "static" / "colormaps.js").read_text()
    found = re.search(r"TILINGS = \[(.*)\]", text)
    assert found is not None
    return re.findall(r"#[0-9a-f]{6}", found[1])


# What is seen without one kind of cones, as maps of linear light: Machado, Oliveira and Fernandes, A
# Physiologically-based Model for Simulation of Color Vision Deficiency, IEEE TVCG 15(6), 2009, severity 1.
SIGHT = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(linear):
    """CIELAB of linear sRGB."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
    xyz = np.array(to_xyz) @ linear / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_masks_and_tilings_are_told_apart_by_everybody(sight):
    shares = [
        np.array(MASK_COLOUR) / 255,
        *(np.array([*bytes.fromhex(c[1:])]) / 255 for c in tilings()),
    ]
    assert len(shares) > 3
    linear = [np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4) for s in shares]
    seen = [lab(np.clip(np.array(SIGHT[sight]) @ one, 0, 1)) for one in linear]
    # 2.3 is just noticeable side by side; thin lines that are apart need ten times that.
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 20


def test_an_empty_cohort_is_told_as_one(chromium, serving, tmp_path):
    from microtome.cohort import CohortLayout
    from microtome.viewer import viewer_app

    CohortLayout.open_or_create(tmp_path / "empty")
    with serving(viewer_app(tmp_path / "empty", token="token")) as url:
        page = chromium.new_page()
        page.goto(f"{url}/token/")
        page.wait_for_selector("#tissue-list li")
        assert page.locator("#tissue-list").inner_text() == (
            "This cohort has no picture yet: microtome ingest adds one."
        )
        page.close()
