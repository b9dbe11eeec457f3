// Tiles of tilings, drawn as rectangles over the picture: exactly the rows of the table, in level-0
// pixels, however far one zooms.

import { readTile, readTiles } from "./api.js";
import { colourAt } from "./colormaps.js";

const AT_MOST = 5000; // Rectangles drawn at once; the server tells how many there are.
const MARGIN = 0.5; // How much is asked for around the view, in views.
const PAUSE = 150; // ms between two questions for tiles

export class TileShapes {
  canvas;
  hovered = null;
  selected = null;
  changed = () => {};
  #pane;
  #fail;
  #layers = [];
  #held = new Map(); // id -> {box, answer, aborter}
  #ranges = new Map(); // id and stat -> [low, high] of all rows that were seen
  #timer = 0;
  #mark = null;
  #project = null; // Level-0 pixels to the screen, as of this frame.

  constructor(canvas, pane, fail) {
    this.canvas = canvas;
    this.#pane = pane;
    this.#fail = fail;
  }

  reset() {
    for (const held of this.#held.values()) held.aborter.abort();
    this.#held.clear();
    this.#ranges.clear();
    this.#layers = [];
    [this.hovered, this.selected] = [null, null];
  }

  /** Show these tilings: {id, opacity, colour, options: {stat}}. */
  show(layers) {
    this.#layers = layers;
    for (const picked of ["hovered", "selected"]) {
      if (this[picked] && !layers.some(({ id }) => id === this[picked].id)) this[picked] = null;
    }
    this.#fetchSoon();
    this.#pane.redraw();
  }

  /** {shown, total} of a tiling in what was last asked for, or null. */
  counts(id) {
    const answer = this.#held.get(id)?.answer;
    return answer ? { shown: answer.tiles.length, total: answer.total, truncated: answer.truncated } : null;
  }

  /** Names of the columns of a tiling that one can colour by: those that hold numbers. */
  stats(id) {
    const answer = this.#held.get(id)?.answer;
    if (!answer?.tiles.length) return [];
    return answer.columns.filter((_, column) => typeof answer.tiles[0][5 + column] === "number");
  }

  /** What a tiling's colours run from and to, or null where it has one colour. */
  range(id) {
    const stat = this.#layers.find((layer) => layer.id === id)?.options.stat;
    return (stat && this.#ranges.get(`${id} ${stat}`)) ?? null;
  }

  /** A cross where the pointer is in the linked view, in level-0 pixels of this one. */
  mark(place) {
    if (this.#mark === null && place === null) return;
    this.#mark = place;
    this.#pane.redraw();
  }

  /** The tile at a level-0 pixel, the topmost tiling first. */
  at(x, y) {
    for (const { id } of [...this.#layers].reverse()) {
      const answer = this.#held.get(id)?.answer;
      const tile = answer?.tiles.findLast(([row, col, h, w]) => x >= col && x < col + w && y >= row && y < row + h);
      if (tile) return { id, columns: answer.columns, tile };
    }
    return null;
  }

  hover(x, y) {
    const found = x === null ? null : this.at(x, y);
    if (found?.tile === this.hovered?.tile) return;
    this.hovered = found;
    this.#pane.redraw();
    this.changed();
  }

  select(x, y) {
    const found = this.at(x, y);
    const same = found && this.selected?.id === found.id && this.selected.tile[4] === found.tile[4];
    this.#take(same ? null : found);
  }

  /** Select a tile {tiling, id} that a link names; null: none. */
  async choose(named) {
    if (!named) {
      this.#take(null);
      return;
    }
    const { tissue, modality } = this.#pane;
    const { tile, columns } = await readTile(tissue, modality, named.tiling, named.id);
    // Meanwhile another picture may have been opened.
    if (this.#pane.tissue === tissue && this.#pane.modality === modality) this.#take({ id: named.tiling, tile, columns });
  }

  #take(found) {
    this.selected = found;
    this.#pane.redraw();
    this.changed();
  }

  draw() {
    const context = this.#cleared();
    this.#project = this.#projection();
    if (this.#layers.length > 0 && this.#outgrown()) this.#fetchSoon();
    this.#layers.forEach((layer) => this.#drawTiling(context, layer));
    if (this.hovered) this.#frame(context, this.hovered.tile, "#ffffff", 2);
    if (this.selected) this.#frame(context, this.selected.tile, "#ff2d55", 3);
    if (this.#mark) this.#cross(context, this.#project(...this.#mark));
  }

  // Thousands of corners a frame: the map is asked for once, at three of them.
  #projection() {
    const { width, height } = this.#pane.info;
    const [[x0, y0], [x1, y1], [x2, y2]] = [[0, 0], [width, 0], [0, height]].map((corner) => this.#pane.toScreen(corner));
    const [a, d, b, e] = [(x1 - x0) / width, (y1 - y0) / width, (x2 - x0) / height, (y2 - y0) / height];
    return (x, y) => [a * x + b * y + x0, d * x + e * y + y0];
  }

  #cleared() {
    const [width, height] = this.#pane.size;
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) [this.canvas.width, this.canvas.height] = [w, h];
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  #drawTiling(context, { id, opacity, options, colour }) {
    const answer = this.#held.get(id)?.answer;
    if (!answer) return;
    const column = answer.columns.indexOf(options.stat);
    const range = this.range(id);
    context.globalAlpha = opacity;
    context.lineWidth = 1.5;
    context.strokeStyle = colour;
    for (const tile of answer.tiles) {
      context.beginPath();
      if (!this.#trace(context, tile)) continue;
      if (range) {
        const value = tile[5 + column];
        context.fillStyle = typeof value === "number" ? colourAt("viridis", (value - range[0]) / (range[1] - range[0] || 1)) : "transparent";
        context.fill();
      } else {
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  /** Add a tile's outline to the path; false where it is out of view. */
  #trace(context, [row, col, height, width]) {
    const [viewWidth, viewHeight] = this.#pane.size;
    const corners = [[col, row], [col + width, row], [col + width, row + height], [col, row + height]].map(([x, y]) => this.#project(x, y));
    const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
    if (Math.max(...xs) < 0 || Math.max(...ys) < 0 || Math.min(...xs) > viewWidth || Math.min(...ys) > viewHeight) return false;
    corners.forEach(([x, y], index) => (index === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
    context.closePath();
    return true;
  }

  #frame(context, tile, colour, width) {
    context.beginPath();
    if (!this.#trace(context, tile)) return;
    context.strokeStyle = "#000000";
    context.lineWidth = width + 2;
    context.stroke();
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }

  #cross(context, [x, y]) {
    for (const [colour, width] of [["#000000", 3.5], ["#ffffff", 1.5]]) {
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 4 * dx, y + 4 * dy);
        context.lineTo(x + 13 * dx, y + 13 * dy);
      }
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  // ------------------------------------------------------------------ the table

  /** Whether some tiling lacks what is now in view. */
  #outgrown() {
    const view = this.#clipped(this.#pane.inView);
    return this.#layers.some(({ id }) => {
      const held = this.#held.get(id);
      if (!held) return true;
      const inside = held.box[0] <= view[0] && held.box[1] <= view[1] && held.box[2] >= view[2] && held.box[3] >= view[3];
      const closer = held.answer?.truncated && (view[2] - view[0]) * (view[3] - view[1]) < 0.2 * area(held.box);
      return !inside || closer;
    });
  }

  #clipped([x0, y0, x1, y1]) {
    const { width, height } = this.#pane.info;
    const within = (value, end) => Math.min(end, Math.max(0, value));
    return [within(Math.floor(x0), width), within(Math.floor(y0), height), within(Math.ceil(x1), width), within(Math.ceil(y1), height)];
  }

  // Asked for on every frame, also while the view moves: so what waits is not put off again.
  #fetchSoon() {
    if (this.#timer !== 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#fetch();
    }, PAUSE);
  }

  #fetch() {
    if (!this.#pane.info || this.#layers.length === 0 || !this.#outgrown()) return;
    const [x0, y0, x1, y1] = this.#pane.inView;
    const [mx, my] = [MARGIN * (x1 - x0), MARGIN * (y1 - y0)];
    const box = this.#clipped([x0 - mx, y0 - my, x1 + mx, y1 + my]);
    this.#layers.forEach(({ id }) => this.#fetchOne(id, box));
  }

  async #fetchOne(id, box) {
    const before = this.#held.get(id);
    before?.aborter.abort();
    const held = { box, answer: before?.answer ?? null, aborter: new AbortController() };
    this.#held.set(id, held);
    const { tissue, modality } = this.#pane;
    if (area(box) === 0) return; // Nothing of the picture is in view.
    try {
      held.answer = await readTiles(tissue, modality, id, box, AT_MOST, held.aborter.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error.message);
      return;
    }
    if (this.#held.get(id) !== held) return;
    held.answer.columns.forEach((name, column) => this.#extend(`${id} ${name}`, held.answer.tiles, 5 + column));
    this.#pane.redraw();
    this.changed();
  }

  // Grows only, so that a colour does not change its meaning while one moves.
  #extend(key, tiles, column) {
    const values = tiles.map((tile) => tile[column]).filter((value) => typeof value === "number");
    if (values.length === 0) return;
    const [low, high] = this.#ranges.get(key) ?? [Infinity, -Infinity];
    this.#ranges.set(key, [values.reduce((a, b) => Math.min(a, b), low), values.reduce((a, b) => Math.max(a, b), high)]);
  }
}

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
