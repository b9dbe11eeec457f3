// What the page asks the server for. Every address lies below the page's own, which holds the token.

/** The server, or the way to it, said no; the message is for people. */
export class ServerError extends Error {}

const home = new URL("./", document.baseURI).href;
const join = (...parts) => home + parts.map(encodeURIComponent).join("/");

async function failure(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string") return new ServerError(error);
  } catch {
    // Not ours: a status is all there is.
  }
  return new ServerError(`The server answered ${response.status} ${response.statusText}.`);
}

/** Fetch, or fail with what the server says; an aborted request stays an AbortError. */
export async function request(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is `microtome view` still running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

const json = async (url, signal) => (await request(url, signal)).json();

export const readCohort = () => json(join("api", "cohort"));

export const readImage = (tissue, modality, signal) => json(join("api", "image", tissue, modality), signal);

export function readPixel(tissue, modality, x, y, signal) {
  return json(`${join("api", "pixel", tissue, modality)}?x=${x}&y=${y}`, signal);
}

/** Tiles of a tiling that touch a box of level-0 pixels. */
export function readTiles(tissue, modality, tiling, [x0, y0, x1, y1], limit, signal) {
  const box = `x0=${x0}&y0=${y0}&x1=${x1}&y1=${y1}&limit=${limit}`;
  return json(`${join("api", "tiles", tissue, modality, tiling)}?${box}`, signal);
}

/** One tile of a tiling by its number: {tile, columns}. */
export const readTile = (tissue, modality, tiling, id) => json(join("api", "tile", tissue, modality, tiling, String(id)));

const cell = (tissue, modality, query, signal) => json(`${join("api", "cell", tissue, modality)}?${query}`, signal);

/** The cell at a level-0 pixel, {cell}: null where there is none. */
export const readCellAt = (tissue, modality, x, y, signal) => cell(tissue, modality, `x=${x}&y=${y}`, signal);

/** The cell of a number. */
export const readCell = (tissue, modality, id, signal) => cell(tissue, modality, `id=${id}`, signal);

/** Channels as the server wants them: index, colour, and what becomes black and full colour. */
export function channelQuery(channels) {
  return channels.map(({ index, color, low, high }) => `${index}:${color.replace("#", "")}:${low}:${high}`).join(",");
}

/** Where tiles of the picture are, as a function of zoom, column and row. */
export function imageTiles(tissue, modality, kind, channels) {
  const [ending, query] = kind === "rgb" ? ["jpeg", ""] : ["png", `?channels=${channelQuery(channels)}`];
  const start = join("api", "image", tissue, modality, "tile");
  return (zoom, col, row) => `${start}/${zoom}/${col}/${row}.${ending}${query}`;
}

/** Where tiles of a mask, of outlines or of a prediction are. */
export function overlayTiles(tissue, modality, kind, id, options) {
  const start = join("api", "overlay", tissue, modality, kind, id);
  const query = new URLSearchParams(options).toString();
  return (zoom, col, row) => `${start}/${zoom}/${col}/${row}.png${query ? `?${query}` : ""}`;
}
