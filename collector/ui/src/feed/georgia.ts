/**
 * Georgia, drawn by hand: regions as polygons of longitude and latitude, near enough to be recognised on a wall, and
 * where the branches of a region stand in it. The inventory knows no places, so they are spread evenly. Pure.
 */

type Place = readonly [longitude: number, latitude: number];
export type Point = readonly [x: number, y: number];

export const MAP_WIDTH = 780;
export const MAP_HEIGHT = 400;
const [WEST, NORTH, SCALE, SHRINK] = [39.9, 43.68, 152, 0.742];

const RACHA: Place[] = [
  [42.5, 42.55], [42.6, 42.75], [42.85, 42.85], [43, 43.05], [43.25, 42.92], [43.5, 42.85], [43.75, 42.6], [43.6, 42.5], [43.45, 42.42],
  [43.1, 42.45], [42.75, 42.42],
];
const ABKHAZIA: Place[] = [
  [40, 43.38], [40.25, 43.25], [40.6, 43.08], [41, 42.98], [41.45, 42.7], [41.55, 42.4], [41.8, 42.62], [42, 42.75], [42.05, 43], [42, 43.25],
  [41.55, 43.3], [41.1, 43.4], [40.65, 43.55], [40.2, 43.55],
];
/** Land on which the estate has no region. */
export const LAND: Point[][] = [RACHA, ABKHAZIA].map((shape) => shape.map(projected));

const SHAPES: Record<string, Place[]> = {
  samegrelo: [
    [41.55, 42.4], [41.65, 42.15], [41.75, 42.08], [42.05, 42.12], [42.25, 42.15], [42.4, 42.35], [42.5, 42.55], [42.6, 42.75], [42.85, 42.85],
    [43, 43.05], [42.8, 43.17], [42.4, 43.24], [42, 43.25], [42.05, 43], [42, 42.75], [41.8, 42.62],
  ],
  guria: [[41.75, 42.08], [42.05, 42.12], [42.3, 42.02], [42.45, 41.88], [42.2, 41.87], [41.95, 41.9], [41.77, 41.88]],
  achara: [
    [41.77, 41.88], [41.95, 41.9], [42.2, 41.87], [42.45, 41.88], [42.55, 41.7], [42.45, 41.44], [41.95, 41.5], [41.55, 41.52], [41.62, 41.65],
  ],
  imereti: [
    [42.05, 42.12], [42.25, 42.15], [42.4, 42.35], [42.5, 42.55], [42.75, 42.42], [43.1, 42.45], [43.45, 42.42], [43.5, 42.2], [43.5, 42.02],
    [43.2, 41.93], [42.85, 41.9], [42.45, 41.88], [42.3, 42.02],
  ],
  "samtskhe-javakheti": [
    [42.45, 41.88], [42.85, 41.9], [43.2, 41.93], [43.5, 42.02], [43.75, 41.85], [43.85, 41.62], [43.95, 41.4], [44, 41.18], [43.75, 41.11],
    [43.47, 41.12], [43.2, 41.3], [42.83, 41.47], [42.83, 41.58], [42.6, 41.57], [42.45, 41.44], [42.55, 41.7],
  ],
  "shida-kartli": [
    [43.45, 42.42], [43.6, 42.5], [43.75, 42.6], [43.95, 42.55], [44.25, 42.62], [44.3, 42.35], [44.35, 42.1], [44.45, 41.95], [44.2, 41.78],
    [43.75, 41.85], [43.5, 42.02], [43.5, 42.2],
  ],
  "mtskheta-mtianeti": [
    [44.25, 42.62], [44.6, 42.75], [44.9, 42.75], [45, 42.5], [45.1, 42.3], [45.05, 42.1], [45.05, 41.9], [44.95, 41.82], [44.7, 41.83],
    [44.6, 41.75], [44.45, 41.75], [44.2, 41.78], [44.45, 41.95], [44.35, 42.1], [44.3, 42.35],
  ],
  "kvemo-kartli": [
    [43.75, 41.85], [44.2, 41.78], [44.45, 41.75], [44.6, 41.75], [44.68, 41.63], [44.9, 41.62], [45.15, 41.55], [45.05, 41.4], [45, 41.29],
    [44.6, 41.2], [44.3, 41.22], [44, 41.18], [43.95, 41.4], [43.85, 41.62],
  ],
  kakheti: [
    [44.9, 42.75], [45.15, 42.7], [45.35, 42.53], [45.6, 42.5], [45.75, 42.2], [46, 42.05], [46.43, 41.9], [46.3, 41.75], [46.2, 41.6],
    [46.45, 41.4], [46.68, 41.1], [46.5, 41.07], [46.2, 41.18], [45.75, 41.35], [45.35, 41.45], [45.05, 41.4], [45.15, 41.55], [44.9, 41.62],
    [45, 41.7], [44.95, 41.82], [45.05, 41.9], [45.05, 42.1], [45.1, 42.3], [45, 42.5],
  ],
};

