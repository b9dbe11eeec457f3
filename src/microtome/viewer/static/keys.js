// The keyboard: every key stands here once, with what it does; the help is made from the same list.

import { el } from "./elements.js";

const STEP = 80; // CSS px for a press of an arrow

/** Keys as [keys, what they do, action]; `act` has the actions. */
function table(act) {
  return [
    [["ArrowLeft"], "Move left", () => act.pan(-STEP, 0)],
    [["ArrowRight"], "Move right", () => act.pan(STEP, 0)],
    [["ArrowUp"], "Move up", () => act.pan(0, -STEP)],
    [["ArrowDown"], "Move down", () => act.pan(0, STEP)],
    [["+", "="], "Zoom in", () => act.zoom(1.5)],
    [["-"], "Zoom out", () => act.zoom(1 / 1.5)],
    [["0"], "Show the whole picture", act.home],
    [["1"], "One screen pixel for one of the picture", act.actual],
    [["/"], "Filter the tissues", act.filter],
    [["n"], "Next tissue", () => act.tissue(1)],
    [["p"], "Previous tissue", () => act.tissue(-1)],
    [["["], "Only the previous channel", () => act.channel(-1)],
    [["]"], "Only the next channel", () => act.channel(1)],
    [["t"], "Tiles", () => act.layer("tilings")],
    [["m"], "Masks", () => act.layer("masks")],
    [["c"], "Cells", () => act.layer("cells")],
    [["d"], "Predictions", () => act.layer("predictions")],
    [["Enter"], "Select the tile and the cell in the middle", act.select],
    [["s"], "Two views side by side", act.side],
    [["v"], "Go on in the other view", act.other],
    [["l"], "Copy a link to this place", act.copy],
    [["?"], "This list", act.help],
  ];
}

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

const writes = (element) => ["SELECT", "TEXTAREA"].includes(element.tagName) || (element.tagName === "INPUT" && element.type !== "checkbox");

export function listenToKeys(act, dialog) {
  const rows = table(act);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const { target, key } = event;
    if (writes(target)) {
      if (key === "Escape") target.blur();
      return;
    }
    if (dialog.open) return;
    // Enter and the space bar belong to the control that has the focus.
    if (key === "Enter" && target.closest("button, a, input, summary")) return;
    const row = rows.find(([keys]) => keys.includes(key));
    if (!row) return;
    event.preventDefault();
    row[2]();
  });
  const list = dialog.querySelector("dl");
  list.replaceChildren(
    ...rows.map(([keys, what]) => el("div", {}, el("dt", {}, ...keys.map((key) => el("kbd", { text: NAMES[key] ?? key }))), el("dd", { text: what }))),
  );
}
