// The cell that is chosen, of the tissue that is shown: one, in all views.

import { readCell, readCellAt } from "./api.js";

export class CellChoice {
  chosen = null; // {id, layer, row, table, kinds}
  #changed;
  #fail;
  #aborter = null;

  /** @param {function()} changed told when another cell is chosen, or none */
  constructor(changed, fail) {
    this.#changed = changed;
    this.#fail = fail;
  }

  clear() {
    this.#aborter?.abort();
    this.#set(null);
  }

  /** Choose the cell at a level-0 pixel of a pane; the one that is chosen is let go. */
  async at(pane, x, y) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    const { width, height } = pane.info;
    if (column < 0 || row < 0 || column >= width || row >= height) return;
    await this.#ask((signal) => readCellAt(pane.tissue, pane.modality, column, row, signal), true);
  }

  /** Choose a cell by its number. */
  async named(pane, id) {
    await this.#ask((signal) => readCell(pane.tissue, pane.modality, id, signal), false);
  }

  async #ask(read, lets) {
    this.#aborter?.abort();
    const aborter = new AbortController();
    this.#aborter = aborter;
    try {
      const { cell } = await read(aborter.signal);
      if (aborter.signal.aborted) return;
      this.#set(lets && cell?.id === this.chosen?.id ? null : cell);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error.message);
    }
  }

  #set(cell) {
    if (this.chosen === null && cell === null) return;
    this.chosen = cell;
    this.#changed();
  }
}
