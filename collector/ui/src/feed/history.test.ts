import { expect, test } from "vitest";
import type { Interval, Watched } from "../api/types";
import { Clock, elapsed, retryDelay } from "./clock";
import { NOW } from "./estate";
import { clipped, columns, days, roundCeiling, ticks } from "./history";
import { LIVE_SPAN_MS, LIVE_STEP_MS, LiveQuality, runs } from "./live";
import { offsets, visible } from "./window";

const interval = (status: string, from_ms: number, to_ms: number): Interval => ({ status: status as Interval["status"], cause: null, from_ms, to_ms });

test("intervals are cut to the range and an open one ends with it", () => {
  const intervals = [{ from_ms: -50, to_ms: 10 }, { from_ms: 10, to_ms: null }, { from_ms: -90, to_ms: -50 }];
  expect(clipped(intervals, 0, 100).map((i) => [i.from_ms, i.to_ms])).toEqual([[0, 10], [10, 100]]);
});

test("a day divides into up, down and unknown, and what nobody saw has no availability", () => {
  const intervals = [interval("unknown", 0, 150), interval("up", 150, 290), interval("down", 290, 310), interval("up", 310, 330)];
  const [first, second, third, fourth] = days(intervals, [0, 100, 200, 300, 400]);
  expect(first?.availability).toBeNull();
  expect(second).toMatchObject({ unknown_ms: 50, up_ms: 50, availability: 1 });
  expect(third).toMatchObject({ up_ms: 90, down_ms: 10, availability: 0.9 });
  expect(fourth).toMatchObject({ up_ms: 20, down_ms: 10, unknown_ms: 0 });
});

test("an interval of many days counts in each of them", () => {
  expect(days([interval("down", 0, 300)], [0, 100, 200, 300]).map((day) => day.down_ms)).toEqual([100, 100, 100]);
});

test("a step without a point is a hole in the chart", () => {
  const point = (t_ms: number) => ({ t_ms, rtt_min_ms: 1, rtt_avg_ms: 2, rtt_max_ms: 3, packet_loss: 0 });
  const { times, avg } = columns([point(0), point(60_000), point(180_000)], 0, 240_000, 60_000);
  expect(times).toEqual([30, 90, 150, 210]);
  expect(avg).toEqual([2, 2, null, 2]);
});

test("an axis ends at a round number", () => {
  expect([0, 0.7, 1, 11, 42, 55, 101].map(roundCeiling)).toEqual([1, 0.8, 1, 15, 50, 60, 150]);
});

test("a missing step and one without any reply split the line", () => {
  const points = [0, 60, 120, 240, 300].map((t_ms) => ({ t_ms, rtt_avg_ms: 1 as number | null }));
  expect(runs(points, 60).map((run) => run.map((p) => p.t_ms))).toEqual([[0, 60, 120], [240, 300]]);
  const silent = [0, 60, 120].map((t_ms) => ({ t_ms, rtt_avg_ms: t_ms === 60 ? null : 1 }));
  expect(runs(silent, 60).map((run) => run.length)).toEqual([1, 1]);
});

function measured(rtt: number | null): Watched {
  return { id: "a", span_ms: 2_000, sent: 1, lost: rtt === null ? 1 : 0, rtt_ms: rtt, rtt_min_ms: rtt, rtt_max_ms: rtt };
}

/** `r` a reply, `.` a lost probe, `-` nothing, 2 s apart. */
function liveOf(text: string): LiveQuality {
  const live = new LiveQuality(NOW);
  text.split(" ").forEach((word, at) => word !== "-" && live.add(measured(word === "r" ? at + 1 : null), NOW + 2_000 * (at + 1)));
  return live;
}

test("a device that is looked at is asked for at once, every 10 s, and anew on a new connection", () => {
  const live = new LiveQuality(NOW);
  expect(live.isDue(0)).toBe(true);
  live.asked(0);
  expect([1, 9_999, 10_000].map((now) => live.isDue(now))).toEqual([false, false, true]);
  live.forgetAsking();
  expect(live.isDue(1)).toBe(true);
});

