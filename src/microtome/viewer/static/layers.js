// The panel of what lies over the picture: predictions, masks, cells, tilings.

import { MAPS, gradient, tilingColour } from "./colormaps.js";
import { el, shown, slider } from "./elements.js";

const GROUPS = [
  ["tilings", "Tiles"],
  ["cells", "Cells"],
  ["masks", "Masks"],
  ["predictions", "Predictions"],
];
const OPACITY = { tilings: 1, cells: 1, masks: 0.5, predictions: 0.6 };
const ENDS = ["painted", "clear"]; // Whether what is low hides the slide.
const FILLED = 0.5; // of tiles that are coloured by a number

/** What is asked of the server for a layer at first; of a prediction what the report shows. */
export function firstOptions(kind, layer) {
  if (kind === "cells") return { style: "outline" };
  if (kind === "predictions" && layer.kind === "dense") return { channel: layer.channels.at(-1), map: "inferno", ends: "clear" };
  return {};
}

export class LayerPanel {
  #root;
  #changed;
  #counts;
  #info = null;
  #layers = [];

  /**
   * @param {function(Array)} changed told the layers {kind, id, opacity, options} that are shown
   * @param {function(string)} counts what is known of a tiling: {counts, stats}
   */
  constructor(root, changed, counts) {
    this.#root = root;
    this.#changed = changed;
    this.#counts = counts;
  }

  show(info, layers) {
    this.#info = info;
    this.#layers = layers;
    this.#render();
  }

  /** Show all layers of a kind, or none if some are shown. */
  toggle(kind) {
    const known = this.#info.layers[kind];
    const shownNow = this.#layers.some((layer) => layer.kind === kind);
    this.#layers = this.#layers.filter((layer) => layer.kind !== kind);
    // Of tilings and predictions the first: two of them hide each other.
    const wanted = ["tilings", "predictions"].includes(kind) ? known.slice(0, 1) : known;
    if (!shownNow) this.#layers.push(...wanted.map((layer) => this.#first(kind, layer)));
    this.#render();
    this.#changed(this.#layers);
    return known.length > 0;
  }

