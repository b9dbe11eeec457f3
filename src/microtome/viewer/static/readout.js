// What lies under the pointer: where it is, the values there, and the labels of masks and cells.

import { readPixel } from "./api.js";
import { shown } from "./elements.js";

const PAUSE = 60; // ms between two questions to the server

export class Readout {
  #place;
  #values;
  #fail;
  #waiting = null;
  #aborter = null;
  #timer = 0;

  constructor({ place, values }, fail) {
    this.#place = place;
    this.#values = values;
    this.#fail = fail;
  }

  /** The pointer is at this level-0 pixel of a pane; null: nowhere. */
  show(pane, x, y, names) {
    this.#aborter?.abort();
    this.#waiting = null;
    if (x === null) {
      [this.#place.textContent, this.#values.textContent] = ["", ""];
      return;
    }
    const [column, row] = [Math.floor(x), Math.floor(y)];
    const { width, height } = pane.info;
    const inside = column >= 0 && row >= 0 && column < width && row < height;
    this.#place.textContent = `x ${column}, y ${row} px`;
    if (!inside) {
      this.#values.textContent = "outside the picture";
      return;
    }
    this.#waiting = { pane, column, row, names };
    if (this.#timer === 0) this.#ask();
  }

  async #ask() {
    if (!this.#waiting) return;
    const { pane, column, row, names } = this.#waiting;
    this.#waiting = null;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#ask();
    }, PAUSE);
    const aborter = new AbortController();
    this.#aborter = aborter;
    try {
      const answer = await readPixel(pane.tissue, pane.modality, column, row, aborter.signal);
      if (!aborter.signal.aborted) this.#write(column, row, answer, names);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error.message);
    }
  }

  #write(column, row, { values, um, labels }, names) {
    this.#place.textContent = `x ${column}, y ${row} px · ${um.map((value) => value.toFixed(1)).join(", ")} µm`;
    const channels = values.map((value, index) => ({ value, name: names[index]?.name ?? `channel ${index}`, visible: names[index]?.visible ?? true }));
    const parts = channels.filter(({ visible, value }) => visible && value !== null).map(({ name, value }) => `${name} ${shown(value)}`);
    const under = Object.entries(labels ?? {}).filter(([, value]) => value !== null && value !== 0).map(([name, value]) => `${name}: ${shown(value)}`);
    this.#values.textContent = [...parts, ...under].join(" · ");
  }
}
