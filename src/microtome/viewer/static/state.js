// A place as a link: which tissue, which picture, where, and what is shown on it. Pure functions; the
// form is `#tissue=T&modality=M&x=X&y=Y&zoom=Z&channels=...&layers=...&tile=...&cell=...&find=...&where=...`,
// with `modality2`, `channels2`, `layers2` and `tile2` for the second view. x and y are the level-0 pixel in the middle of the first view,
// zoom is screen pixels for one such pixel.
//
//   channels  NAME:RRGGBB:LOW:HIGH,...          those that are shown; absent: as the server proposes
//   layers    KIND:ID:OPACITY:OPTION=VALUE,...  those that are shown, in masks, cells, tilings, predictions
//   tile      TILING:NUMBER                     the tile that is selected
//   cell      NUMBER                            the cell that is selected
//   find      WORDS                             by which the list of tissues is filtered
//   where     COLUMN:VALUE,...                  and the values of columns

const encode = (text) => encodeURIComponent(text);

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // A stray percent sign, typed by hand.
  }
}

const number = (text) => {
  const value = Number(text);
  return text !== undefined && text !== "" && Number.isFinite(value) ? value : null;
};

const list = (text) => text.split(",").filter(Boolean);

function parseChannel(text) {
  const [name, color, low, high] = text.split(":");
  if (!/^[0-9a-f]{6}$/i.test(color ?? "") || number(low) === null || number(high) === null) return null;
  return { name: decode(name), color: `#${color.toLowerCase()}`, low: Number(low), high: Number(high) };
}

function parseLayer(text) {
  const [kind, id, opacity, ...options] = text.split(":");
  if (!id) return null;
  const pairs = options.map((option) => option.split("=")).filter((pair) => pair.length === 2);
  return {
    kind,
    id: decode(id),
    opacity: Math.min(1, Math.max(0, number(opacity) ?? 1)),
    options: Object.fromEntries(pairs.map(([key, value]) => [decode(key), decode(value)])),
  };
}

function parseTile(text) {
  const [tiling, id] = text.split(":");
  return tiling && /^\d{1,10}$/.test(id ?? "") ? { tiling: decode(tiling), id: Number(id) } : null;
}

function parseWhere(text) {
  const [column, value, ...more] = text.split(":");
  return column && value !== undefined && more.length === 0 ? { column: decode(column), value: decode(value) } : null;
}

const parseCell = (text) => (/^[1-9]\d{0,9}$/.test(text) ? Number(text) : null);

/**
 * Read a link's hash.
 * @returns {{tissue: ?string, place: ?{x: number, y: number, zoom: number}, cell: ?number, find: string,
 *     where: Array, views: Array, unread: Array<string>}} one or two views {modality, channels, layers,
 *     tile}; channels and layers are null where the link is silent. `unread` is what makes no sense.
 */
export function parseLink(hash) {
  const given = new Map();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const cut = part.indexOf("=");
    if (cut > 0) given.set(part.slice(0, cut), part.slice(cut + 1));
  }
  const text = (key) => (given.has(key) ? decode(given.get(key)) : null);
  const unread = [];
  const read = (key, part, parse) => {
    const found = parse(part);
    if (found === null) unread.push(`${key}=${decode(part)}`);
    return found;
  };
  const items = (key, parse) => (given.has(key) ? list(given.get(key)).map((part) => read(key, part, parse)).filter(Boolean) : null);
  const one = (key, parse) => (given.has(key) ? read(key, given.get(key), parse) : null);
  const view = (suffix) => ({
    modality: text(`modality${suffix}`),
    channels: items(`channels${suffix}`, parseChannel),
    layers: items(`layers${suffix}`, parseLayer),
    tile: one(`tile${suffix}`, parseTile),
  });
  const [x, y, zoom] = ["x", "y", "zoom"].map((key) => one(key, number));
  return {
    tissue: text("tissue"),
    place: x !== null && y !== null && zoom > 0 ? { x, y, zoom } : null,
    cell: one("cell", parseCell),
    find: text("find") ?? "",
    where: items("where", parseWhere) ?? [],
    views: given.has("modality2") ? [view(""), view("2")] : [view("")],
    unread,
  };
}

const formatChannel = ({ name, color, low, high }) => `${encode(name)}:${color.replace("#", "")}:${low}:${high}`;

function formatLayer({ kind, id, opacity, options }) {
  const pairs = Object.entries(options ?? {}).map(([key, value]) => `${encode(key)}=${encode(value)}`);
  return [kind, encode(id), String(Number(opacity.toFixed(2))), ...pairs].join(":");
}

/** Write what parseLink reads. */
export function formatLink({ tissue, place, views, cell, find, where }) {
  const parts = [];
  const add = (key, value) => value !== null && value !== undefined && parts.push(`${key}=${value}`);
  add("tissue", tissue === null ? null : encode(tissue));
  views.forEach(({ modality, channels, layers, tile }, index) => {
    const suffix = index === 0 ? "" : "2";
    add(`modality${suffix}`, modality === null ? null : encode(modality));
    if (index === 0 && place) {
      add("x", String(Number(place.x.toFixed(2))));
      add("y", String(Number(place.y.toFixed(2))));
      add("zoom", String(Number(place.zoom.toPrecision(6))));
    }
    add(`channels${suffix}`, channels?.map(formatChannel).join(","));
    if (layers?.length) add(`layers${suffix}`, layers.map(formatLayer).join(","));
    add(`tile${suffix}`, tile && `${encode(tile.tiling)}:${tile.id}`);
  });
  add("cell", cell);
  add("find", find ? encode(find) : null);
  add("where", where?.length ? where.map(({ column, value }) => `${encode(column)}:${encode(value)}`).join(",") : null);
  return `#${parts.join("&")}`;
}
