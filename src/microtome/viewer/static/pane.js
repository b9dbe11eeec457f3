// One view: an OpenSeadragon viewer with its stack of pictures, rectangles of tiles, and scale bar.
//
// OpenSeadragon measures in widths of the picture. Outside this file a position is a level-0 pixel,
// or a place in micrometres.

import { imageTiles, channelQuery, overlayTiles } from "./api.js";
import { tilingColour } from "./colormaps.js";
import { el } from "./elements.js";
import { angleOf, apply, inverse, scaleOf } from "./geometry.js";
import { TileShapes } from "./overlays.js";
import { ScaleBar } from "./scalebar.js";
import { Stack } from "./stack.js";

// OpenSeadragon would add a style sheet of its own to the page, which may have none but ours, unless
// it finds one. (It takes the frame of the focus away on touch screens; ours shows it for keys only.)
// This one is of no namespace, and so nothing but a name.
const found = document.createElementNS("", "style");
found.setAttribute("data-openseadragon-mobile-css", "");
document.head.append(found);

const still = matchMedia("(prefers-reduced-motion: reduce)");
// From the bottom up; outlines stay readable over everything else.
const ORDER = ["predictions", "masks", "cells"];

export class Pane {
  info = null;
  tissue = null;
  modality = null;
  tiles;
  #stage;
  #viewer;
  #stack;
  #scale;
  #listen;
  #turns;
  #moving = false;
  #loading = false;

