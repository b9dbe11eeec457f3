// The panel of channels: which are shown, in what colour, and what becomes black and full colour.

import { el, shown, slider } from "./elements.js";

const MANY = 8; // Channels from which on a filter by name is worth its place.

export class ChannelPanel {
  #root;
  #changed;
  #info = null;
  #channels = [];
  #filter = "";
  #rows = [];
  #list = null;

  /** @param {function(Array)} changed told the channels {name, index, color, low, high, visible} */
  constructor(root, changed) {
    this.#root = root;
    this.#changed = changed;
  }

  /** Show a picture's channels with these settings. */
  show(info, channels) {
    const sameNames = this.#info === info;
    this.#info = info;
    this.#channels = channels;
    if (!sameNames) this.#filter = "";
    this.#render();
  }

  /** Put the pointer of the keyboard on the next or previous channel, and show only that one. */
  step(by) {
    const usable = this.#channels.filter((_, index) => this.#measured(index));
    if (this.#info.kind === "rgb" || usable.length === 0) return;
    const current = usable.findIndex(({ visible }) => visible);
    const next = usable[(current + by + usable.length) % usable.length];
    this.#channels.forEach((channel) => (channel.visible = channel === next));
    this.#all();
  }

  #measured(index) {
    return this.#info.channels[index].measured !== false;
  }

  #render() {
    if (this.#info.kind === "rgb") {
      this.#root.replaceChildren(el("p", { class: "soft", text: "A colour picture, shown as it is." }));
      return;
    }
    this.#list = el("ul", { class: "channels" });
    const filter =
      this.#channels.length < MANY
        ? null
        : el("input", {
            type: "search",
            class: "wide",
            placeholder: "Filter channels",
            "aria-label": "Filter channels by name",
            value: this.#filter,
            on: { input: ({ target }) => this.#narrow(target.value) },
          });
    this.#root.replaceChildren(this.#buttons(), ...(filter ? [filter] : []), this.#list);
    this.#fill();
  }

  #buttons() {
    const button = (text, title, click) => el("button", { type: "button", text, title, on: { click } });
    const auto = () =>
      this.#channels.forEach((channel, index) => {
        const { low, high } = this.#info.channels[index];
        Object.assign(channel, { low, high });
      });
    const reset = () =>
      this.#channels.forEach((channel, index) => {
        const { low, high, color, visible } = this.#info.channels[index];
        Object.assign(channel, { low, high, color, visible });
      });
    const hide = () => this.#channels.forEach((channel) => (channel.visible = false));
    const all = (change) => () => {
      change();
      this.#all();
    };
    return el(
      "div",
      { class: "buttons" },
      button("Auto contrast", "Contrast of all channels from their own values", all(auto)),
      button("Hide all", "Hide every channel", all(hide)),
      button("Reset", "Channels, colours and contrast as at first", all(reset)),
    );
  }

  /** Write the rows; buttons and filter stay, and with them the focus. */
  #fill() {
    this.#rows = this.#channels.map((channel, index) => this.#row(channel, index));
    this.#list.replaceChildren(...this.#rows);
    this.#narrow(this.#filter);
  }

  #all() {
    this.#fill();
    this.#changed(this.#channels);
  }

  #narrow(text) {
    this.#filter = text;
    const wanted = text.trim().toLowerCase();
    this.#rows.forEach((row, index) => (row.hidden = !this.#channels[index].name.toLowerCase().includes(wanted)));
  }

  #row(channel, index) {
    const facts = this.#info.channels[index];
    const { name } = channel;
    const contrast = el("div", { class: "contrast" });
    const fill = () => contrast.replaceChildren(...(channel.visible ? this.#contrast(channel, facts) : []));
    const visible = el("input", {
      type: "checkbox",
      checked: channel.visible,
      disabled: !this.#measured(index),
      on: {
        change: ({ target }) => {
          channel.visible = target.checked;
          fill();
          this.#changed(this.#channels);
        },
      },
    });
    const colour = el("input", {
      type: "color",
      value: channel.color,
      "aria-label": `Colour of ${name}`,
      disabled: !this.#measured(index),
      on: {
        input: ({ target }) => {
          channel.color = target.value;
          this.#changed(this.#channels);
        },
      },
    });
    const badges = [];
    if (!this.#measured(index)) badges.push(el("span", { class: "badge", text: "not measured" }));
    else if (facts.qc_pass === false) badges.push(el("span", { class: "badge warn", text: "failed QC" }));
    const head = el("div", { class: "row" }, el("label", { class: "grow" }, visible, el("span", { class: "name", text: name, title: name })), ...badges, colour);
    fill();
    return el("li", { class: this.#measured(index) ? null : "absent" }, head, contrast);
  }

  #contrast(channel, facts) {
    const { name } = channel;
    // A slider runs over what the picture holds, however far the limits were typed beyond that.
    const min = Math.min(facts.min, channel.low);
    const max = Math.max(facts.max, channel.high, min + 1e-6);
    const whole = /^u?int/.test(this.#info.dtype) && [min, max].every(Number.isInteger);
    const step = whole ? 1 : (max - min) / 1000;
    const gap = whole ? 1 : step;
    const limit = (label, describe, key, other, apart) =>
      slider({
        label,
        describe: `${describe} of ${name}`,
        min,
        max,
        step,
        value: channel[key],
        on: (value) => {
          channel[key] = value;
          if (apart(value, channel[other])) {
            channel[other] = key === "low" ? value + gap : value - gap;
            (key === "low" ? high : low).set(channel[other]);
          }
          this.#changed(this.#channels);
        },
      });
    const low = limit("Low", "Low end of contrast", "low", "high", (value, other) => value >= other);
    const high = limit("High", "High end of contrast", "high", "low", (value, other) => value <= other);
    const auto = el("button", {
      type: "button",
      class: "small",
      text: "Auto",
      "aria-label": `Automatic contrast of ${name}`,
      title: `${shown(facts.low)} to ${shown(facts.high)}`,
      on: {
        click: () => {
          Object.assign(channel, { low: facts.low, high: facts.high });
          low.set(facts.low);
          high.set(facts.high);
          this.#changed(this.#channels);
        },
      },
    });
    return [el("div", { class: "sliders" }, low.row, high.row), auto];
  }
}
