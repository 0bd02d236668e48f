import { expect, test } from "vitest";
import { MAP_HEIGHT, MAP_WIDTH, REGIONS, centre, isInside, radii, regionKey, spread } from "./georgia";

test("every region of the estate is on the map, and the map holds it", () => {
  const ids = ["tbilisi", "imereti", "samegrelo", "kakheti", "achara", "kvemo-kartli", "samtskhe-javakheti", "shida-kartli", "mtskheta-mtianeti", "guria"];
  expect([...REGIONS.keys()].sort()).toEqual(ids.sort());
  for (const [id, shape] of REGIONS) {
    for (const [x, y] of shape) expect(x >= 0 && x <= MAP_WIDTH && y >= 0 && y <= MAP_HEIGHT, id).toBe(true);
    expect(isInside(centre(shape), shape), id).toBe(true);
  }
});

test("branches stand within their region, each in a place of its own, however many", () => {
  for (const [id, shape] of REGIONS) {
    for (const number of [1, 3, 55, 600]) {
      const { points, spacing } = spread(shape, number);
      expect(points.length, id).toBe(number);
      expect(points.every((point) => isInside(point, shape)), id).toBe(true);
      expect(new Set(points.map(([x, y]) => `${x} ${y}`)).size, `${id} ${number} ${spacing}`).toBe(number);
    }
  }
});

test("regions don't overlap", () => {
  for (const [id, shape] of REGIONS) {
    for (const [other, otherShape] of REGIONS) {
      if (id !== other) expect(spread(shape, 40).points.some((point) => isInside(point, otherShape)), `${id} ${other}`).toBe(false);
    }
  }
});

test("a region is found however the inventory writes it", () => {
  expect(["Kvemo Kartli", "kvemo_kartli", "kvemo-kartli"].map(regionKey)).toEqual(Array(3).fill("kvemo-kartli"));
});

test("branches of as many devices are as large wherever they stand, and none reaches into another", () => {
  const sizes = radii([{ devices: 8, widest: 20 }, { devices: 8, widest: 6 }, { devices: 32, widest: 14 }, { devices: 1, widest: 20 }, { devices: 0, widest: 1 }]);
  expect(sizes.map((size) => Number(size.toFixed(2)))).toEqual([5.5, 5.5, 11, 2.2, 1]);
  expect(radii([{ devices: 8, widest: 20 }, { devices: 8, widest: 3 }])).toEqual([3, 3]);
});
