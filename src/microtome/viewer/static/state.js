// A place as a link: which tissue, which picture, where, and what is shown on it. Pure functions; the
// form is `#tissue=T&modality=M&x=X&y=Y&zoom=Z&channels=...&layers=...`, with `modality2`, `channels2`
// and `layers2` for the second view. x and y are the level-0 pixel in the middle of the first view,
// zoom is screen pixels for one such pixel.
//
//   channels  NAME:RRGGBB:LOW:HIGH,...          those that are shown; absent: as the server proposes
//   layers    KIND:ID:OPACITY:OPTION=VALUE,...  those that are shown, in masks, cells, tilings, predictions

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

const list = (text) => (text === "" ? [] : text.split(","));

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

/**
 * Read a link's hash.
 * @returns {{tissue: ?string, place: ?{x: number, y: number, zoom: number}, views: Array}} one or two
 *     views {modality, channels, layers}; channels and layers are null where the link is silent.
 */
export function parseLink(hash) {
  const given = new Map();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const cut = part.indexOf("=");
    if (cut > 0) given.set(part.slice(0, cut), part.slice(cut + 1));
  }
  const text = (key) => (given.has(key) ? decode(given.get(key)) : null);
  const items = (key, parse) => (given.has(key) ? list(given.get(key)).map(parse).filter(Boolean) : null);
  const view = (suffix) => ({
    modality: text(`modality${suffix}`),
    channels: items(`channels${suffix}`, parseChannel),
    layers: items(`layers${suffix}`, parseLayer),
  });
  const [x, y, zoom] = ["x", "y", "zoom"].map((key) => number(given.get(key)));
  return {
    tissue: text("tissue"),
    place: x !== null && y !== null && zoom > 0 ? { x, y, zoom } : null,
    views: given.has("modality2") ? [view(""), view("2")] : [view("")],
  };
}

const formatChannel = ({ name, color, low, high }) => `${encode(name)}:${color.replace("#", "")}:${low}:${high}`;

function formatLayer({ kind, id, opacity, options }) {
  const pairs = Object.entries(options ?? {}).map(([key, value]) => `${encode(key)}=${encode(value)}`);
  return [kind, encode(id), String(Number(opacity.toFixed(2))), ...pairs].join(":");
}

/** Write what parseLink reads. */
export function formatLink({ tissue, place, views }) {
  const parts = [];
  const add = (key, value) => value !== null && value !== undefined && parts.push(`${key}=${value}`);
  add("tissue", tissue === null ? null : encode(tissue));
  views.forEach(({ modality, channels, layers }, index) => {
    const suffix = index === 0 ? "" : "2";
    add(`modality${suffix}`, modality === null ? null : encode(modality));
    if (index === 0 && place) {
      add("x", String(Number(place.x.toFixed(2))));
      add("y", String(Number(place.y.toFixed(2))));
      add("zoom", String(Number(place.zoom.toPrecision(6))));
    }
    add(`channels${suffix}`, channels?.map(formatChannel).join(","));
    if (layers?.length) add(`layers${suffix}`, layers.map(formatLayer).join(","));
  });
  return `#${parts.join("&")}`;
}
