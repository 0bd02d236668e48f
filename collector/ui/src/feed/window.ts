/** Which rows of a long list stand in the window. Pure. */

/** Where each row begins, and where the last one ends. */
export function offsets(heights: readonly number[]): Float64Array {
  const tops = new Float64Array(heights.length + 1);
  for (let i = 0; i < heights.length; i += 1) tops[i + 1] = (tops[i] as number) + (heights[i] as number);
  return tops;
}

/** The first and one past the last row that reach into `from` to `to`. */
export function visible(tops: Float64Array, from: number, to: number): [first: number, end: number] {
  const rows = tops.length - 1;
  if (rows === 0 || to <= 0 || from >= (tops[rows] as number)) return [0, 0];
  return [Math.max(0, lastAtOrBefore(tops, from)), Math.min(rows, lastAtOrBefore(tops, to) + 1)];
}

function lastAtOrBefore(tops: Float64Array, y: number): number {
  let [low, high] = [0, tops.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((tops[middle] as number) <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}
