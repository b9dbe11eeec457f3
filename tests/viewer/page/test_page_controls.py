"""How the page is worked: links, keys, lists, messages, and what a screen reader is told."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytestmark = pytest.mark.slow

HE = "#tissue=core_one&modality=he"


def test_a_link_reproduces_all_that_is_seen(viewer, chromium, site):
    viewer.open(HE + "&x=400&y=300&zoom=0.8")
    page = viewer.page
    for key in ("t", "m", "d", "s"):
        page.keyboard.press(key)
        viewer.settle()
    page.get_by_role("radio", name="stains").check()
    page.get_by_role("checkbox", name="CD3").uncheck()
    viewer.settle()
    link = page.evaluate("location.hash")
    seen = [viewer.pixels(0), viewer.pixels(1)]
    viewer.open(link)
    assert page.evaluate("location.hash") == link
    for before, after in zip(seen, [viewer.pixels(0), viewer.pixels(1)], strict=True):
        assert (np.abs(before - after).max(-1) > 8).mean() < 0.001


def test_the_page_follows_another_link_and_goes_back(viewer):
    viewer.open(HE + "&x=400&y=300&zoom=2")
    viewer.page.evaluate("location.hash = '#tissue=core_2&modality=he&x=100&y=200&zoom=1'")
    viewer.settle()
    assert viewer.page.locator(".tissue[aria-current]").inner_text().startswith("core_2")
    assert viewer.hash()["y"] == "200"
    viewer.page.go_back()
    viewer.settle()
    assert viewer.hash()["tissue"] == "core_one"
    assert viewer.hash()["zoom"] == "2"


def test_the_link_is_copied(viewer):
    viewer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    viewer.open(HE + "&x=400&y=300&zoom=2")
    viewer.page.get_by_role("button", name="Copy link").click()
    viewer.page.get_by_text("Link copied").wait_for()
    assert viewer.page.evaluate("navigator.clipboard.readText()") == viewer.page.url


def test_a_link_to_what_is_not_there_is_told(viewer):
    viewer.open("#tissue=nobody&x=bad&channels=%%&layers=masks:unknown:1,,x")
    alert = viewer.page.get_by_role("alert")
    assert alert.locator("p").all_inner_texts() == [
        "This part of the link cannot be read: x=bad",
        "This part of the link cannot be read: channels=%%",
        "This part of the link cannot be read: layers=x",
        "There is no tissue nobody here; this is the first one.",
        "he of core_one has no masks unknown, which the link asks for.",
    ]
    assert viewer.hash()["tissue"] == "core_one"
    for _ in range(5):
        alert.get_by_role("button", name="Close this message").first.click()
    assert alert.inner_text() == ""


def test_what_the_server_says_is_read_on_the_page(viewer):
    viewer.open(HE)
    viewer.meant = ("422", "ERR_FAILED", "failed to load")

    def refuse(route):
        route.fulfill(
            status=422,
            content_type="application/json",
            body='{"error": "This tile is <i>broken</i>."}',
        )

    viewer.page.route("**/tile/**", refuse)
    viewer.page.keyboard.press("n")
    viewer.page.get_by_role("alert").get_by_text("This tile is <i>broken</i>.").wait_for()
    viewer.page.unroute("**/tile/**")
    viewer.page.route("**/api/image/**", lambda route: route.abort())
    viewer.page.get_by_role("button", name="core_3").click()
    viewer.page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    assert viewer.problems


def test_tissues_are_filtered_by_words_and_columns(viewer):
    viewer.open(HE)
    page = viewer.page
    listed = page.locator("#tissue-list button .name")
    assert listed.all_inner_texts() == ["core_one", "core_2", "core_3"]
    page.keyboard.press("/")
    page.keyboard.type("ONE")
    assert listed.all_inner_texts() == ["core_one"]
    assert page.locator("#tissue-count").inner_text() == "1 of 3 tissues"
    page.get_by_label("Filter tissues by words").fill("")
    page.get_by_label("patient_id").select_option(label="lung")
    assert listed.all_inner_texts() == ["core_2", "core_3"]
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    viewer.settle()
    assert viewer.hash()["tissue"] == "core_2"
    page.keyboard.press("p")
    viewer.settle()
    assert viewer.hash()["tissue"] == "core_3"


def test_what_is_under_the_pointer(viewer, site):
    viewer.open(HE + "&x=450&y=350&zoom=1")
    page = viewer.page
    page.keyboard.press("t")
    viewer.settle()
    box = page.locator(".stage").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 0.5, box["y"] + box["height"] / 2 + 0.5)
    page.locator("#values").get_by_text("red").wait_for()
    red, green, blue = site.he[350, 450]
    assert page.locator("#place").inner_text().startswith("x 450, y 350 px · 225")
    assert (
        page.locator("#values").inner_text().startswith(f"red {red} · green {green} · blue {blue}")
    )
    assert "64 \N{MULTIPLICATION SIGN} 64 px" in page.locator("#tile").inner_text()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.wait_for_timeout(300)
    assert page.locator("#tile").is_hidden()
    page.keyboard.press("Enter")  # the tile in the middle
    assert "tissue" in page.locator("#tile").inner_text()


def test_a_modality_keeps_the_place_and_tissues_keep_the_colours(viewer):
    viewer.open(HE + "&x=450&y=350&zoom=1")
    viewer.page.get_by_label("Picture in view 1", exact=True).select_option("stains")
    viewer.settle()
    # The stains' corner lies at (25, 40) um, 50 and 80 px of 0.5 um.
    assert (float(viewer.hash()["x"]), float(viewer.hash()["y"])) == pytest.approx(
        (400, 270), abs=0.1
    )
    viewer.page.keyboard.press("s")
    viewer.settle()
    assert (viewer.hash()["modality"], viewer.hash()["modality2"]) == ("stains", "he")


def test_links_are_read_as_they_are_written(viewer):
    viewer.open(HE)
    same = viewer.page.evaluate(
        """async () => {
            const { parseLink, formatLink } = await import(new URL("static/state.js", document.baseURI));
            const nasty = "a:b,c&d=e%f#g ü/";
            const state = {
                tissue: nasty,
                cell: 4000000000,
                find: nasty,
                where: [{ column: nasty, value: nasty }, { column: "b", value: "" }],
                place: { x: -1.5, y: 2, zoom: 0.125 },
                views: [
                    { modality: nasty, tile: { tiling: nasty, id: 12 }, channels: [{ name: nasty, color: "#00ff7f", low: -3.5, high: 1e-7 }], layers: [] },
                    { modality: "b", channels: null, layers: [{ kind: "masks", id: nasty, opacity: 0.25, options: { [nasty]: nasty } }] },
                ],
            };
            const once = formatLink(state);
            const read = parseLink(once);
            const alike = (a, b) => JSON.stringify(a) === JSON.stringify(b);
            return [
                once === formatLink(read), alike(read.views[1].layers, state.views[1].layers), alike(read.views[0].tile, state.views[0].tile),
                alike([read.cell, read.find, read.where], [state.cell, state.find, state.where]), alike(read.unread, []),
            ];
        }"""
    )
    assert same == [True] * 5


def test_what_changes_while_tiles_load_is_shown_in_the_end(viewer):
    """Three settings in a row: the second one completes after the third has begun."""
    viewer.open(HE)
    left, order = viewer.page.evaluate(
        """async () => {
            const { Stack } = await import(new URL("static/stack.js", document.baseURI));
            const items = [], made = [];
            const world = {
                removeItem: (item) => items.splice(items.indexOf(item), 1),
                removeAll: () => items.splice(0),
                getIndexOfItem: (item) => items.indexOf(item),
                setItemIndex: (item, index) => items.splice(index, 0, ...items.splice(items.indexOf(item), 1)),
            };
            const viewer = {
                world,
                addTiledImage: ({ tileSource, success }) => {
                    const item = { url: tileSource.getTileUrl(), loaded: false, setOpacity() {}, getFullyLoaded() { return this.loaded; } };
                    item.listeners = [];
                    item.addHandler = (_, listener) => item.listeners.push(listener);
                    item.complete = () => { item.loaded = true; item.listeners.forEach((one) => one({ fullyLoaded: true })); };
                    items.push(item);
                    made.push(item);
                    success({ item });
                },
            };
            const stack = new Stack(viewer, () => {}, () => {});
            stack.reset({ width: 10, height: 10, tile_size: 256, max_zoom: 0 });
            const over = { key: "mask", identity: "m", tile: () => "mask", opacity: 0 };
            const show = (name) => stack.show([{ key: "image", identity: name, tile: () => name, opacity: 1 }, over]);
            const seen = () => items.map(({ url }) => url).join(" ");
            const states = [];
            for (const name of ["a", "b", "c"]) show(name);
            states.push(seen());
            for (const item of ["a", "b", "c"].map((name) => made.find(({ url }) => url === name))) {
                item.complete();
                states.push(`${seen()} ${stack.complete}`);
            }
            show("a");
            states.push(seen());
            return [states, made.map(({ url }) => url)];
        }"""
    )
    assert left == ["a b c mask", "a b c mask false", "b c mask false", "c mask true", "c a mask"]
    assert order == ["a", "mask", "b", "c", "a"]


@pytest.mark.parametrize(
    ("zoom", "length", "width"), [("1", "50 \N{MICRO SIGN}m", 100), ("4", "10 \N{MICRO SIGN}m", 80)]
)
def test_the_scale_bar_is_as_long_as_it_says(viewer, zoom, length, width):
    viewer.open(f"{HE}&x=450&y=350&zoom={zoom}")  # 0.5 um a pixel
    assert viewer.page.locator(".scale-text").first.inner_text() == length
    assert viewer.page.locator(".scale-line").first.bounding_box()["width"] == width


def test_who_wants_no_motion_has_none(viewer):
    viewer.page.emulate_media(reduced_motion="reduce")
    viewer.open(HE + "&x=450&y=350&zoom=1")
    shown = viewer.page.evaluate(
        """async () => {
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "+", bubbles: true }));
            for (let frame = 0; frame < 3; frame += 1) await new Promise((resolve) => requestAnimationFrame(resolve));
            return document.querySelector(".zoom").textContent;
        }"""
    )
    assert shown == "150 %"  # at once, nothing in between


def test_a_narrow_page_has_room_for_the_picture(viewer):
    viewer.page.set_viewport_size({"width": 480, "height": 860})
    viewer.open(HE)
    page = viewer.page
    assert page.evaluate("document.documentElement.scrollWidth") == 480
    assert page.locator(".stage").first.bounding_box()["width"] == 480
    page.get_by_role("button", name="Tissues").click()
    assert page.locator("#tissues").is_visible()
    page.get_by_role("button", name="Settings").click()  # They lie over the picture: one at a time.
    assert (page.locator("#tissues").is_visible(), page.locator("#panel").is_visible()) == (
        False,
        True,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(viewer, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = viewer.page
    page.emulate_media(color_scheme=scheme)
    viewer.open(HE + "&modality2=stains")
    for key in ("t", "m", "c", "d", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("radio", name="stains").check()
    viewer.settle()
    assert serious(axe.run(page)) == []
    page.keyboard.press("?")
    assert serious(axe.run(page)) == []
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 480, "height": 800})
    page.get_by_role("button", name="Settings").click()
    assert serious(axe.run(page)) == []


def serious(results):
    found = results.response["violations"]
    assert results.response["passes"], "axe looked at nothing"
    return [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in found
        if violation["impact"] in ("serious", "critical", "moderate")
    ]


def test_all_is_reached_by_the_keyboard(viewer):
    viewer.open(HE)
    page = viewer.page
    names = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        names.add(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.labels?.[0]?.innerText"
                " ?? document.activeElement.innerText ?? '').split('\\n')[0].trim()"
            )
        )
    wanted = {
        "Tissues",
        "Settings",
        "Side by side",
        "Copy link",
        "Help",
        "core_2",
        "Fit",
        "Filter tissues by words",
    }
    assert wanted <= {
        name.removesuffix(" in view 1").replace("Whole picture", "Fit") for name in names
    }
    assert "View 1: he of tissue core_one" in names


# Work a control as a hand would: those that are seen, told apart by one random number.
POKE = """(chance) => {
    const open = document.querySelector("dialog[open]") ?? document;
    const seen = [...open.querySelectorAll("button, input, select")].filter((one) => one.checkVisibility() && !one.disabled);
    const one = seen[Math.floor(chance * seen.length)];
    const part = (chance * 7919) % 1;
    const say = (event) => one.dispatchEvent(new Event(event, { bubbles: true }));
    one.focus();
    if (one.type === "range") one.value = String(Number(one.min) + part * (one.max - one.min));
    else if (one.type === "number") one.value = part < 0.2 ? "" : String(Math.round(1000 * part));
    else if (one.type === "search") one.value = part < 0.8 ? "" : "o";
    else if (one.type === "color") one.value = "#" + Math.floor(part * 0xffffff).toString(16).padStart(6, "0");
    else if (one.localName === "select") one.selectedIndex = Math.floor(part * one.options.length);
    else return one.click();
    say("input");
    say("change");
}"""
KEYS = [
    "ArrowLeft",
    "ArrowRight",
    "ArrowUp",
    "ArrowDown",
    "+",
    "-",
    "0",
    "1",
    "n",
    "p",
    "[",
    "]",
    "t",
    "m",
    "c",
    "d",
    "Enter",
    "s",
    "v",
    "?",
    "Escape",
    "Tab",
    "/",
    "l",
]


def test_200_random_actions(viewer):
    """Whatever one does, in whatever order: no error on the page, and it still works at the end."""
    viewer.open(HE)
    page = viewer.page
    chance = random.Random(9)
    for _ in range(200):
        action = chance.random()
        x, y = chance.uniform(300, 900), chance.uniform(150, 700)
        if action < 0.4:
            page.keyboard.press(chance.choice(KEYS))
        elif action < 0.5:
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + chance.uniform(-300, 300), y + chance.uniform(-300, 300), steps=3)
            page.mouse.up()
        elif action < 0.6:
            page.mouse.move(x, y)
            page.mouse.wheel(0, chance.choice([-240, 240]))
        else:
            page.evaluate(POKE, chance.random())
    page.keyboard.press("Escape")
    viewer.settle()
    assert page.locator(".notice.error").all_inner_texts() == []
    viewer.open(HE + "&x=450&y=350&zoom=1")
    assert viewer.pixels().std() > 10
