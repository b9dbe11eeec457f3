// A bar of round length in micrometres.

import { el } from "./elements.js";

const WIDEST = 140; // CSS px

/** The longest of 1, 2, 5 times a power of ten that is not longer than `limit`. */
export function roundLength(limit) {
  const power = 10 ** Math.floor(Math.log10(limit));
  return [5, 2, 1].find((digit) => digit * power <= limit * (1 + 1e-9)) * power;
}

/** A length with the unit that people use for it. */
export function lengthText(um) {
  if (um >= 1000) return `${Number((um / 1000).toPrecision(6))} mm`;
  if (um < 1) return `${Number((um * 1000).toPrecision(6))} nm`;
  return `${Number(um.toPrecision(6))} µm`;
}

export class ScaleBar {
  #bar = el("span", { class: "scale-line" });
  #text = el("span", { class: "scale-text" });

  constructor(root) {
    root.append(this.#text, this.#bar);
  }

  /** Show a scale, in micrometres for a CSS pixel. */
  show(umPerPixel) {
    if (!(umPerPixel > 0 && Number.isFinite(umPerPixel))) return;
    const um = roundLength(WIDEST * umPerPixel);
    this.#bar.style.width = `${um / umPerPixel}px`;
    this.#text.textContent = lengthText(um);
  }
}