  /** Write anew what is said about tilings, without taking the focus away. */
  recount() {
    for (const note of this.#root.querySelectorAll("[data-tiling]")) note.textContent = this.#countText(note.dataset.tiling);
    for (const select of this.#root.querySelectorAll("select[data-stats]")) this.#fillStats(select, select.dataset.stats);
  }

  #first(kind, layer) {
    return { kind, id: layer.id, opacity: OPACITY[kind], options: firstOptions(kind, layer) };
  }

  #render() {
    const groups = GROUPS.map(([kind, title]) => {
      const known = this.#info.layers[kind] ?? [];
      if (known.length === 0) return null;
      const rows = known.map((layer, index) => this.#row(kind, layer, kind === "tilings" ? tilingColour(index) : layer.color));
      return el("section", { class: "group" }, el("h3", { text: title }), el("ul", { class: "layers" }, ...rows));
    }).filter(Boolean);
    if (groups.length === 0) groups.push(el("p", { class: "soft", text: "Nothing lies over this picture: no masks, cells, tiles or predictions." }));
    // A key may toggle a layer while the focus is on one of its settings: it stays if they do.
    const focused = this.#root.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    this.#root.replaceChildren(...groups);
    if (focused) this.#root.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  #row(kind, layer, colour) {
    const find = () => this.#layers.find((one) => one.kind === kind && one.id === layer.id);
    const settings = el("div", { class: "settings" });
    const fill = () => settings.replaceChildren(...(find() ? this.#settings(kind, layer, find()) : []));
    const box = el("input", {
      type: "checkbox",
      checked: Boolean(find()),
      on: {
        change: ({ target }) => {
          if (target.checked) this.#layers.push(this.#first(kind, layer));
          else this.#layers = this.#layers.filter((one) => one !== find());
          fill();
          this.#changed(this.#layers);
        },
      },
    });
    const swatch = colour ? el("span", { class: kind === "tilings" ? "swatch framed" : "swatch", "aria-hidden": "true" }) : null;
    swatch?.style.setProperty("--swatch", colour);
    const note = kind === "tilings" ? el("span", { class: "soft", text: tilingText(layer) }) : null;
    fill();
    return el("li", {}, el("div", { class: "row" }, el("label", { class: "grow" }, box, el("span", { class: "name", text: layer.name, title: layer.name })), note, swatch), settings);
  }

  #settings(kind, layer, setting) {
    const say = () => this.#changed(this.#layers);
    const opacity = slider({
      label: "Opacity",
      describe: `Opacity of ${layer.name}`,
      min: 0,
      max: 1,
      step: 0.01,
      value: setting.opacity,
      on: (value) => {
        setting.opacity = Math.min(1, Math.max(0, value));
        say();
      },
    });
    const parts = [opacity.row];
    const choice = (name, key, values, then = () => {}) =>
      el(
        "label",
        { class: "choice" },
        el("span", { class: "slider-name", text: name }),
        el(
          "select",
          {
            "aria-label": `${name} of ${layer.name}`,
            on: {
              change: ({ target }) => {
                setting.options[key] = target.value;
                then(target.value);
                say();
              },
            },
          },
          ...values.map((value) => el("option", { value, text: value, selected: setting.options[key] === value })),
        ),
      );
    if (kind === "cells") parts.push(choice("Style", "style", ["outline", "fill"]), ...namesOf(layer));
    if (kind === "predictions" && layer.kind === "dense") parts.push(...this.#dense(layer, setting, choice, say));
    if (kind === "tilings") parts.push(...this.#tiling(layer, setting, opacity, say));
    return parts;
  }

  #dense(layer, setting, choice, say) {
    const bar = el("span", { class: "legend-bar" });
    const paint = () => {
      const { map, ends } = setting.options;
      bar.style.background = gradient(MAPS.includes(map) ? map : "viridis", ends === "clear");
    };
    paint();
    const limit = (key, text) =>
      el("input", {
        type: "number",
        step: "any",
        placeholder: "auto",
        value: setting.options[key] ?? "",
        "aria-label": `${text} end of the colours of ${layer.name}`,
        on: {
          change: ({ target }) => {
            if (target.value.trim() === "") delete setting.options[key];
            else setting.options[key] = target.value;
            say();
          },
        },
      });
    // Another channel has other values: limits are its own again.
    const renewed = () => {
      delete setting.options.low;
      delete setting.options.high;
      for (const input of legend.querySelectorAll("input")) input.value = "";
    };
    const legend = el("div", { class: "legend" }, limit("low", "Low"), bar, limit("high", "High"));
    const channel = layer.channels.length > 1 ? [choice("Channel", "channel", layer.channels, renewed)] : [];
    return [...channel, choice("Colours", "map", MAPS, paint), choice("Low end", "ends", ENDS, paint), legend];
  }

  #tiling(layer, setting, opacity, say) {
    const select = el("select", {
      "data-stats": layer.id,
      "aria-label": `Colour of ${layer.name} by`,
      on: {
        change: ({ target }) => {
          setting.options = target.value === "" ? {} : { stat: target.value };
          // Outlines hide little and filled tiles all, so what was not set by hand changes.
          if (setting.opacity === OPACITY.tilings && target.value) setting.opacity = FILLED;
          else if (setting.opacity === FILLED && !target.value) setting.opacity = OPACITY.tilings;
          opacity.set(setting.opacity);
          say();
          this.recount();
        },
      },
    });
    this.#fillStats(select, layer.id);
    return [
      el("label", { class: "choice" }, el("span", { class: "slider-name", text: "Colour by" }), select),
      el("p", { class: "soft small", "data-tiling": layer.id, text: this.#countText(layer.id) }),
    ];
  }

  #fillStats(select, id) {
    const setting = this.#layers.find((one) => one.kind === "tilings" && one.id === id);
    const current = setting?.options.stat ?? "";
    const names = [...new Set([...this.#counts(id).stats, ...(current ? [current] : [])])];
    if (select.options.length === names.length + 1 && select.value === current) return;
    select.replaceChildren(el("option", { value: "", text: "one colour" }), ...names.map((name) => el("option", { value: name, text: name, selected: name === current })));
    select.value = current;
  }

  #countText(id) {
    const { counts, range } = this.#counts(id);
    if (!counts) return "";
    const text = counts.truncated ? `${counts.shown} of ${counts.total} tiles around here are drawn: zoom in for all.` : `${counts.total} tiles around here.`;
    return range ? `${text} Purple ${shown(range[0])} to yellow ${shown(range[1])}.` : text;
  }
}

/** What the colours of a task's labels mean. */
function namesOf({ names = [] }) {
  if (names.length === 0) return [];
  const rows = names.map(({ name, color }) => {
    const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("--swatch", color);
    return el("li", {}, swatch, el("span", { class: "name", text: name, title: name }));
  });
  return [el("ul", { class: "names small" }, ...rows)];
}

const tilingText = ({ size, count }) => [size ? `${size} px` : null, count === undefined || count === null ? null : `${count}`].filter(Boolean).join(" · ");
