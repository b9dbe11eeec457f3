// Affine maps of the plane, [[a, b, c], [d, e, f]]: (x, y) goes to (ax + by + c, dx + ey + f).

export function apply(map, [x, y]) {
  const [[a, b, c], [d, e, f]] = map;
  return [a * x + b * y + c, d * x + e * y + f];
}

const determinant = ([[a, b], [d, e]]) => a * e - b * d;

export function inverse(map) {
  const [[a, b, c], [d, e, f]] = map;
  const det = determinant(map);
  return [
    [e / det, -b / det, (b * f - c * e) / det],
    [-d / det, a / det, (c * d - a * f) / det],
  ];
}

/** How much longer a line becomes: the mean over both axes. */
export const scaleOf = (map) => Math.sqrt(Math.abs(determinant(map)));

/** Whether left and right change places. */
export const isMirror = (map) => determinant(map) < 0;

/** Degrees by which the x axis is turned. */
export const angleOf = ([[a], [d]]) => (Math.atan2(d, a) * 180) / Math.PI;
