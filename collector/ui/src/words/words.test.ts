import { afterEach, expect, test } from "vitest";
import { parseRoute, viewPath } from "../route";
import { causeWords, checkZones, duration, format, kilobytes, language, midnight, midnights, momentOf, percent, roundDuration, timeWords, typeWords, zone, zoneOffset } from ".";
import { en } from "./en";
import { ka } from "./ka";

const NOW = Date.UTC(2025, 10, 23, 12);
const HOUR = 3_600_000;

afterEach(() => {
  language.value = "en";
  zone.value = "Asia/Tbilisi";
});

test("a duration shows its two largest units", () => {
  const shown = [0, 45_000, 192_000, 7_500_000, 273_600_000, -5].map(duration);
  expect(shown).toEqual(["0 s", "45 s", "3 m 12 s", "2 h 05 m", "3 d 04 h", "0 s"]);
  expect([300_000, 5_400_000, 86_400_000].map(roundDuration)).toEqual(["5 m", "1 h 30 m", "1 d"]);
  language.value = "ka";
  expect(duration(192_000)).toBe("3 წთ 12 წმ");
});

test("every text of the page is there in Georgian letters", () => {
  const same = Object.entries(en).filter(([key, text]) => typeof text === "string" && text === (ka as Record<string, unknown>)[key]);
  expect(same.map(([key]) => key)).toEqual(["storeVictoria", "csv"]);
  const groups = Object.entries(en).filter(([, group]) => typeof group === "object");
  for (const [key, group] of groups) {
    const other = (ka as unknown as Record<string, Record<string, string>>)[key] ?? {};
    for (const name of Object.keys(group)) expect(other[name], `${key}.${name}`).toBeTruthy();
  }
});

test("times are those of Tbilisi, whatever the machine's zone is", () => {
  expect(format.clock(NOW)).toBe("16:00:00");
  expect(timeWords(NOW - HOUR, NOW)).toBe("15:00:00");
  expect(timeWords(NOW - 20 * HOUR, NOW)).toBe("22 Nov 20:00");
  language.value = "ka";
  expect(format.full(NOW)).toBe("23 ნოე 2025 16:00:00");
  zone.value = "UTC";
  expect(format.clock(NOW)).toBe("12:00:00");
});

test("days begin at midnight where the zone is, also where clocks were changed", () => {
  expect(midnight(NOW)).toBe(Date.UTC(2025, 10, 22, 20));
  expect(midnights(3, NOW).map((time) => (time - midnight(NOW)) / HOUR)).toEqual([-48, -24, 0, 24]);
  zone.value = "Europe/Berlin";
  expect(midnight(Date.UTC(2025, 9, 26, 12))).toBe(Date.UTC(2025, 9, 25, 22));
  expect(midnight(Date.UTC(2026, 2, 29, 12))).toBe(Date.UTC(2026, 2, 28, 23));
});

test("a time that somebody types is one of the zone in force", () => {
  expect(momentOf("2025-11-23T16:00")).toBe(NOW);
  expect(momentOf("soon")).toBeNaN();
  zone.value = "Europe/Berlin";
  expect(momentOf("2026-03-29T01:30")).toBe(Date.UTC(2026, 2, 29, 0, 30));
  expect(momentOf("2026-03-29T03:30")).toBe(Date.UTC(2026, 2, 29, 1, 30));
  expect(zoneOffset(NOW)).toBe(HOUR);
});

test("the zones that are known by heart are as the tables have them", () => {
  const shown = () => ["Asia/Tbilisi", "UTC"].map((name) => ((zone.value = name), format.full(NOW)));
  const before = shown();
  checkZones(NOW);
  expect(shown()).toEqual(before);
  // In 2004 Tbilisi had another time: where tables say otherwise, they count.
  checkZones(Date.UTC(2004, 10, 23, 12));
  zone.value = "Asia/Tbilisi";
  expect(format.full(Date.UTC(2004, 10, 23, 12))).toBe("23 Nov 2004 15:00:00");
});

test("a hundred percent is only said of what was never down", () => {
  expect([100, 99.9999, 99.9, 0, null].map(percent)).toEqual(["100", "99.99", "99.90", "0.00", "–"]);
});

test("bytes are few digits", () => {
  expect([0, 40, 4_240, 9_949, 9_960, 1_234_567].map(kilobytes)).toEqual(["0", "< 0.1", "4.2", "9.9", "10", "1,235"]);
});

test("types and causes that this page doesn't know are shown as they are called", () => {
  expect(["atm", "access_point", "access-point", "coffee_machine"].map(typeWords)).toEqual(["ATM", "Access point", "Access point", "Coffee machine"]);
  expect(["dns_failure", null, "clock_off"].map(causeWords)).toEqual(["its name does not resolve", "no cause given", "clock off"]);
});

test("an address names a view, a device or a branch, and anything else is the monitor", () => {
  expect(parseRoute("/devices/a%20b", "?range=7d")).toMatchObject({ view: "device", id: "a b" });
  expect(parseRoute("/branches/vake", "")).toMatchObject({ view: "branch", id: "vake" });
  expect(["/", "/fleet", "/nonsense", "/devices"].map((path) => parseRoute(path, "").view)).toEqual(["monitor", "fleet", "monitor", "monitor"]);
  expect([viewPath("monitor"), viewPath("map")]).toEqual(["/", "/map"]);
  expect(parseRoute("/devices/%E0%A4%A", "")).toMatchObject({ view: "device" });
});
