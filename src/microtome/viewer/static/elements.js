// Elements of the page, made without a line of HTML in a string: names of tissues and channels are
// text and stay text.

/**
 * Make an element.
 * @param {string} tag
 * @param {Object} given attributes; `on` maps events to listeners, `text` is its text, a boolean
 *     attribute that is false is left out.
 * @param {...(Node|string|null)} children
 */
export function el(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "text") {
      element.textContent = value;
    } else if (name === "value" || name === "checked" || name === "disabled" || name === "selected") {
      element[name] = value;
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A range input and a number input that always show the same value. */
export function slider({ label, describe, min, max, step, value, on }) {
  const limits = { min: String(min), max: String(max), step: String(step) };
  const range = el("input", { type: "range", ...limits, value: String(value), "aria-label": describe });
  // A number may be typed that lies between two steps of the slider.
  const number = el("input", { type: "number", step: "any", value: shown(value), "aria-label": `${describe}, as a number` });
  range.addEventListener("input", () => {
    number.value = shown(Number(range.value));
    on(Number(range.value));
  });
  number.addEventListener("change", () => {
    const typed = Number(number.value);
    if (number.value.trim() === "" || !Number.isFinite(typed)) {
      number.value = shown(Number(range.value));
      return;
    }
    range.value = String(typed);
    on(typed);
  });
  const set = (changed) => {
    range.value = String(changed);
    number.value = shown(changed);
  };
  return { row: el("div", { class: "slider" }, el("span", { class: "slider-name", text: label }), range, number), set };
}

/** A number for people: no more digits than tell it apart from its neighbours. */
export function shown(value) {
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value) || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(5)));
}

/** Run `work` once, `wait` ms after the last call. */
export function settled(work, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}
