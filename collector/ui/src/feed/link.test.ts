import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Board } from "./board";
import { delta, snapshot } from "./estate";
import { Link, type Reason } from "./link";

/** Sockets that the link has opened, the newest last. */
let sockets: Socket[] = [];

class Socket {
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  readyState = 1;
  onopen = () => undefined as unknown;
  onmessage = (_: { data: string }) => undefined as unknown;
  onclose = () => undefined as unknown;
  readonly path: string;
  constructor(address: string) {
    this.path = address.replace("ws://here", "");
    sockets.push(this);
  }
  send(): void {}
  close(): void {}
}

beforeEach(() => {
  vi.stubGlobal("wardEarly", null);
  vi.useFakeTimers();
  sockets = [];
  vi.stubGlobal("WebSocket", Socket);
  vi.stubGlobal("location", { protocol: "http:", host: "here" });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A link with its board, looked at once a second; `said` is what became of it. */
function linked(): { said: string[]; link: Link; newest: () => Socket; hear: (message: object) => void } {
  const board = new Board();
  const said: string[] = [];
  const link = new Link({
    take: (message) => board.apply(message),
    known: () => (board.epoch === null ? null : `${board.epoch}.${board.seq}`),
    live: () => said.push("live"),
    lost: (reason: Reason) => said.push(`lost ${typeof reason === "object" ? reason.said : reason}`.trim()),
    refused: () => said.push("refused"),
  });
  link.connect();
  setInterval(() => link.watch(), 1_000);
  const newest = () => sockets.at(-1) as Socket;
  return { said, link, newest, hear: (message) => newest().onmessage({ data: JSON.stringify(message) }) };
}

function after(ms: number): void {
  vi.advanceTimersByTime(ms);
}

const HEARTBEAT = { type: "heartbeat", epoch: "e", seq: 1, now: 0 };

test("a first snapshot may take a minute, and a connection that has brought it 12 s", () => {
  const { said, newest, hear } = linked();
  newest().onopen();
  after(60_000);
  expect([said, sockets.length]).toEqual([[], 1]);
  hear(snapshot(1, ["a up"]));
  after(11_000);
  hear(HEARTBEAT);
  after(11_000);
  expect(said).toEqual(["live"]);
  after(3_000);
  expect(said).toEqual(["live", "lost"]);
});

test("a snapshot that never comes is given up, and so is a server that doesn't answer at all", () => {
  const { said, newest } = linked();
  after(14_000);
  expect(said).toEqual(["lost"]);
  after(1_000);
  newest().onopen();
  after(64_000);
  expect(said).toEqual(["lost"]);
  after(3_000);
  expect(said).toEqual(["lost", "lost"]);
});

test("after a cut the link asks for what it missed, and is live when it has that", () => {
  const { said, newest, hear } = linked();
  newest().onopen();
  hear(snapshot(1, ["a up"]));
  newest().onclose();
  after(1_000);
  expect(newest().path).toBe("/ws/updates?resume=e.1");
  newest().onopen();
  hear({ type: "resumed", epoch: "e", seq: 1, now: 0 });
  hear(delta(2, ["a down"]));
  expect(said).toEqual(["live", "lost"]);
  hear({ ...HEARTBEAT, seq: 2 });
  expect(said).toEqual(["live", "lost", "live"]);
});

test("what came before the page's own code is taken over, and so is a handshake that was refused meanwhile", () => {
  const early = new Socket("ws://here/ws/updates");
  vi.stubGlobal("wardEarly", { socket: early, heard: [JSON.stringify(snapshot(1, ["a up"]))] });
  const { said, hear } = linked();
  expect([said, sockets.length]).toEqual([["live"], 1]);
  hear(delta(2, ["a down"]));
  early.onclose();
  expect(said).toEqual(["live", "lost"]);
  const refused = new Socket("ws://here/ws/updates");
  refused.readyState = 3;
  vi.stubGlobal("wardEarly", { socket: refused, heard: [] });
  expect(linked().said).toEqual(["refused", "lost"]);
});

test("where something was missed nothing is resumed, but a new snapshot asked for", () => {
  const { said, newest, hear } = linked();
  newest().onopen();
  hear(snapshot(1, ["a up"]));
  hear(delta(3, ["a down"]));
  expect(said).toEqual(["live", "lost missed"]);
  after(1_000);
  expect(newest().path).toBe("/ws/updates");
  newest().onclose();
  after(2_000);
  expect(newest().path).toBe("/ws/updates");
  newest().onopen();
  hear(snapshot(3, ["a down"]));
  newest().onclose();
  after(4_000);
  expect(newest().path).toBe("/ws/updates?resume=e.3");
});

test("a network that is gone is a connection lost at once, and one that is back is tried at once", () => {
  const { said, link, newest, hear } = linked();
  newest().onopen();
  hear(snapshot(1, ["a up"]));
  link.offline();
  expect(said).toEqual(["live", "lost"]);
  link.offline();
  expect(said).toEqual(["live", "lost"]);
  link.retryNow();
  expect([sockets.length, newest().path]).toEqual([2, "/ws/updates?resume=e.1"]);
});
