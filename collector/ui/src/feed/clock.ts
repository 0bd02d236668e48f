/** Clocks and waits of the connection. Pure: whatever needs the time is given it. */

/** The server sends a heartbeat every 5 s: two missed and a bit means that nobody is there. */
export const LOST_AFTER_MS = 12_000;
/** A first snapshot is one message, of which a browser tells nothing until it is whole; the server gives a slow line 60 s for it. */
export const SNAPSHOT_LIMIT_MS = 65_000;
/** Clock readings that differ by more than this are a step or a sleep, not the network's delay. */
const CLOCK_STEP_MS = 2_000;
const RETRY_FIRST_MS = 1_000;
const RETRY_LIMIT_MS = 10_000;

/**
 * The server's clock as seen from here. Fed with the server's `now` and the reading of a local monotonic clock at which
 * it arrived, so that a browser hours off still counts correctly.
 */
export class Clock {
  #offset: number | null = null;

  observe(serverNow: number, local: number): void {
    const offset = serverNow - local;
    const stepped = this.#offset === null || Math.abs(offset - this.#offset) > CLOCK_STEP_MS;
    // Delay on the way only ever makes the offset smaller, so the largest is the closest.
    this.#offset = stepped ? offset : Math.max(offset, this.#offset as number);
  }

  /** The server's time, or null before it was ever heard. */
  now(local: number): number | null {
    return this.#offset === null ? null : local + this.#offset;
  }
}

/** A moment by both clocks of a browser. */
export interface Reading {
  local: number;
  wall: number;
}

/** The monotonic clock may stand still while a laptop sleeps, and the wall clock may be set back: the larger is nearer. */
export function elapsed(from: Reading, to: Reading): number {
  return Math.max(to.local - from.local, to.wall - from.wall);
}

/** Time to wait before the n-th retry (from 0); `random` is in [0, 1). Pages must not return in step. */
export function retryDelay(attempt: number, random: number): number {
  const limit = Math.min(RETRY_LIMIT_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt, 10));
  return limit / 2 + (limit / 2) * random;
}
