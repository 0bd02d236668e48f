/** What a device was: intervals, days, and points by steps with their gaps. Pure. */
import type { Interval, Point } from "../api/types";
import { statusOf } from "./board";

export interface Bounds {
  from_ms: number;
  to_ms: number;
}

/** The parts of the intervals that lie within the bounds. */
export function clipped<I extends { from_ms: number; to_ms: number | null }>(intervals: I[], from: number, to: number): (I & Bounds)[] {
  return intervals
    .map((interval) => ({ ...interval, from_ms: Math.max(interval.from_ms, from), to_ms: Math.min(interval.to_ms ?? to, to) }))
    .filter((interval) => interval.to_ms > interval.from_ms);
}

export interface Day extends Bounds {
  up_ms: number;
  down_ms: number;
  unknown_ms: number;
  /** Up over up and down, from 0 to 1; null if nobody saw anything. */
  availability: number | null;
}

/** Days of a time zone, whose midnights are given, each with what the intervals say of it. */
export function days(intervals: Interval[], midnights: number[]): Day[] {
  const result: Day[] = [];
  let at = 0;
  for (let i = 0; i + 1 < midnights.length; i += 1) {
    const [from_ms, to_ms] = [midnights[i] as number, midnights[i + 1] as number];
    const sums = { up: 0, down: 0, unknown: 0 };
    while (at > 0 && (intervals[at - 1] as Interval).to_ms > from_ms) at -= 1;
    for (; at < intervals.length; at += 1) {
      const interval = intervals[at] as Interval;
      if (interval.from_ms >= to_ms) break;
      const overlap = Math.min(interval.to_ms, to_ms) - Math.max(interval.from_ms, from_ms);
      if (overlap > 0) sums[statusOf(interval)] += overlap;
    }
    const seen = sums.up + sums.down;
    const availability = seen > 0 ? sums.up / seen : null;
    result.push({ from_ms, to_ms, up_ms: sums.up, down_ms: sums.down, unknown_ms: sums.unknown, availability });
  }
  return result;
}

/** Columns for a chart: a step without a point is a hole, so that nothing is drawn where nobody measured. */
export interface Columns {
  times: number[];
  min: (number | null)[];
  avg: (number | null)[];
  max: (number | null)[];
  loss: (number | null)[];
}

export function columns(points: Point[], from: number, to: number, stepMs: number): Columns {
  const columns: Columns = { times: [], min: [], avg: [], max: [], loss: [] };
  const put = (time: number, point: Point | null) => {
    // Charts count in seconds.
    columns.times.push(time / 1000);
    columns.min.push(point?.rtt_min_ms ?? null);
    columns.avg.push(point?.rtt_avg_ms ?? null);
    columns.max.push(point?.rtt_max_ms ?? null);
    columns.loss.push(point?.packet_loss ?? null);
  };
  const first = Math.floor(from / stepMs) * stepMs;
  let at = 0;
  for (let time = first; time < to; time += stepMs) {
    while (at < points.length && (points[at] as Point).t_ms < time) at += 1;
    const point = points[at];
    put(time + stepMs / 2, point && point.t_ms === time ? point : null);
  }
  return columns;
}

/** The widest round trip that is still told apart on a chart: one spike must not flatten all else. */
export function span(values: (number | null)[]): number {
  let most = 0;
  for (const value of values) if (value !== null && value > most) most = value;
  return roundCeiling(most);
}

/** The next round number, for the top of an axis. */
export function roundCeiling(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((ceiling) => ceiling >= value * 0.9999) ?? value;
}

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1_440;
const STEPS_MS = [1, 5, 10, 15, 30, 60, 120, 180, 360, 720, ...[1, 2, 5, 10, 30, 61].map((days) => days * DAY_MINUTES)].map((minutes) => minutes * MINUTE_MS);

/**
 * Round times of a range, at most `most` of them. `offset` is by how much a zone's clocks are ahead of UTC: hours are round there, and a
 * day begins at its midnight. With `byDay` no day has two.
 */
export function ticks(from: number, to: number, most: number, byDay: boolean, offset: (time: number) => number): number[] {
  const fitting = STEPS_MS.filter((step) => !byDay || step >= DAY_MINUTES * MINUTE_MS);
  const step = fitting.find((candidate) => (to - from) / candidate <= most) ?? (STEPS_MS.at(-1) as number);
  const result: number[] = [];
  for (let there = Math.ceil((from + offset(from)) / step) * step; ; there += step) {
    // Where clocks are changed the offset after that counts.
    const near = there - offset(there - offset(from));
    const time = there - offset(near);
    if (time >= to) return result;
    if (time >= from) result.push(time);
  }
}
