/** A panel that a button opens and closes. */
export function drawer(button, panel) {
  const set = (open) => {
    button.setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
  };
  button.addEventListener("click", () => set(panel.hidden));
  return { button, set, get open() { return !panel.hidden; } };
}
