// The list of tissues: filtered by words and by columns of the metadata.

import { el } from "./elements.js";

const LISTED = 500; // Rows in the page at once; past that a filter finds them.
const CHOICES = 40; // Different values of a column that fit a menu; past that one types.

const text = (value) => (value === null || value === undefined ? "" : String(value));

export class TissueList {
  #parts;
  #cohort;
  #choose;
  #current = null;
  #filters = new Map();
  #controls = new Map(); // By column.
  #filtered;

  /**
   * @param {Object} parts elements: `search`, `filters`, `count`, `list`
   * @param {function(string)} choose told the tissue that was chosen
   * @param {function()} filtered told when the filters were changed
   */
  constructor(parts, cohort, choose, filtered) {
    this.#parts = parts;
    this.#cohort = cohort;
    this.#choose = choose;
    this.#filtered = filtered;
    parts.search.addEventListener("input", () => {
      this.#render();
      this.#filtered();
    });
    parts.filters.replaceChildren(...cohort.columns.map((column) => this.#filter(column)));
    this.#render();
  }

  set current(tissue) {
    this.#current = tissue;
    for (const button of this.#parts.list.querySelectorAll("button")) {
      if (button.dataset.tissue === tissue) {
        button.setAttribute("aria-current", "true");
        button.scrollIntoView({ block: "nearest" });
      } else button.removeAttribute("aria-current");
    }
  }

  /** What the list is filtered by: words, and {column, value} of columns. */
  get filters() {
    const set = [...this.#filters].filter(([, { value, exact }]) => value !== (exact ? "*" : ""));
    return { find: this.#parts.search.value, where: set.map(([column, { value, exact }]) => ({ column, value: exact ? value.slice(1) : value })) };
  }

  /** Filter the list by these; returns sentences about those that cannot be. */
  filterBy({ find, where }) {
    this.#parts.search.value = find;
    this.#filters.clear();
    for (const control of this.#controls.values()) control.value = control.localName === "select" ? "*" : "";
    const lost = where.flatMap(({ column, value }) => {
      const control = this.#controls.get(column);
      if (!control) return [`Tissues are not told apart by ${column}, which the link asks for.`];
      const exact = control.localName === "select";
      const wanted = exact ? `=${value}` : value;
      if (exact && ![...control.options].some((option) => option.value === wanted)) return [`No tissue has ${column} ${value}, which the link asks for.`];
      control.value = wanted;
      this.#filters.set(column, { value: wanted, exact });
      return [];
    });
    this.#render();
    return lost;
  }

  /** Go to the next (1) or previous (-1) of the tissues that are listed. */
  step(by) {
    const found = this.#found();
    if (found.length === 0) return;
    const index = found.findIndex(({ tissue_id: id }) => id === this.#current);
    const next = index < 0 ? 0 : (index + by + found.length) % found.length;
    this.#choose(found[next].tissue_id);
  }

  #filter(column) {
    const values = [...new Set(this.#cohort.tissues.map(({ metadata }) => text(metadata[column])))];
    values.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const changed = ({ target }) => {
      this.#filters.set(column, { value: target.value, exact: target.localName === "select" });
      this.#render();
      this.#filtered();
    };
    const control =
      values.length <= CHOICES
        ? el("select", { on: { change: changed } }, el("option", { value: "*", text: "all" }), ...values.map((value) => el("option", { value: `=${value}`, text: value || "(none)" })))
        : el("input", { type: "search", placeholder: "contains", on: { input: changed } });
    this.#controls.set(column, control);
    return el("label", { class: "choice" }, el("span", { class: "slider-name", text: column, title: column }), control);
  }

  #found() {
    const words = this.#parts.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return this.#cohort.tissues.filter(({ tissue_id: id, metadata }) => {
      const haystack = [id, ...Object.values(metadata).map(text)].join(" ").toLowerCase();
      if (!words.every((word) => haystack.includes(word))) return false;
      return [...this.#filters].every(([column, { value, exact }]) => {
        const own = text(metadata[column]);
        return exact ? value === "*" || `=${own}` === value : own.toLowerCase().includes(value.toLowerCase());
      });
    });
  }

  #render() {
    const found = this.#found();
    const all = this.#cohort.tissues.length;
    const { list, count } = this.#parts;
    count.textContent = found.length === all ? `${all} ${all === 1 ? "tissue" : "tissues"}` : `${found.length} of ${all} tissues`;
    const rows = found.slice(0, LISTED).map((tissue) => this.#row(tissue));
    if (found.length > LISTED) rows.push(el("li", { class: "soft small", text: `and ${found.length - LISTED} more: narrow the filter` }));
    if (found.length === 0) rows.push(el("li", { class: "soft small", text: all === 0 ? "This cohort has no picture yet: microtome ingest adds one." : "No tissue fits these filters." }));
    list.replaceChildren(...rows);
    this.current = this.#current;
  }

  #row({ tissue_id: id, modalities, metadata }) {
    const facts = this.#cohort.columns.map((column) => text(metadata[column])).filter(Boolean).slice(0, 3).join(" · ");
    const button = el(
      "button",
      { type: "button", class: "tissue", "data-tissue": id, on: { click: () => this.#choose(id) } },
      el("span", { class: "name", text: id, title: id }),
      el("span", { class: "soft small", text: modalities.join(", ") }),
      facts ? el("span", { class: "soft small", text: facts }) : null,
    );
    return el("li", {}, button);
  }
}
