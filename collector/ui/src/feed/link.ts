/** The one socket: kept open, and opened anew for what was missed, or for a snapshot where what is shown may be wrong. */
import type { Message, Watch } from "../api/types";
import type { Effect } from "./board";
import type {} from "./early";
import { LOST_AFTER_MS, SNAPSHOT_LIMIT_MS, retryDelay } from "./clock";

/** A connection that held this long was a good one: the next retry starts from the shortest wait. */
const GOOD_CONNECTION_MS = 10_000;

export interface Listener {
  take(message: Message, local: number): Effect;
  /** `EPOCH.SEQ` of the last message that counts, or null where there is none. */
  known(): string | null;
  live(): void;
  lost(reason: Reason): void;
  /** The handshake was refused: perhaps nobody is signed in any more. */
  refused(): void;
}

/** Why a connection was given up: one of ours, or the server's own words. */
export type Reason = "" | "unreadable" | "missed" | { said: string };

export class Link {
  readonly #listener: Listener;
  #socket: WebSocket | null = null;
  #retry: ReturnType<typeof setTimeout> | null = null;
  #attempt = 0;
  #heardAt = 0;
  #isOpen = false;
  /** What is shown is right but for what came since: no snapshot is needed. */
  #isSound = true;
  #liveSince: number | null = null;
  #watchedAt = { local: local(), wall: Date.now() };

  constructor(listener: Listener) {
    this.#listener = listener;
  }

  connect(): void {
    this.#retry = null;
    this.#heardAt = local();
    this.#isOpen = false;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const known = this.#isSound ? this.#listener.known() : null;
    const resume = known === null ? "" : `?resume=${encodeURIComponent(known)}`;
    const early = globalThis.wardEarly;
    globalThis.wardEarly = null;
    const socket = early?.socket ?? new WebSocket(`${scheme}//${location.host}/ws/updates${resume}`);
    let opened = false;
    const open = () => {
      opened = true;
      if (socket !== this.#socket) return;
      this.#isOpen = true;
      this.#heardAt = local();
    };
    socket.onopen = open;
    socket.onmessage = (event) => socket === this.#socket && this.#hear(String(event.data));
    const close = () => {
      if (socket !== this.#socket) return;
      // A refused handshake doesn't tell a script its HTTP status, so the API is asked instead.
      if (!opened) this.#listener.refused();
      this.#lose("");
    };
    socket.onclose = close;
    this.#socket = socket;
    if (!early) return;
    if (socket.readyState === WebSocket.OPEN) open();
    for (const text of early.heard) if (socket === this.#socket) this.#hear(text);
    if (socket.readyState >= WebSocket.CLOSING) close();
  }

  retryNow(): void {
    if (this.#retry === null) return;
    clearTimeout(this.#retry);
    this.connect();
  }

  /** The network is gone: what is connected is dead, long before its silence would tell. */
  offline(): void {
    if (this.#retry === null) this.#lose("");
  }

  /** Says something to the server; false while there is nobody to say it to. */
  say(message: Watch): boolean {
    if (this.#liveSince === null || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Finds a connection that died without a word. */
  watch(): void {
    const now = { local: local(), wall: Date.now() };
    const wallAhead = now.wall - this.#watchedAt.wall - (now.local - this.#watchedAt.local);
    this.#watchedAt = now;
    if (this.#retry !== null) return;
    // The monotonic clock may stand still while a laptop sleeps; the wall clock then jumps.
    const slept = wallAhead > LOST_AFTER_MS;
    // One that brings its picture is silent for as long as that takes. One that has brought it says something every 5 s.
    const limit = this.#isOpen && this.#liveSince === null ? SNAPSHOT_LIMIT_MS : LOST_AFTER_MS;
    if (slept || now.local - this.#heardAt > limit) this.#lose("");
  }

  #hear(text: string): void {
    const at = local();
    this.#heardAt = at;
    const message = parsed(text);
    if (message === null) return this.#lose("unreadable");
    const outcome = this.#listener.take(message, at);
    if (outcome.effect === "gap") return this.#lose("missed");
    if (outcome.effect === "closing") return this.#lose({ said: outcome.reason });
    // After what was missed comes a heartbeat: what is shown is the newest only then.
    if (message.type === "snapshot" || (message.type === "heartbeat" && this.#liveSince === null)) {
      this.#isSound = true;
      this.#liveSince = at;
      this.#listener.live();
    }
  }

  #lose(reason: Reason): void {
    const held = this.#liveSince === null ? 0 : local() - this.#liveSince;
    this.#attempt = held > GOOD_CONNECTION_MS ? 0 : this.#attempt + 1;
    this.#liveSince = null;
    this.#isSound &&= reason !== "missed" && reason !== "unreadable";
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#listener.lost(reason);
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), retryDelay(Math.max(0, this.#attempt - 1), Math.random()));
  }
}

function local(): number {
  return performance.now();
}

function parsed(text: string): Message | null {
  try {
    const message: unknown = JSON.parse(text);
    return typeof message === "object" && message !== null && "type" in message ? (message as Message) : null;
  } catch {
    return null;
  }
}
