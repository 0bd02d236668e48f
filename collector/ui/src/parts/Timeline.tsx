/** A bar of statuses over time, and the times under it. */
import type { Interval } from "../api/types";
import { statusOf } from "../feed/board";
import { clipped, ticks } from "../feed/history";
import { format, roundDuration, t, zoneOffset } from "../words";
import { statusWords } from "./bits";

const WIDTH = 1000;
/** What is down is drawn last and never thinner than this: a short outage must not vanish between two pixels. */
const THINNEST = 1.5;
const ORDER = { unknown: 0, up: 1, down: 2 };

interface Props {
  intervals: Interval[];
  from: number;
  to: number;
  label: string;
}

export function Timeline({ intervals, from, to, label }: Props) {
  const bars = clipped(intervals, from, to).sort((a, b) => ORDER[statusOf(a)] - ORDER[statusOf(b)]);
  const down = bars.filter((bar) => statusOf(bar) === "down").reduce((sum, bar) => sum + bar.to_ms - bar.from_ms, 0);
  return (
    <Lane label={`${label}: ${t().status.down} ${roundDuration(down)}`} from={from} to={to} bars={bars.map((bar) => ({
      from_ms: bar.from_ms, to_ms: bar.to_ms, kind: statusOf(bar), words: `${statusWords(bar)}, ${format.full(bar.from_ms)} – ${format.full(bar.to_ms)}`,
    }))} />
  );
}

interface LaneProps {
  /** In the order in which they are drawn. */
  bars: { from_ms: number; to_ms: number; kind: "up" | "down" | "unknown" | "cut"; words: string }[];
  from: number;
  to: number;
  label: string;
}

/** Bars over a time, each with its words. */
export function Lane({ bars, from, to, label }: LaneProps) {
  const x = (time: number) => ((time - from) / (to - from)) * WIDTH;
  return (
    <svg class="timeline" viewBox={`0 0 ${WIDTH} 10`} preserveAspectRatio="none" role="img" aria-label={label}>
      {bars.map(({ from_ms, to_ms, kind, words }) => (
        <rect key={from_ms} class={`bar ${kind}`} x={x(from_ms)} y={0} width={Math.max(THINNEST, x(to_ms) - x(from_ms))} height={10}>
          <title>{words}</title>
        </rect>
      ))}
    </svg>
  );
}

/** Times of an axis, and their words: dates where a clock would say nothing. */
export function axisTicks(from: number, to: number, most: number): { time: number; words: string }[] {
  const isLong = to - from > DATES_FROM_MS;
  return ticks(from, to, most, isLong, zoneOffset).map((time) => ({ time, words: isLong ? format.day(time) : format.minute(time) }));
}

/** A range longer than this has dates on its axis. */
const DATES_FROM_MS = 2 * 86_400_000;

export function TimeAxis({ from, to }: { from: number; to: number }) {
  const shown = axisTicks(from, to, 8).map(({ time, words }) => ({ words, at: ((time - from) / (to - from)) * 100 }));
  return <div class="axis" aria-hidden="true">{shown.map(({ words, at }) => at > 3 && at < 97 && <span key={at} style={{ left: `${at}%` }}>{words}</span>)}</div>;
}