test("the live line tells the newest round trip and what the last ten seconds lost", () => {
  const live = liveOf("r r . r");
  expect(live.recent(NOW + 8_000)).toMatchObject({ rtt_ms: 4, sent: 4, lost: 1, silent_ms: 0 });
  expect(live.recent(NOW + 17_000)).toMatchObject({ rtt_ms: 4, sent: 1, lost: 0 });
  expect(liveOf(". .").recent(NOW + 4_000)).toMatchObject({ rtt_ms: null, sent: 2, lost: 2 });
});

test("the live line goes back two minutes, and a clock that was set back begins it anew", () => {
  const live = liveOf("r r r");
  live.add(measured(9), NOW + 6_000 + LIVE_SPAN_MS);
  expect(live.points.map((point) => point.rtt_avg_ms)).toEqual([3, 9]);
  live.add(measured(5), NOW);
  expect(live.points.map((point) => point.rtt_avg_ms)).toEqual([5]);
});

test("a live line breaks where a probe was lost and where nothing was measured", () => {
  const lengths = (text: string) => runs(liveOf(text).points, LIVE_STEP_MS).map((run) => run.length);
  expect(lengths("r r . r")).toEqual([2, 1]);
  expect(lengths("r r - r")).toEqual([3]);
  expect(lengths("r r - - r")).toEqual([2, 1]);
});

test("the clock follows the server whatever the browser's clock says, and delay doesn't set it back", () => {
  const clock = new Clock();
  expect(clock.now(0)).toBeNull();
  clock.observe(NOW, 1_000);
  expect(clock.now(4_000)).toBe(NOW + 3_000);
  clock.observe(NOW + 10_000, 11_400);
  expect(clock.now(11_400)).toBe(NOW + 10_400);
});

test("a step of the server's clock is followed", () => {
  const clock = new Clock();
  clock.observe(NOW, 0);
  clock.observe(NOW - 7_200_000, 1_000);
  expect(clock.now(1_000)).toBe(NOW - 7_200_000);
});

test("retries wait from half a second to ten, never all pages together", () => {
  expect(retryDelay(0, 0)).toBe(500);
  expect(retryDelay(0, 0.99)).toBeLessThan(1_000);
  expect(retryDelay(3, 0)).toBe(4_000);
  expect(retryDelay(1_000, 1)).toBe(10_000);
});

test("only rows that reach into the window exist", () => {
  const tops = offsets([10, 20, 30, 40]);
  expect(visible(tops, 0, 100)).toEqual([0, 4]);
  expect(visible(tops, 10, 29)).toEqual([1, 2]);
  expect(visible(tops, -500, -1)).toEqual([0, 0]);
  expect(visible(tops, 100, 200)).toEqual([0, 0]);
  expect(visible(offsets([]), 0, 100)).toEqual([0, 0]);
  const many = offsets(Array.from({ length: 10_000 }, () => 20));
  expect(visible(many, 100_000, 100_800)).toEqual([5_000, 5_041]);
});

test("after a laptop's sleep the age of what is shown counts the sleep, and a clock that is set back takes nothing off", () => {
  expect(elapsed({ local: 100, wall: 1_000 }, { local: 5_100, wall: 8 * 3_600_000 + 6_000 })).toBe(8 * 3_600_000 + 5_000);
  expect(elapsed({ local: 100, wall: 9_000 }, { local: 5_100, wall: 2_000 })).toBe(5_000);
});

test("an axis has the zone's own round times, and no date twice", () => {
  const [hour, day] = [3_600_000, 86_400_000];
  const midnight = Date.UTC(2026, 10, 23, 20);
  const tbilisi = () => 4 * hour;
  expect(ticks(midnight - hour, midnight + 23 * hour, 8, false, tbilisi)).toEqual([0, 3, 6, 9, 12, 15, 18, 21].map((at) => midnight + at * hour));
  expect(ticks(midnight + hour, midnight + 7 * day + hour, 14, true, tbilisi)).toEqual([1, 2, 3, 4, 5, 6, 7].map((at) => midnight + at * day));
  // Clocks go back by an hour on the third day: its successors begin an hour later by UTC.
  const berlin = (time: number) => (time < midnight + 2 * day ? 2 : 1) * hour;
  const days = ticks(Date.UTC(2026, 10, 22, 22), Date.UTC(2026, 10, 28, 23), 8, true, berlin);
  expect(days.map((time) => (time + berlin(time)) % day)).toEqual(days.map(() => 0));
  expect(new Set(days).size).toBe(days.length);
});
