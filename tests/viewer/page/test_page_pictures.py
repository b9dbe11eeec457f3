"""What the page draws, pixel by pixel, against the arrays that the cohort was made from."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.slow

HE = "#tissue=core_one&modality=he"
STAINS = "#tissue=core_one&modality=stains"
JPEG = 4  # What JPEG may change in the middle of a flat square.


def middles(shape, step=100, first=50):
    """Rows and columns of the middles of flat squares."""
    return [(r, c) for r in range(first, shape[0], step) for c in range(first, shape[1], step)]


def shown_at(viewer, at, view=0):
    """Look up what is shown at a level-0 pixel, or None where that is out of view."""
    pixels, link = viewer.pixels(view), viewer.hash()

    def look(row, column):
        y, x = at(pixels, link, row, column)
        # Around it may be the frame of the focus, in the lower left corner is the scale bar.
        if not (4 <= y < pixels.shape[0] - 4 and 4 <= x < pixels.shape[1] - 4) or (
            y > pixels.shape[0] - 60 and x < 180
        ):
            return None
        return pixels[y, x]

    return look


def compare(look, expected, places, tolerance):
    """Hold all places that are in view against what is expected there; returns how many."""
    seen = 0
    for row, column in places:
        found = look(row, column)
        if found is None:
            continue
        np.testing.assert_allclose(
            found, expected(row, column), atol=tolerance, err_msg=f"{row, column}"
        )
        seen += 1
    return seen


def test_opens_with_the_whole_picture(viewer, site, at):
    viewer.open()
    assert viewer.page.title() == "core_one · study <one> & two"
    link = viewer.hash()
    assert (link["tissue"], link["modality"]) == ("core_one", "he")
    assert (float(link["x"]), float(link["y"])) == pytest.approx((450, 350), abs=0.1)
    seen = compare(shown_at(viewer, at), lambda r, c: site.he[r, c], middles(site.he.shape), JPEG)
    assert seen == 63  # all of it


@pytest.mark.parametrize(
    ("place", "least"),
    [("&x=450&y=350&zoom=1", 35), ("&x=300&y=300&zoom=4", 2), ("&x=450&y=350&zoom=0.25", 63)],
)
def test_a_link_leads_to_the_place(viewer, site, at, place, least):
    viewer.open(HE + place)
    link = viewer.hash()
    assert f"&x={link['x']}&y={link['y']}&zoom={link['zoom']}" == place
    seen = compare(shown_at(viewer, at), lambda r, c: site.he[r, c], middles(site.he.shape), JPEG)
    assert seen >= least


def test_single_pixels_are_seen_when_near(viewer, site, at):
    """Far in, the edge between two pixels is sharp: nothing is blurred into measured values."""
    viewer.open(STAINS + "&x=300&y=200&zoom=16&channels=DAPI:ffffff:0:1000")
    look = shown_at(viewer, at)
    for row in (199, 200):
        for column in (299, 300):
            expected = round(site.stains[0, row, column] / 1000 * 255)
            np.testing.assert_allclose(look(row, column), [expected] * 3, atol=1)


def test_moving_and_zooming_by_hand_and_by_keys(viewer, site, at):
    viewer.open(HE + "&x=450&y=350&zoom=1")
    page = viewer.page
    box = page.locator(".stage").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=8)
    page.wait_for_timeout(200)  # Held still: no flick.
    page.mouse.up()
    viewer.settle()
    link = viewer.hash()
    assert (float(link["x"]), float(link["y"])) == pytest.approx((510, 390), abs=1.5)
    everywhere = middles(site.he.shape)
    assert compare(shown_at(viewer, at), lambda r, c: site.he[r, c], everywhere, JPEG) > 20
    page.mouse.wheel(0, -200)
    viewer.settle()
    assert float(viewer.hash()["zoom"]) > 1.2
    before = viewer.hash()
    page.keyboard.press("ArrowRight")
    viewer.settle()
    moved = (float(viewer.hash()["x"]) - float(before["x"])) * float(before["zoom"])
    assert moved == pytest.approx(80, abs=1.5)  # CSS pixels
    page.keyboard.press("-")
    viewer.settle()
    assert float(viewer.hash()["zoom"]) == pytest.approx(float(before["zoom"]) / 1.5, rel=0.01)
    assert compare(shown_at(viewer, at), lambda r, c: site.he[r, c], everywhere, JPEG) > 20
    page.keyboard.press("0")
    viewer.settle()
    assert float(viewer.hash()["x"]) == pytest.approx(450, abs=0.1)


def blend(site, settings):
    """Add up channels as the page is asked to, on the whole array."""
    out = np.zeros((*site.stains.shape[1:], 3))
    for index, (colour, low, high) in settings.items():
        part = np.clip((site.stains[index].astype(float) - low) / (high - low), 0, 1)
        out += part[..., None] * np.array(colour)
    return np.clip(out, 0, 255)


def test_channels_are_shown_hidden_coloured_and_stretched(viewer, site, at):
    viewer.open(STAINS + "&channels=DAPI:0000ff:0:1000,CD3:00ff00:100:600")
    page = viewer.page
    places = middles(site.stains.shape[1:])

    def check(settings):
        viewer.settle()
        expected = blend(site, settings)
        look = shown_at(viewer, at)
        assert compare(look, lambda r, c: expected[r, c], places, 2) == len(places)

    check({0: ((0, 0, 255), 0, 1000), 1: ((0, 255, 0), 100, 600)})
    page.get_by_role("checkbox", name="DAPI").uncheck()
    check({1: ((0, 255, 0), 100, 600)})
    page.get_by_label("Colour of CD3").fill("#ff8000")
    check({1: ((255, 128, 0), 100, 600)})
    page.get_by_label("High end of contrast of CD3, as a number").fill("900")
    page.keyboard.press("Enter")
    check({1: ((255, 128, 0), 100, 900)})
    page.get_by_role("checkbox", name="a:b,c&d=%").check()
    page.get_by_label("Colour of a:b,c&d=%").fill("#0000ff")
    for end, value in (("Low", "0"), ("High", "500")):
        page.get_by_label(f"{end} end of contrast of a:b,c&d=%, as a number").fill(value)
        page.keyboard.press("Enter")
    both = {1: ((255, 128, 0), 100, 900), 2: ((0, 0, 255), 0, 500)}
    check(both)
    # The same again from the link alone, whose names are the worst that a panel may have.
    viewer.open(page.evaluate("location.hash"))
    check(both)
    page.get_by_role("button", name="Hide all").click()
    check({})


def test_the_brackets_go_from_channel_to_channel(viewer, site):
    viewer.open(STAINS + "&channels=DAPI:ffffff:0:1000")
    viewer.page.keyboard.press("]")
    viewer.settle()
    assert viewer.hash()["channels"].startswith("CD3:")
    viewer.page.keyboard.press("[")
    viewer.page.keyboard.press("[")
    viewer.settle()
    assert viewer.hash()["channels"].startswith("a%3Ab%2Cc%26d%3D%25:")


def test_a_mask_lies_over_the_tissue_and_nowhere_else(viewer, site, at):
    viewer.open(HE)
    plain = shown_at(viewer, at)
    viewer.page.keyboard.press("m")
    viewer.settle()
    masked = shown_at(viewer, at)
    inside = outside = 0
    for place in middles(site.he.shape):
        change = np.abs(masked(*place) - plain(*place)).max()
        if site.mask[place]:
            inside += change > 10
        else:
            outside += 1
            assert change == 0, place
    assert outside > 20
    assert (
        inside >= site.mask[50::100, 50::100].sum() - 2
    )  # A square may have the mask's own colour.
    viewer.page.get_by_label("Opacity of", exact=False).last.fill("0")
    viewer.page.keyboard.press("Enter")
    viewer.settle()
    viewer.open(viewer.page.evaluate("location.hash"))
    clear = shown_at(viewer, at)
    assert all(np.array_equal(clear(*place), plain(*place)) for place in middles(site.he.shape))
    viewer.page.keyboard.press("Escape")  # Out of the field, which letters belong to.
    viewer.page.keyboard.press("m")
    viewer.settle()
    assert "layers" not in viewer.hash()


def test_cells_are_outlined_where_they_are(viewer, site, at):
    link = HE + "&x=450&y=350&zoom=2"
    viewer.open(link)
    plain = shown_at(viewer, at)
    viewer.page.keyboard.press("c")
    viewer.settle()
    outlined = shown_at(viewer, at)
    changed = {
        p: np.abs(outlined(*p) - plain(*p)).max() > 20
        for p in [(420, 550), (450, 520), (450, 550), (400, 550)]
    }
    assert changed == {(420, 550): True, (450, 520): True, (450, 550): False, (400, 550): False}
    viewer.page.get_by_label("Style of").select_option("fill")
    viewer.settle()
    filled = shown_at(viewer, at)
    assert np.abs(filled(450, 550) - plain(450, 550)).max() > 20
    assert np.abs(filled(400, 550) - plain(400, 550)).max() == 0


def test_a_prediction_is_coloured_by_its_values(viewer, site, at):
    matplotlib = pytest.importorskip("matplotlib")
    options = "channel=density:map=magma:low=0:high=1"
    viewer.open(f"{HE}&layers=predictions:model:1:{options}")
    look = shown_at(viewer, at)
    for column in (50, 250, 450, 650, 850):
        expected = np.array(matplotlib.colormaps["magma"](site.density[0, column // 4]))[:3] * 255
        np.testing.assert_allclose(look(350, column), expected, atol=6)
    viewer.page.get_by_label("Channel of").select_option("rest")
    viewer.settle()
    viewer.page.get_by_label("Opacity of").last.fill("0.5")
    viewer.page.keyboard.press("Enter")
    viewer.settle()
    assert viewer.hash()["layers"].startswith("predictions:model:0.5:channel=rest:map=magma")


def test_a_prediction_opens_as_the_report_shows_it(viewer, site, at):
    viewer.open(HE)
    plain = shown_at(viewer, at)
    viewer.page.keyboard.press("d")
    viewer.settle()
    assert viewer.hash()["layers"] == "predictions:model:0.6:channel=rest:map=inferno:ends=clear"
    seen = shown_at(viewer, at)
    # `rest` is 1 on the left and next to 0 on the right, where the slide is as it was.
    assert np.abs(seen(350, 30) - plain(350, 30)).max() > 20
    assert np.abs(seen(350, 885) - plain(350, 885)).max() < 12
    viewer.page.get_by_label("Low end of model", exact=True).select_option("painted")
    viewer.settle()
    assert np.abs(shown_at(viewer, at)(350, 885) - plain(350, 885)).max() > 20


def test_tiles_are_drawn_where_the_table_says(viewer, site, at):
    from microtome.cohort import open_tiles

    viewer.open(HE + "&x=450&y=350&zoom=1")
    plain = viewer.pixels()
    viewer.page.keyboard.press("t")
    viewer.settle()
    drawn, link = viewer.pixels(), viewer.hash()
    changed = np.abs(drawn - plain).max(-1) > 12
    rows = open_tiles(site.layout, site.layout.resolution(None), "default", 64).for_tissue(
        "core_one"
    )
    boxes = [(int(t["row"]), int(t["col"]), 64, 64) for t in rows.table.to_pylist()]
    assert len(boxes) > 10
    expected = np.zeros_like(changed)
    edge = np.zeros_like(changed)
    for row, col, height, width in boxes:
        # Corners are between pixels: half a pixel above and left of a pixel's middle.
        (y0, x0), (y1, x1) = (
            at(drawn, link, r - 0.5, c - 0.5) for r, c in ((row, col), (row + height, col + width))
        )
        span = np.zeros_like(changed)
        span[max(y0 - 2, 0) : max(y1 + 3, 0), max(x0 - 2, 0) : max(x1 + 3, 0)] = True
        span[max(y0 + 3, 0) : max(y1 - 2, 0), max(x0 + 3, 0) : max(x1 - 2, 0)] = False
        expected |= span
        for y in (y0, y1):
            edge[min(max(y, 0), len(edge) - 1), max(x0, 0) : max(x1, 0)] |= 0 <= y < len(edge)
        for x in (x0, x1):
            edge[max(y0, 0) : max(y1, 0), min(max(x, 0), edge.shape[1] - 1)] |= (
                0 <= x < edge.shape[1]
            )
    expected_only = changed & ~expected
    assert expected_only.sum() == 0, "something is drawn off the edges of tiles"
    near = (
        changed
        | np.roll(changed, 1, 0)
        | np.roll(changed, -1, 0)
        | np.roll(changed, 1, 1)
        | np.roll(changed, -1, 1)
    )
    assert (near & edge).sum() > 0.98 * edge.sum(), "an edge of a tile is not drawn"


def test_two_views_show_the_same_micrometre(viewer, site, at):
    viewer.open(HE + "&x=400&y=350&zoom=1&channels2=DAPI:ffffff:0:1000&modality2=stains")
    page = viewer.page

    def check():
        link = viewer.hash()
        he, stains = viewer.pixels(0), viewer.pixels(1)
        seen = 0
        for row, column in middles(site.stains.shape[1:]):
            # From the corner of the stains' picture to that of H&E, both of 0.5 um pixels.
            in_he = row + STAINS_EDGE[0] / 0.5, column + STAINS_EDGE[1] / 0.5
            y, x = at(stains, link, *in_he)
            if not (0 <= y < stains.shape[0] - 60 and 0 <= x < stains.shape[1]):
                continue
            seen += 1
            expected = round(site.stains[0, row, column] / 1000 * 255)
            np.testing.assert_allclose(stains[y, x], [expected] * 3, atol=2)
        for row, column in middles(site.he.shape):
            y, x = at(he, link, row, column)
            if 0 <= y < he.shape[0] - 60 and 0 <= x < he.shape[1]:
                np.testing.assert_allclose(he[y, x], site.he[row, column], atol=JPEG)
        return seen

    assert check() > 8
    # The second one leads as well as the first.
    box = page.locator(".stage").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 70, y + 50, steps=8)
    page.wait_for_timeout(200)
    page.mouse.up()
    viewer.settle()
    assert (float(viewer.hash()["x"]), float(viewer.hash()["y"])) == pytest.approx(
        (330, 300), abs=1.5
    )
    page.mouse.move(box["x"] - 500, 20)  # Away, with the cross that it leaves in the other view.
    viewer.settle()
    assert check() > 8


# Of pixels (x, y) to micrometres: turned by a quarter, a half and a third of a right angle.
TURNS = {
    "quarter": [[0.0, -0.5, 300.0], [0.5, 0.0, 20.0]],
    "half": [[-0.5, 0.0, 330.0], [0.0, -0.5, 280.0]],
    "thirty": [[0.4330127, -0.25, 150.0], [0.25, 0.4330127, -10.0]],
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_picture_that_lies_turned_is_turned_beside_another(viewer, site, at, turn):
    def lie_turned(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "to_um": TURNS[turn]})

    viewer.page.route("**/api/image/core_one/stains", lie_turned)
    viewer.open(HE + "&x=400&y=300&zoom=0.9&modality2=stains&channels2=DAPI:ffffff:0:1000")
    pixels, link, seen = viewer.pixels(1), viewer.hash(), 0
    for row, column in middles(site.stains.shape[1:]):
        x_um, y_um = np.array(TURNS[turn]) @ [column + 0.5, row + 0.5, 1]
        y, x = at(pixels, link, y_um / 0.5 - 0.5, x_um / 0.5 - 0.5)
        if 4 <= y < pixels.shape[0] - 60 and 4 <= x < pixels.shape[1] - 4:
            expected = round(site.stains[0, row, column] / 1000 * 255)
            np.testing.assert_allclose(pixels[y, x], [expected] * 3, atol=2)
            seen += 1
    assert seen > 8


STAINS_EDGE = (40.0, 25.0)