const TBILISI: Place[] = [[44.6, 41.75], [44.7, 41.83], [44.95, 41.82], [45, 41.7], [44.9, 41.62], [44.68, 41.63]];
/** The capital has most branches on the least land: it is drawn once where it is, and once larger, beside the country. */
export const CAPITAL: Point[] = TBILISI.map(projected);
const INSET: Point[] = [[575, 28], [650, 4], [772, 8], [776, 92], [716, 128], [596, 118]];

/** Where a region is drawn, by its id in the inventory. */
export const REGIONS: ReadonlyMap<string, Point[]> = new Map([
  ...Object.entries(SHAPES).map(([id, shape]) => [id, shape.map(projected)] as const),
  ["tbilisi", INSET] as const,
]);

function projected([longitude, latitude]: Place): Point {
  return [(longitude - WEST) * SHRINK * SCALE, (NORTH - latitude) * SCALE];
}

/** Inventories write regions in their own ways: `Kvemo Kartli`, `kvemo_kartli`. */
export function regionKey(id: string): string {
  return id.toLowerCase().replaceAll(/[\s_]+/g, "-");
}

export function isInside([x, y]: Point, shape: readonly Point[]): boolean {
  let inside = false;
  for (let at = 0; at < shape.length; at += 1) {
    const [ax, ay] = shape[at] as Point;
    const [bx, by] = shape[(at + 1) % shape.length] as Point;
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

function edgeDistance([x, y]: Point, shape: readonly Point[]): number {
  let least = Infinity;
  for (let at = 0; at < shape.length; at += 1) {
    const [ax, ay] = shape[at] as Point;
    const [bx, by] = shape[(at + 1) % shape.length] as Point;
    const [dx, dy] = [bx - ax, by - ay];
    const along = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)));
    least = Math.min(least, Math.hypot(x - ax - along * dx, y - ay - along * dy));
  }
  return least;
}

export function centre(shape: readonly Point[]): Point {
  // Where a label has most room: the point furthest from any edge, of a coarse grid.
  let best: Point = shape[0] ?? [0, 0];
  let most = -1;
  for (const point of gridIn(shape, 8)) {
    const distance = edgeDistance(point, shape);
    if (distance > most) [best, most] = [point, distance];
  }
  return best;
}

function gridIn(shape: readonly Point[], spacing: number): Point[] {
  const xs = shape.map(([x]) => x);
  const ys = shape.map(([, y]) => y);
  const points: Point[] = [];
  let row = 0;
  for (let y = Math.min(...ys) + spacing / 2; y < Math.max(...ys); y += spacing * 0.87) {
    for (let x = Math.min(...xs) + spacing * (row % 2 === 0 ? 0.5 : 1); x < Math.max(...xs); x += spacing) {
      if (isInside([x, y], shape)) points.push([x, y]);
    }
    row += 1;
  }
  return points;
}

/** Widest and narrowest distance between two branches, in units of the map. */
const [WIDEST, NARROWEST] = [40, 1];

/** Half the width and height of a label, which no branch may cover. */
const LABEL = [45, 12] as const;

function isUnder(label: Point | null, [x, y]: Point): boolean {
  return label !== null && Math.abs(x - label[0]) < LABEL[0] && Math.abs(y + 4 - label[1]) < LABEL[1];
}

/** Places for `number` branches within a shape, evenly and beside its label, and how far apart they are. */
export function spread(shape: readonly Point[], number: number, label: Point | null = null): { points: Point[]; spacing: number } {
  for (let spacing = WIDEST; spacing >= NARROWEST; spacing *= 0.93) {
    const points = gridIn(shape, spacing).filter((point) => edgeDistance(point, shape) > spacing * 0.4 && !isUnder(label, point));
    if (points.length >= number) return { points: points.slice(0, number), spacing };
  }
  const points = gridIn(shape, NARROWEST);
  return { points: Array.from({ length: number }, (_, at) => points[at % points.length] ?? [0, 0]), spacing: NARROWEST };
}

const [SMALLEST, LARGEST] = [2.2, 11];

/**
 * Radii of branches whose areas are as their numbers of devices, on one scale for the whole country: as large as they may be where it is
 * closest. While there is room, nothing is too small to be seen.
 */
export function radii(branches: readonly { devices: number; widest: number }[]): number[] {
  const most = branches.reduce((sofar, { devices }) => Math.max(sofar, devices), 1);
  const scale = branches.reduce((sofar, { devices, widest }) => (devices > 0 ? Math.min(sofar, widest / Math.sqrt(devices)) : sofar), LARGEST / Math.sqrt(most));
  return branches.map(({ devices, widest }) => Math.max(Math.min(SMALLEST, widest), scale * Math.sqrt(devices)));
}
