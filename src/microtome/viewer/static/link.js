// Two views of one tissue that always show the same micrometres.

/** Let whichever of two panes the user moves lead the other. */
export class Linked {
  #panes;
  #leader;
  #following = false;

  constructor(panes) {
    this.#panes = panes;
    this.#leader = panes[0];
  }

  get leader() {
    return this.#leader;
  }

  /** The user touched this pane: the other one follows it from now on. */
  lead(pane) {
    this.#leader = pane;
  }

  /** A pane has moved; bring the other one to the same place if this one leads. */
  moved(pane) {
    const other = this.#panes.find((one) => one !== pane);
    if (this.#following || pane !== this.#leader || !other?.info) return;
    this.#following = true;
    other.goToPhysical(pane.physical);
    this.#following = false;
  }

  /** A pane has another size; the one that follows takes its place from the leader. */
  resized(pane) {
    if (pane !== this.#leader && pane.info && this.#leader.info) pane.goToPhysical(this.#leader.physical);
  }
}
