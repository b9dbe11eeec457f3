// The page: reads the link, opens what it names, and keeps panels, views and link the same.

import { readCohort, readImage } from "./api.js";
import { CellChoice } from "./cells.js";
import { ChannelPanel } from "./channels.js";
import { Details } from "./details.js";
import { drawer } from "./drawer.js";
import { settled } from "./elements.js";
import { isMirror } from "./geometry.js";
import { listenToKeys } from "./keys.js";
import { LayerPanel } from "./layers.js";
import { Linked } from "./link.js";
import { Notices } from "./notices.js";
import { Readout } from "./readout.js";
import { carriedChannels, companion, firstChannels, knownLayers, unknownParts } from "./settings.js";
import { formatLink, parseLink } from "./state.js";
import { TissueList } from "./tissues.js";
import { View } from "./view.js";

const COLOURS = ["red", "green", "blue"].map((name) => ({ name, visible: true }));

const byId = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 900px)");

const notices = new Notices(byId("notices"));
const fail = (message) => notices.error(message);

class App {
  #cohort;
  #views;
  #count = 1; // Views on the page.
  #active = 0;
  #tissue = null;
  #serial = 0;
  #linked;
  #list;
  #channels;
  #layers;
  #readout;
  #details = new Details(byId("details"));
  #cell = new CellChoice(() => this.#framed(), fail);
  #images = new Map();
  #written = null;
  #writeLater = settled(() => this.#write(false), 250);
  // Sliders send many values; tiles are drawn for the last of them.
  #drawSoon = settled(() => {
    this.#stale.forEach((view) => view.draw());
    this.#stale.clear();
  }, 90);
  #stale = new Set(); // Views whose settings were changed and that are not yet drawn.

  constructor(cohort) {
    this.#cohort = cohort;
    this.#views = [...document.querySelectorAll(".pane")].map((root, index) => new View(root, this.#listeners(index)));
    this.#linked = new Linked(this.#views.map(({ pane }) => pane));
    this.#list = new TissueList(
      { search: byId("tissue-search"), filters: byId("tissue-filters"), count: byId("tissue-count"), list: byId("tissue-list") },
      cohort,
      (tissue) => this.#guard(this.#chooseTissue(tissue)),
      () => this.#writeSoon(),
    );
    this.#channels = new ChannelPanel(byId("channels"), (channels) => this.#changed({ channels }));
    this.#layers = new LayerPanel(
      byId("layers"),
      (layers) => this.#changed({ layers }),
      (id) => ({ counts: this.#view.pane.tiles.counts(id), stats: this.#view.pane.tiles.stats(id), range: this.#view.pane.tiles.range(id) }),
    );
    this.#readout = new Readout({ place: byId("place"), values: byId("values") }, fail);
    this.#wire();
  }

  get #view() {
    return this.#views[this.#active];
  }

  get #shownViews() {
    return this.#views.slice(0, this.#count);
  }

  // ------------------------------------------------------------------ following a link

  /** Show what a link names; what it leaves out is as at first. */
  async follow(hash) {
    const link = parseLink(hash);
    const { tissues } = this.#cohort;
    if (tissues.length === 0) throw new Error("There is no image in this cohort yet. Bring one in with `microtome ingest`.");
    link.unread.forEach((part) => fail(`This part of the link cannot be read: ${part}`));
    this.#list.filterBy(link).forEach(fail);
    let tissue = tissues.find(({ tissue_id: id }) => id === link.tissue);
    if (!tissue) {
      if (link.tissue !== null) fail(`There is no tissue ${link.tissue} here; this is the first one.`);
      tissue = tissues[0];
    }
    const modalities = link.views.map(({ modality }, index) => {
      if (tissue.modalities.includes(modality)) return modality;
      if (modality !== null) fail(`Tissue ${tissue.tissue_id} has no picture ${modality}.`);
      return index === 0 ? tissue.modalities[0] : companion(tissue.modalities, tissue.modalities[0]);
    });
    await this.#open(tissue, modalities, (view, info, index) => {
      const asked = link.views[index];
      // A picture in place of the one that was asked for need not have what that one has.
      if ([null, modalities[index]].includes(asked.modality)) unknownParts(info, `${modalities[index]} of ${tissue.tissue_id}`, asked).forEach(fail);
      return { channels: firstChannels(info, asked.channels), layers: knownLayers(info, asked.layers ?? []) };
    });
    const [{ pane }] = this.#views;
    this.#linked.lead(pane);
    if (link.place) pane.goTo(link.place);
    else pane.home(true);
    this.#linked.moved(pane);
    await this.#select(link);
    this.#write(false);
  }

  /** Select the tiles and the cell that a link names, of a tissue that is there. */
  async #select({ tissue, views, cell }) {
    const known = tissue === null || tissue === this.#tissue;
    const choose = (view, index) => view.pane.tiles.choose(known ? views[index].tile : null).catch((error) => fail(error.message));
    const naming = known && cell !== null ? this.#cell.named(this.#views[0].pane, cell) : this.#cell.clear();
    await Promise.all([...this.#shownViews.map(choose), naming]);
  }

  async #chooseTissue(tissueId) {
    const tissue = this.#cohort.tissues.find(({ tissue_id: id }) => id === tissueId);
    const modalities = this.#shownViews.map(({ modality }) => (tissue.modalities.includes(modality) ? modality : tissue.modalities[0]));
    await this.#open(tissue, modalities, (view, info) => this.#carried(view, info));
    const [{ pane }] = this.#views;
    this.#linked.lead(pane);
    pane.home(true);
    this.#linked.moved(pane);
    this.#write(true);
  }

  async #chooseModality(index, modality) {
    const tissue = this.#cohort.tissues.find(({ tissue_id: id }) => id === this.#tissue);
    const place = this.#views[index].pane.physical;
    const modalities = this.#shownViews.map((view, at) => (at === index ? modality : view.modality));
    await this.#open(tissue, modalities, (view, info, at) => (at === index ? this.#carried(view, info) : view.settings));
    this.#views[index].pane.goToPhysical(place);
    this.#linked.lead(this.#views[0].pane);
    this.#linked.moved(this.#views[0].pane);
    this.#write(false);
  }

  async #setSide(on) {
    const tissue = this.#cohort.tissues.find(({ tissue_id: id }) => id === this.#tissue);
    const [first, second] = this.#views;
    const other = on ? [tissue.modalities.includes(second.modality) ? second.modality : companion(tissue.modalities, first.modality)] : [];
    await this.#open(tissue, [first.modality, ...other], (view, info, index) => (index === 0 || view.info === info ? view.settings : this.#carried(view, info)));
    this.#linked.lead(first.pane);
    this.#linked.moved(first.pane);
    this.#write(false);
  }

  #carried(view, info) {
    if (!view.info) return { channels: firstChannels(info, null), layers: [] };
    return { channels: carriedChannels(info, view.info, view.channels), layers: knownLayers(info, view.layers) };
  }

  /** Open a picture in each view; `settings` says what is shown of it. */
  async #open(tissue, modalities, settings) {
    const serial = ++this.#serial;
    const infos = await Promise.all(modalities.map((modality) => this.#image(tissue.tissue_id, modality)));
    // Someone chose another one meanwhile: that one is on its way.
    if (serial !== this.#serial) throw new Superseded();
    const moved = this.#tissue !== tissue.tissue_id;
    this.#tissue = tissue.tissue_id;
    if (moved) this.#cell.clear();
    const before = this.#count;
    this.#count = modalities.length;
    if (this.#active >= this.#count) this.#active = 0;
    this.#views.forEach((view, index) => (view.hidden = index >= this.#count));
    document.body.dataset.views = String(this.#count);
    modalities.forEach((modality, index) => {
      const view = this.#views[index];
      const { channels, layers } = settings(view, infos[index], index);
      view.open(tissue, modality, infos[index], { channels, layers }, moved);
    });
    if (new Set(infos.map(({ to_um: toUm }) => isMirror(toUm))).size > 1) {
      notices.say("These two pictures are mirror images of each other: only their middles show the same place.");
    }
    byId("side").setAttribute("aria-pressed", String(this.#count > 1));
    if (this.#count !== before) await laidOut();
    if (serial !== this.#serial) throw new Superseded();
    this.#list.current = this.#tissue;
    document.title = `${this.#tissue} · ${this.#cohort.title}`;
    this.#renderPanel();
  }

  #image(tissue, modality) {
    const key = JSON.stringify([tissue, modality]);
    if (!this.#images.has(key)) {
      const reading = readImage(tissue, modality);
      reading.catch(() => this.#images.delete(key)); // Next time it is asked for again.
      this.#images.set(key, reading);
    }
    return this.#images.get(key);
  }

  // ------------------------------------------------------------------ one view and its panel

  #listeners(index) {
    return {
      moved: () => this.#linked.moved(this.#views[index].pane),
      rested: () => this.#writeSoon(),
      resized: () => this.#linked.resized(this.#views[index].pane),
      touched: () => {
        this.#linked.lead(this.#views[index].pane);
        this.#activate(index);
      },
      pointed: (x, y) => this.#pointed(index, x, y),
      clicked: (x, y) => this.#clicked(index, x, y),
      chosen: (modality) => this.#guard(this.#chooseModality(index, modality)),
      tiles: () => {
        if (index === this.#active) this.#renderTile();
        this.#writeSoon();
      },
      failed: fail,
    };
  }

  #activate(index) {
    if (this.#active === index) return;
    this.#active = index;
    this.#renderPanel();
  }

  #pointed(index, x, y) {
    const view = this.#views[index];
    this.#readout.show(view.pane, x, y, view.info.kind === "rgb" ? COLOURS : view.channels);
    view.pane.tiles.hover(x, y);
    this.#shownViews.forEach((other, at) => {
      if (at !== index) other.pane.tiles.mark(x === null ? null : other.pixelOf(view.umOf([x, y])));
    });
  }

  #clicked(index, x, y) {
    const view = this.#views[index];
    const seen = view.layers.some(({ kind }) => kind === "cells");
    if (seen && view.info.cells !== null) this.#cell.at(view.pane, x, y);
  }

  /** Another cell was chosen, or none. */
  #framed() {
    const { chosen } = this.#cell;
    this.#details.cell(chosen);
    this.#views.forEach((view) => (view.cell = chosen && { id: chosen.id, layer: chosen.layer }));
    this.#shownViews.forEach((view) => view.info && view.draw());
    this.#writeSoon();
  }

  #changed(settings) {
    const view = this.#view;
    Object.assign(view, settings);
    // What was chosen goes with what it was chosen from.
    if (settings.layers && !this.#shownViews.some(({ layers }) => layers.some(({ kind }) => kind === "cells"))) this.#cell.clear();
    this.#stale.add(view);
    this.#drawSoon();
    this.#writeSoon();
  }

  #renderPanel() {
    const view = this.#view;
    byId("which").hidden = this.#count < 2;
    for (const radio of document.querySelectorAll("[name=which]")) {
      radio.checked = Number(radio.value) === this.#active;
      radio.nextElementSibling.textContent = this.#views[Number(radio.value)].modality ?? "";
    }
    this.#views.forEach((one, index) => (one.active = this.#count > 1 && index === this.#active));
    this.#channels.show(view.info, view.channels);
    this.#layers.show(view.info, view.layers);
    this.#renderTile();
  }

  #renderTile() {
    this.#layers.recount();
    const { selected, hovered } = this.#view.pane.tiles;
    const found = selected ?? hovered;
    this.#details.tile(found);
  }

  // ------------------------------------------------------------------ the link

  #link() {
    return formatLink({
      tissue: this.#tissue,
      place: this.#views[0].pane.place,
      views: this.#shownViews.map((view) => ({
        modality: view.modality,
        channels: view.info.kind === "rgb" ? null : view.channels.filter(({ visible }) => visible),
        layers: view.layers,
        tile: tileName(view.pane.tiles.selected),
      })),
      cell: this.#cell.chosen?.id,
      ...this.#list.filters,
    });
  }

  /** Write the link once nothing changes any more; until then the page says that its address lags behind. */
  #writeSoon() {
    document.documentElement.dataset.link = "pending";
    this.#writeLater();
  }

  #write(push) {
    delete document.documentElement.dataset.link;
    if (!this.#views[0].info) return;
    const link = this.#link();
    if (link === this.#written) return;
    this.#written = link;
    history[push ? "pushState" : "replaceState"](null, "", link);
  }

  async #copy() {
    this.#write(false);
    try {
      await navigator.clipboard.writeText(location.href);
      notices.say("Link copied. It works as long as this viewer runs.");
    } catch {
      notices.say(`The browser does not let the page copy. The link is the address of this page: ${location.href}`);
    }
  }

  // ------------------------------------------------------------------ buttons and keys

  async #guard(work) {
    try {
      await work;
    } catch (error) {
      if (error instanceof Superseded) return;
      fail(error.message);
      this.#views.forEach((view) => view.info && view.settle());
    }
  }

  #wire() {
    addEventListener("hashchange", () => {
      if (location.hash !== this.#written) this.#guard(this.follow(location.hash));
    });
    byId("side").addEventListener("click", () => this.#guard(this.#setSide(this.#count < 2)));
    byId("copy").addEventListener("click", () => this.#copy());
    const dialog = byId("keys");
    byId("help").addEventListener("click", () => dialog.showModal());
    for (const radio of document.querySelectorAll("[name=which]")) radio.addEventListener("change", () => this.#activate(Number(radio.value)));
    const panels = [["toggle-tissues", "tissues"], ["toggle-panel", "panel"]].map(([button, panel]) => drawer(byId(button), byId(panel)));
    // On a narrow page a panel lies over the picture, so only one is open.
    panels.forEach((panel, index) => panel.button.addEventListener("click", () => narrow.matches && panel.open && panels[1 - index].set(false)));
    const arrange = () => panels.forEach((panel) => panel.set(!narrow.matches));
    narrow.addEventListener("change", arrange);
    arrange();
    if (this.#cohort.kind === "image") {
      panels[0].set(false);
      panels[0].button.hidden = true; // One picture needs no list.
    }
    const lead = (action) => {
      this.#linked.lead(this.#view.pane);
      action(this.#view.pane);
    };
    listenToKeys(
      {
        pan: (dx, dy) => lead((pane) => pane.panBy(dx, dy)),
        zoom: (factor) => lead((pane) => pane.zoomBy(factor)),
        home: () => lead((pane) => pane.home()),
        actual: () => lead((pane) => pane.goTo({ ...pane.place, zoom: 1 })),
        filter: () => {
          panels[0].set(true);
          if (narrow.matches) panels[1].set(false);
          byId("tissue-search").focus();
        },
        tissue: (by) => this.#list.step(by),
        channel: (by) => this.#channels.step(by),
        layer: (kind) => this.#layers.toggle(kind) || notices.say(`This picture has no ${kind === "tilings" ? "tiles" : kind}.`),
        select: () => {
          const { x, y } = this.#view.pane.place;
          this.#view.click(x, y);
        },
        side: () => byId("side").click(),
        other: () => this.#count > 1 && this.#activate(1 - this.#active),
        copy: () => this.#copy(),
        help: () => dialog.showModal(),
      },
      dialog,
    );
  }
}

/** Some frames later the views have measured themselves. */
async function laidOut() {
  for (let frame = 0; frame < 3; frame += 1) await new Promise((resolve) => requestAnimationFrame(resolve));
}

const tileName = (found) => found && { tiling: found.id, id: found.tile[4] };

/** What was asked for is no longer wanted. */
class Superseded extends Error {}

try {
  const cohort = await readCohort();
  byId("title").textContent = cohort.title;
  const app = new App(cohort);
  await app.follow(location.hash);
} catch (error) {
  fail(error.message);
}
