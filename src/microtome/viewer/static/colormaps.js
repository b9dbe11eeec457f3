// The colour maps that the server paints predictions with, in nine stops: enough for a legend and for
// the colours of tiles.

const STOPS = {
  viridis: "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
  magma: "000004 1d1147 51127c 832681 b73779 e75263 fc8961 fec488 fcfdbf",
  inferno: "000004 210c4a 57106e 8a226a bc3754 e45a31 f98e09 f9cb35 fcffa4",
  plasma: "0d0887 4c02a1 7e03a8 aa2395 cc4778 e66c5c f89540 fdc527 f0f921",
  cividis: "00224e 1a386f 434e6c 61656f 7d7c78 9b9476 bcae6c dec958 fee838",
  gray: "000000 202020 404040 606060 808080 a0a0a0 c0c0c0 e0e0e0 ffffff",
};

// Of tilings, in the order of a picture's list. With the server's colour of masks they are told apart
// with any colour vision; a test simulates it.
const TILINGS = ["#ffd23f", "#d9480f", "#d0409c"];

export const tilingColour = (index) => TILINGS[index % TILINGS.length];

export const MAPS = Object.keys(STOPS);

const FADE = 1.6; // As `_colours.py` has it.

const parsed = Object.fromEntries(
  Object.entries(STOPS).map(([name, stops]) => [name, stops.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)))]),
);

/** The colour of a fraction, 0 to 1, as CSS. */
export function colourAt(name, fraction) {
  const stops = parsed[name];
  const place = Math.min(1, Math.max(0, fraction)) * (stops.length - 1);
  const index = Math.min(stops.length - 2, Math.floor(place));
  const part = place - index;
  const [r, g, b] = stops[index].map((value, axis) => Math.round(value + part * (stops[index + 1][axis] - value)));
  return `rgb(${r} ${g} ${b})`;
}

/** The whole map from left to right, as CSS; `faded`: clear at its low end, as the server paints it. */
export function gradient(name, faded = false) {
  const last = parsed[name].length - 1;
  const stop = (rgb, index) => `rgb(${rgb.join(" ")} / ${faded ? Math.min(1, (index / last) * FADE) : 1})`;
  return `linear-gradient(to right, ${parsed[name].map(stop).join(", ")})`;
}