  /**
   * @param {HTMLElement} stage where the picture goes
   * @param {boolean} turns whether the picture is turned to lie as that of another pane does; the first
   *     one is upright, as its link says nothing else.
   * @param {Object} listen `moved()` after each change of the view, `rested()` when it stands still,
   *     `resized()`, `pointed(x, y)` with the level-0 pixel under the pointer or null, `clicked(x, y)`,
   *     `failed(message)`.
   */
  constructor(stage, turns, listen) {
    this.#stage = stage;
    this.#turns = turns;
    this.#listen = listen;
    const surface = stage.querySelector(".surface");
    this.#viewer = new OpenSeadragon.Viewer({
      element: surface,
      drawer: "canvas", // Exact pixels, also where there is no GPU.
      crossOriginPolicy: false,
      showNavigationControl: false,
      keyboardNavEnabled: false, // keys.js does, for both views alike.
      preserveViewport: true,
      preserveImageSizeOnResize: true,
      visibilityRatio: 0.2,
      minZoomImageRatio: 0.4,
      maxZoomPixelRatio: 40,
      animationTime: still.matches ? 0 : 0.5,
      springStiffness: 9,
      zoomPerClick: 1, // A click selects a tile.
      zoomPerScroll: 1.25,
      imageLoaderLimit: 8,
      maxImageCacheCount: 600,
      timeout: 120000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { flickEnabled: !still.matches },
      tabIndex: 0,
    });
    const canvas = this.#viewer.canvas;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "pannable image");
    this.#stack = new Stack(this.#viewer, (message) => listen.failed(message), (loading) => {
      this.#loading = loading;
      this.#mark();
    });
    this.tiles = new TileShapes(el("canvas", { class: "shapes", "aria-hidden": "true" }), this, (message) => listen.failed(message));
    stage.append(this.tiles.canvas);
    const scale = el("div", { class: "scalebar" });
    stage.append(scale);
    this.#scale = new ScaleBar(scale);
    this.#hear();
  }

  /** Say what the canvas shows to those who cannot see it. */
  set label(text) {
    this.#viewer.canvas.setAttribute("aria-label", text);
  }

  /** Change to another picture; the view is what it was in pixels until someone moves it. */
  open(tissue, modality, info) {
    [this.tissue, this.modality, this.info] = [tissue, modality, info];
    this.#stage.dataset.kind = info.kind;
    this.#stack.reset(info);
    this.tiles.reset();
  }

  /**
   * Show channels {index, color, low, high} of the picture, layers {kind, id, opacity, options}, and a
   * frame around a cell {id, layer}, if not null.
   */
  show(channels, layers, cell) {
    const { tissue, modality, info } = this;
    const wanted = [];
    if (info.kind === "rgb" || channels.length > 0) {
      const identity = info.kind === "rgb" ? "rgb" : channelQuery(channels);
      wanted.push({ key: "image", identity, tile: imageTiles(tissue, modality, info.kind, channels), opacity: 1 });
    }
    for (const kind of ORDER) {
      for (const layer of layers.filter((one) => one.kind === kind)) {
        const identity = JSON.stringify(layer.options);
        const tile = overlayTiles(tissue, modality, kind, layer.id, layer.options);
        wanted.push({ key: `${kind} ${layer.id}`, identity, tile, opacity: layer.opacity });
      }
    }
    if (cell) wanted.push({ key: "cell", identity: `${cell.layer} ${cell.id}`, tile: overlayTiles(tissue, modality, "cells", cell.layer, { cell: cell.id }), opacity: 1 });
    this.#stack.show(wanted);
    const colour = ({ id }) => tilingColour(info.layers.tilings.findIndex((tiling) => tiling.id === id));
    this.tiles.show(layers.filter((one) => one.kind === "tilings").map((layer) => ({ ...layer, colour: colour(layer) })));
  }

  // ------------------------------------------------------------------ where

  /** Screen pixels for one level-0 pixel. */
  get zoom() {
    return this.#zoomNow(true);
  }

  #zoomNow(current) {
    const { viewport } = this.#viewer;
    return (viewport.getZoom(current) * viewport.getContainerSize().x) / this.info.width;
  }

  /** The level-0 pixel in the middle, and the zoom: where a running animation will end. */
  get place() {
    const centre = this.#viewer.viewport.getCenter(false);
    return { x: centre.x * this.info.width, y: centre.y * this.info.width, zoom: this.#zoomNow(false) };
  }

  goTo({ x, y, zoom }, immediately = true) {
    const { viewport } = this.#viewer;
    const { width } = this.info;
    viewport.zoomTo((zoom * width) / viewport.getContainerSize().x, null, immediately);
    viewport.panTo(new OpenSeadragon.Point(x / width, y / width), immediately);
  }

  /** The same place for another picture: micrometres in the middle, micrometres a screen pixel, degrees of their x axis on the screen. */
  get physical() {
    const centre = this.#viewer.viewport.getCenter(true);
    const { to_um: toUm, width } = this.info;
    return {
      um: apply(toUm, [centre.x * width, centre.y * width]),
      umPerPixel: scaleOf(toUm) / this.zoom,
      degrees: this.#viewer.viewport.getRotation(true) - angleOf(toUm),
    };
  }

  goToPhysical({ um, umPerPixel, degrees }) {
    const { to_um: toUm } = this.info;
    const [x, y] = apply(inverse(toUm), um);
    const turned = (((degrees + angleOf(toUm)) % 360) + 360) % 360;
    const { viewport } = this.#viewer;
    if (this.#turns && Math.abs(turned - viewport.getRotation(true)) > 1e-6) viewport.setRotation(turned, true);
    this.goTo({ x, y, zoom: scaleOf(toUm) / umPerPixel });
  }

  /** The whole picture. */
  home(immediately = still.matches) {
    const { width, height } = this.info;
    const margin = 0.03 * Math.max(1, height / width);
    this.#viewer.viewport.fitBounds(new OpenSeadragon.Rect(-margin, -margin, 1 + 2 * margin, height / width + 2 * margin), immediately);
  }

  /** Move by screen pixels. */
  panBy(dx, dy) {
    const { viewport } = this.#viewer;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(dx, dy)), still.matches);
    viewport.applyConstraints(still.matches);
  }

  zoomBy(factor) {
    this.#viewer.viewport.zoomBy(factor, null, still.matches);
    this.#viewer.viewport.applyConstraints(still.matches);
  }

  get size() {
    const { x, y } = this.#viewer.viewport.getContainerSize();
    return [x, y];
  }

  /** CSS pixels from the stage's corner for a level-0 pixel. */
  toScreen([x, y]) {
    const { width } = this.info;
    const point = this.#viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(x / width, y / width), true);
    return [point.x, point.y];
  }

  fromScreen([x, y]) {
    const point = this.#viewer.viewport.pointFromPixel(new OpenSeadragon.Point(x, y), true);
    return [point.x * this.info.width, point.y * this.info.width];
  }

  /** The box of level-0 pixels that holds all that is in view. */
  get inView() {
    const [w, h] = this.size;
    const corners = [[0, 0], [w, 0], [0, h], [w, h]].map((corner) => this.fromScreen(corner));
    const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
    return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  }

  redraw() {
    this.#viewer.forceRedraw();
  }

  // ------------------------------------------------------------------ what happens

  #hear() {
    const viewer = this.#viewer;
    viewer.addHandler("viewport-change", () => {
      if (!this.info) return;
      this.#moving = true;
      // Past two screen pixels for one of the image, people want to see which pixels there are.
      viewer.drawer.setImageSmoothingEnabled(this.zoom < 2);
      this.#scale.show(scaleOf(this.info.to_um) / this.zoom);
      this.#listen.moved();
    });
    viewer.addHandler("animation-finish", () => {
      this.#moving = false;
      this.#mark();
      if (this.info) this.#listen.rested();
    });
    viewer.addHandler("update-viewport", () => {
      if (!this.info) return;
      this.tiles.draw();
      this.#mark();
    });
    viewer.addHandler("after-resize", () => this.info && this.#listen.resized());
    viewer.addHandler("canvas-click", ({ quick, position }) => {
      if (quick && this.info) this.#listen.clicked(...this.fromScreen([position.x, position.y]));
    });
    viewer.canvas.addEventListener("pointermove", ({ clientX, clientY }) => {
      if (!this.info) return;
      const { left, top } = viewer.canvas.getBoundingClientRect();
      this.#listen.pointed(...this.fromScreen([clientX - left, clientY - top]));
    });
    viewer.canvas.addEventListener("pointerleave", () => this.#listen.pointed(null, null));
  }

  /** Tell whether what is seen is what was asked for, or still on its way. */
  #mark() {
    const waits = String(this.#moving || this.#loading || !this.#stack.complete);
    if (this.#stage.getAttribute("aria-busy") !== waits) this.#stage.setAttribute("aria-busy", waits);
  }
}
