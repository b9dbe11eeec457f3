// The pictures that lie over each other in one view: the image at the bottom, overlays above it. A
// picture whose settings changed stays until its successor has arrived, so that nothing flashes.

import { request } from "./api.js";

const PATIENCE = 4000; // ms after which a successor takes over even if it is not complete

export class Stack {
  #viewer;
  #fail;
  #layers = new Map(); // key -> {identity, opacity, items: [older..., newest], serial}
  #keys = [];
  #info = null;
  #loading = 0;
  #busy;

  /**
   * @param viewer an OpenSeadragon viewer
   * @param {function(string)} fail what to do with a message of the server
   * @param {function(boolean)} busy told when tiles are waited for, and when no more
   */
  constructor(viewer, fail, busy) {
    this.#viewer = viewer;
    this.#fail = fail;
    this.#busy = busy;
  }

  /** Take everything away and begin with another picture. */
  reset(info) {
    for (const layer of this.#layers.values()) layer.serial += 1;
    this.#layers.clear();
    this.#viewer.world.removeAll();
    this.#info = info;
  }

  /**
   * Show exactly these, from the bottom up.
   * @param {Array<{key: string, identity: string, tile: function, opacity: number}>} wanted `identity`
   *     tells whether the pixels are still the same ones.
   */
  show(wanted) {
    this.#keys = wanted.map(({ key }) => key);
    for (const [key, layer] of this.#layers) {
      if (this.#keys.includes(key)) continue;
      layer.serial += 1;
      layer.items.forEach((item) => this.#viewer.world.removeItem(item));
      this.#layers.delete(key);
    }
    wanted.forEach((want) => this.#showOne(want));
    this.#sort();
    this.#count(0);
  }

  /** Whether all that is in view has arrived. */
  get complete() {
    const items = [...this.#layers.values()];
    // What is wholly transparent is not even asked for.
    const there = ({ items: [item, ...more], opacity }) => item !== undefined && more.length === 0 && (opacity === 0 || item.getFullyLoaded());
    return this.#loading === 0 && items.every(there);
  }

  #showOne({ key, identity, tile, opacity }) {
    const layer = this.#layers.get(key) ?? { identity: null, items: [], serial: 0 };
    this.#layers.set(key, layer);
    layer.opacity = opacity;
    layer.items.forEach((item) => item.setOpacity(opacity));
    if (layer.identity === identity) return;
    layer.identity = identity;
    layer.serial += 1;
    const { serial } = layer;
    this.#viewer.addTiledImage({
      tileSource: this.#source(tile),
      opacity,
      success: ({ item }) => {
        if (layer.serial !== serial || !this.#layers.has(key)) {
          this.#viewer.world.removeItem(item);
          return;
        }
        item.setOpacity(layer.opacity);
        item.addHandler("fully-loaded-change", () => this.#count(0));
        layer.items.push(item);
        this.#sort();
        this.#succeed(layer, item);
      },
      error: ({ message }) => this.#fail(message),
    });
  }

  /** Remove the older ones once this one is complete. */
  #succeed(layer, newest) {
    let done = false;
    const take = () => {
      if (done || !layer.items.includes(newest)) return;
      done = true;
      // Only those: a still newer one may be on its way by now.
      const older = layer.items.splice(0, layer.items.indexOf(newest));
      older.forEach((item) => this.#viewer.world.removeItem(item));
      this.#count(0);
    };
    if (layer.items.length === 1) return;
    newest.addHandler("fully-loaded-change", ({ fullyLoaded }) => fullyLoaded && take());
    setTimeout(take, PATIENCE);
  }

  #sort() {
    const { world } = this.#viewer;
    const order = this.#keys.flatMap((key) => this.#layers.get(key)?.items ?? []);
    order.forEach((item, index) => {
      if (world.getIndexOfItem(item) !== index) world.setItemIndex(item, index);
    });
  }

  /** Tiles for OpenSeadragon: each level is half of the next, as the server counts them. */
  #source(tile) {
    const { width, height, tile_size: tileSize, max_zoom: maxLevel } = this.#info;
    return {
      width,
      height,
      tileWidth: tileSize,
      tileHeight: tileSize,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel,
      getTileUrl: tile,
      hasTransparency: () => true,
      downloadTileStart: (job) => this.#download(job),
      downloadTileAbort: (job) => job.userData.aborter?.abort(),
    };
  }

  // Not an <img>, which keeps to itself what the server says when it refuses.
  async #download(job) {
    const aborter = new AbortController();
    job.userData.aborter = aborter;
    this.#count(1);
    try {
      const response = await request(job.src, aborter.signal);
      // Bytes as they are: a colour profile must not change a measured value.
      const bitmap = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
      job.finish(bitmap, null, "imageBitmap");
    } catch (error) {
      if (!aborter.signal.aborted) this.#fail(error.message);
      job.fail(error.message, null);
    } finally {
      this.#count(-1);
    }
  }

  #count(change) {
    this.#loading += change;
    this.#busy(this.#loading > 0);
  }
}
