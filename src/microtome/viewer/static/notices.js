// What went wrong, where every reader finds it: a live region on the page, never only the console.

import { el } from "./elements.js";

const HELD = 6; // Messages on the page at once; older ones make room.

export class Notices {
  #region;

  constructor(region) {
    this.#region = region;
  }

  /** Show a message until it is closed; the same one is not repeated. */
  error(message) {
    this.#add(message, "error");
  }

  /** Show a message for some seconds. */
  say(message) {
    const item = this.#add(message, "info");
    if (item) setTimeout(() => item.remove(), 4000);
  }

  #add(message, kind) {
    const items = [...this.#region.children];
    if (items.some((item) => item.dataset.message === message)) return null;
    if (items.length >= HELD) items[0].remove();
    const item = el("div", { class: `notice ${kind}`, "data-message": message }, el("p", { text: message }));
    item.append(el("button", { type: "button", class: "plain", "aria-label": "Close this message", text: "×", on: { click: () => item.remove() } }));
    this.#region.append(item);
    return item;
  }
}
