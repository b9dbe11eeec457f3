// A view on the page: its pane, the tools above it, and what is shown in it.

import { el, shown } from "./elements.js";
import { apply, inverse } from "./geometry.js";
import { Pane } from "./pane.js";

export class View {
  pane;
  modality = null;
  info = null;
  channels = [];
  layers = [];
  cell = null; // The one that has a frame.
  #root;
  #name;
  #listen;

  /**
   * @param {HTMLElement} root a `.pane` of the page; the first one is `data-view` 0
   * @param {Object} listen `moved()`, `rested()`, `resized()`, `touched()`, `pointed(x, y)`, `clicked(x, y)`,
   *     `chosen(modality)`, `tiles()`, `failed(message)`
   */
  constructor(root, listen) {
    this.#root = root;
    this.#listen = listen;
    this.#name = root.getAttribute("aria-label");
    this.pane = new Pane(root.querySelector(".stage"), root.dataset.view !== "0", {
      moved: () => {
        this.#showZoom();
        listen.moved();
      },
      rested: listen.rested,
      resized: listen.resized,
      pointed: listen.pointed,
      clicked: (x, y) => this.click(x, y),
      failed: listen.failed,
    });
    this.pane.tiles.changed = listen.tiles;
    for (const event of ["pointerdown", "wheel", "focusin"]) root.addEventListener(event, listen.touched, { passive: true, capture: true });
    const press = (name, action) => root.querySelector(`.${name}`).addEventListener("click", () => this.info && action());
    press("zoom-in", () => this.pane.zoomBy(1.5));
    press("zoom-out", () => this.pane.zoomBy(1 / 1.5));
    press("home", () => this.pane.home());
    this.#select.addEventListener("change", () => listen.chosen(this.#select.value));
  }

  get #select() {
    return this.#root.querySelector(".modality");
  }

  set hidden(hidden) {
    this.#root.hidden = hidden;
  }

  set active(active) {
    this.#root.classList.toggle("active", active);
  }

  get settings() {
    return { channels: this.channels, layers: this.layers };
  }

  /** Open a picture of a tissue with these settings; the same one is only drawn anew. */
  open(tissue, modality, info, { channels, layers }, anew) {
    const same = !anew && this.info === info;
    Object.assign(this, { modality, info, channels, layers });
    const options = tissue.modalities.map((name) => el("option", { value: name, text: name, selected: name === modality }));
    this.#select.replaceChildren(...options);
    this.#root.querySelector(".facts").textContent = facts(info);
    this.#select.title = facts(info); // Where there is no room beside it.
    if (!same) this.pane.open(tissue.tissue_id, modality, info);
    this.pane.label = `${this.#name}: ${modality} of tissue ${tissue.tissue_id}`;
    this.draw();
  }

  /** Select what lies at a level-0 pixel. */
  click(x, y) {
    this.pane.tiles.select(x, y);
    this.#listen.clicked(x, y);
  }

  /** Draw with the settings as they are now. */
  draw() {
    this.pane.show(
      this.channels.filter(({ visible }) => visible),
      this.layers,
      this.cell,
    );
  }

  /** After something failed: the menu names again what is shown. */
  settle() {
    this.#select.value = this.modality;
  }

  umOf(pixel) {
    return apply(this.info.to_um, pixel);
  }

  pixelOf(um) {
    return this.info ? apply(inverse(this.info.to_um), um) : null;
  }

  #showZoom() {
    this.#root.querySelector(".zoom").textContent = `${Number((this.pane.zoom * 100).toPrecision(3))} %`;
  }
}

function facts({ width, height, mpp, dtype, kind }) {
  const size = mpp[0] === mpp[1] ? shown(mpp[0]) : `${shown(mpp[1])} × ${shown(mpp[0])}`;
  return `${width} × ${height} px · ${size} µm/px · ${kind === "rgb" ? "colour" : dtype}`;
}
