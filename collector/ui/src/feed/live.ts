/** How a device that is looked at has answered in the last two minutes. Pure. */
import type { Watched } from "../api/types";

/** How often a device is asked for again; the server forgets it after 30 s. */
const WATCH_EVERY_MS = 10_000;
/** What the live line shows. */
export const LIVE_SPAN_MS = 120_000;
/** What "the last seconds" are. */
export const LIVE_RECENT_MS = 10_000;
/** An agent tells every 2 s, or with each probe where those are rarer. Of what lies further apart, the between is not known. */
export const LIVE_STEP_MS = 4_000;

export interface LivePoint {
  t_ms: number;
  span_ms: number;
  sent: number;
  lost: number;
  rtt_avg_ms: number | null;
  rtt_min_ms: number | null;
  rtt_max_ms: number | null;
}

export class LiveQuality {
  points: LivePoint[] = [];
  /** What the server says is wrong with asking. */
  problem = "";
  #askedAt: number | null = null;
  readonly #since: number;

  constructor(now: number) {
    this.#since = now;
  }

  /** Whether it is time to ask for the device again; `now` is any clock that only goes forward. */
  isDue(now: number): boolean {
    return this.#askedAt === null || now - this.#askedAt >= WATCH_EVERY_MS;
  }

  asked(now: number): void {
    this.#askedAt = now;
  }

  /** The next chance to ask is to be taken: the connection is new, or the page is looked at again. */
  forgetAsking(): void {
    this.#askedAt = null;
  }

  add(told: Watched, now: number): void {
    this.problem = "";
    const last = this.points.at(-1);
    // The server's clock was set back: what was drawn would lie in the future.
    if (last && now < last.t_ms) this.points = [];
    const { span_ms, sent, lost, rtt_ms, rtt_min_ms, rtt_max_ms } = told;
    this.points.push({ t_ms: now, span_ms, sent, lost, rtt_avg_ms: rtt_ms, rtt_min_ms, rtt_max_ms });
    this.points = this.points.filter((point) => now - point.t_ms <= LIVE_SPAN_MS);
  }

  /** The newest round trip and the loss of the last seconds; `silent_ms` is how long nothing has come. */
  recent(now: number): { rtt_ms: number | null; sent: number; lost: number; silent_ms: number } {
    const points = this.points.filter((point) => now - point.t_ms <= LIVE_RECENT_MS);
    const rtt_ms = points.findLast((point) => point.rtt_avg_ms !== null)?.rtt_avg_ms ?? null;
    const sent = points.reduce((sum, point) => sum + point.sent, 0);
    const lost = points.reduce((sum, point) => sum + point.lost, 0);
    return { rtt_ms, sent, lost, silent_ms: now - (this.points.at(-1)?.t_ms ?? this.#since) };
  }
}

/** Runs of points without a missing step: a line drawn across a gap would claim what nobody measured. */
export function runs<P extends { t_ms: number; rtt_avg_ms: number | null }>(points: P[], stepMs: number): P[][] {
  const result: P[][] = [];
  let previous: P | null = null;
  for (const point of points) {
    if (point.rtt_avg_ms === null) {
      previous = null;
      continue;
    }
    const run = result.at(-1);
    if (run && previous && point.t_ms - previous.t_ms < stepMs * 1.5) run.push(point);
    else result.push([point]);
    previous = point;
  }
  return result;
}
