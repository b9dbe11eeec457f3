// What is known of the tile and of the cell that were chosen: their rows of the tables.

import { el, shown } from "./elements.js";

const list = (facts) =>
  el("dl", { class: "facts-list" }, ...facts.flatMap(([name, value]) => [el("dt", { text: name }), el("dd", { class: typeof value === "number" ? "number" : null, text: value === null || value === undefined ? "–" : String(shown(value)) })]));

export class Details {
  #root;
  #tile;
  #cell;

  /** @param {HTMLElement} root holds a section of tiles and one of cells, which are hidden while there is nothing to tell */
  constructor(root) {
    this.#root = root;
    this.#tile = root.querySelector("#tile");
    this.#cell = root.querySelector("#cell");
  }

  /** Tell of a tile {tile, columns} as the server has it; null: of none. */
  tile(found) {
    this.#write(this.#tile, found && [list(tileFacts(found))]);
  }

  /** Tell of a cell {id, row, table, kinds} as the server has it; null: of none. */
  cell(found) {
    this.#write(this.#cell, found && [list(cellFacts(found)), unknown(found), lacking(found)].filter(Boolean));
  }

  #write(section, parts) {
    section.hidden = !parts;
    this.#root.hidden = this.#tile.hidden && this.#cell.hidden;
    const [title] = section.children;
    section.replaceChildren(title, ...(parts ?? []));
  }
}

function tileFacts({ tile: [row, col, height, width, id, ...stats], columns }) {
  return [["tile", id], ["row, col", `${row}, ${col} px`], ["size", `${height} × ${width} px`], ...columns.map((name, index) => [name, stats[index]])];
}

// In a cohort of several panels most columns are of channels that this tissue never measured.
const known = (value) => value !== null && value !== undefined;
const cellFacts = ({ id, kinds, row }) => [["cell", id], ...Object.entries(kinds), ...Object.entries(row ?? {}).filter(([, value]) => known(value))];

function unknown({ row }) {
  const names = Object.entries(row ?? {}).filter(([, value]) => !known(value)).map(([name]) => name);
  if (names.length === 0) return null;
  return el("p", { class: "soft small", title: names.join(", "), text: names.length === 1 ? `No value of ${names[0]}.` : `No value in ${names.length} more columns.` });
}

function lacking({ row, table }) {
  if (row) return null;
  const text = table ? "The cohort's table of cells has no row of this cell." : "This cohort has no table of cells. `microtome cohort add-cells` adds one.";
  return el("p", { class: "soft small", text });
}
