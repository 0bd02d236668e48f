import { expect, test } from "vitest";
import type { Message } from "../api/types";
import { Board, statusOf } from "./board";
import { HOUR, NOW, agent, boardOf, boardWith, delta, device, snapshot } from "./estate";

test("a snapshot is shown whole", () => {
  const board = new Board();
  expect(board.apply(snapshot(7, ["a up", "b down"])).effect).toBe("shown");
  expect(board.counts).toEqual({ total: 2, up: 1, down: 1, unknown: 0, flapping: 0, maintenance: 0 });
});

test("the next delta replaces whole devices, and all counts follow", () => {
  const board = boardOf(["a up", "b up"]);
  const place = board.places.get("b1");
  const before = place?.revision ?? 0;
  expect(board.apply(delta(1, ["b down"])).effect).toBe("shown");
  expect(board.devices.get("b")?.status).toBe("down");
  expect([board.counts.up, board.counts.down, place?.counts.down]).toEqual([1, 1, 1]);
  expect(place?.revision).toBeGreaterThan(before);
});

test("a delta tells what is new of a device, and the rest stays; of a device that isn't known it is a gap", () => {
  const board = boardOf(["a up"]);
  const before = board.devices.get("a");
  expect(board.apply(delta(1, [], { devices: [{ id: "a", rtt_ms: 4, packet_loss: 0 }] })).effect).toBe("shown");
  expect(board.devices.get("a")).toEqual({ ...before, rtt_ms: 4, packet_loss: 0 });
  board.apply(delta(2, [], { devices: [{ id: "a", status: "down", down_since: NOW }] }));
  expect([board.devices.get("a")?.rtt_ms, board.counts.down]).toEqual([4, 1]);
  board.apply(delta(3, [], { devices: [{ id: "a", status: "up", down_since: null }] }));
  expect([board.devices.get("a")?.down_since, board.recoveries.has("a"), board.counts.up]).toEqual([null, true, 1]);
  expect(board.apply(delta(4, [], { devices: [{ id: "b", rtt_ms: 4 }] })).effect).toBe("gap");
  expect([board.seq, board.devices.size]).toEqual([3, 1]);
});

test("counts kept up with deltas are those of a fresh snapshot", () => {
  const statuses = ["up", "down", "unknown"];
  let random = 7;
  const next = (limit: number) => (random = (random * 1_103_515_245 + 12_345) % 2_147_483_648) % limit;
  const board = boardOf([]);
  for (let seq = 1; seq <= 500; seq += 1) {
    const changed = device(`d${next(40)}`, statuses[next(3)] ?? "", { branch: `b${next(5)}`, is_flapping: next(4) === 0, in_maintenance: next(9) === 0 });
    board.apply(delta(seq, [], { devices: [changed] }));
  }
  const fresh = new Board();
  fresh.apply(snapshot(500, [], { devices: [...board.devices.values()], branches: [] }));
  expect(board.counts).toEqual(fresh.counts);
  for (const [id, place] of fresh.places) expect(board.places.get(id)?.counts, id).toEqual(place.counts);
});

test("a delta that was already applied changes nothing", () => {
  const board = boardOf(["a up"], 5);
  expect(board.apply(delta(5, ["a down"])).effect).toBe("alive");
  expect([board.devices.get("a")?.status, board.seq]).toEqual(["up", 5]);
});

test("a missing delta is a gap and leaves the board as it was", () => {
  const board = boardOf(["a up"]);
  expect(board.apply(delta(2, ["a down"])).effect).toBe("gap");
  expect([board.devices.get("a")?.status, board.seq]).toEqual(["up", 0]);
});

test("a delta of another epoch, or before any snapshot, is a gap even when its number fits", () => {
  expect(boardOf(["a up"]).apply({ ...delta(1, ["a down"]), epoch: "other" }).effect).toBe("gap");
  expect(new Board().apply(delta(0, ["a up"])).effect).toBe("gap");
});

test("a heartbeat tells of a gap when its number or epoch is not ours", () => {
  const board = boardOf(["a up"], 3);
  const heartbeat = (epoch: string, seq: number) => board.apply({ type: "heartbeat", epoch, seq, now: NOW }).effect;
  expect([heartbeat("e", 3), heartbeat("e", 4), heartbeat("other", 3)]).toEqual(["alive", "gap", "gap"]);
});

test("a new, renamed or moved device makes orders anew, a changed status doesn't", () => {
  const board = boardOf(["a up"]);
  const structures = [board.structure];
  const after = (message: Message) => {
    board.apply(message);
    structures.push(board.structure);
  };
  after(delta(1, ["a down"]));
  after(delta(2, ["b up"]));
  after(delta(3, [], { devices: [device("a", "up", { name: "Renamed" })] }));
  after(delta(4, [], { devices: [device("b", "up", { branch: "b2" })] }));
  expect(structures.slice(1).map((structure, at) => structure > (structures[at] ?? 0))).toEqual([false, true, true, true]);
  expect(board.places.get("b1")?.devices.map(({ id }) => id)).toEqual(["a"]);
});

test("what has no number, and kinds that this page doesn't know, leave the numbered feed alone", () => {
  const board = boardOf(["a up"], 3);
  const watched = [{ id: "a", span_ms: 2_000, sent: 1, lost: 1, rtt_ms: null, rtt_min_ms: null, rtt_max_ms: null }];
  expect(board.apply({ type: "watched", epoch: "e", now: NOW, devices: watched }).effect).toBe("alive");
  expect(board.apply({ type: "later" } as unknown as Message).effect).toBe("alive");
  expect(board.apply(delta(4, ["a down"])).effect).toBe("shown");
});

test("a closing message hands its reason on", () => {
  expect(boardOf([]).apply({ type: "closing", reason: "restart" })).toEqual({ effect: "closing", reason: "restart" });
});

test("a device that goes from down to up glows for five seconds, also when a gap swallowed it", () => {
  const board = boardOf(["a down"]);
  board.apply(delta(1, ["a up"]));
  expect(board.endGlow(NOW + 4_999)).toBe(false);
  expect(board.endGlow(NOW + 5_000)).toBe(true);
  expect(board.recoveries.size).toBe(0);
  const other = boardOf(["a down"]);
  other.apply(snapshot(9, [], { devices: [device("a", "up", { since: NOW - 20_000 })] }));
  expect(other.recoveries.has("a")).toBe(true);
});

test("a recovery is dated by the device, and what came back while the laptop slept is no news", () => {
  const night = () => boardWith(device("a", "down", { down_since: NOW - 15 * HOUR }));
  const back = device("a", "up", { since: NOW - 15 * HOUR + 360_000 });
  const slept = night();
  slept.apply(snapshot(9, [], { devices: [back] }));
  expect(slept.recoveries.size).toBe(0);
  const told = night();
  told.apply(delta(2, [], { devices: [back] }));
  const { downSince, upSince } = told.recoveries.get("a") ?? { downSince: null, upSince: 0 };
  expect(upSince - (downSince ?? 0)).toBe(360_000);
});

test("a device that fails again stops glowing at once, and unknown to up is no recovery", () => {
  const board = boardOf(["a down", "b unknown"]);
  board.apply(delta(1, ["a up", "b up"]));
  expect([...board.recoveries.keys()]).toEqual(["a"]);
  board.apply(delta(2, ["a down"]));
  expect(board.recoveries.size).toBe(0);
});

test("whatever isn't plainly up or down is unknown", () => {
  const seen = ["up", "down", "unknown", "UP", "paused", null, undefined].map((status) => statusOf({ status }));
  expect(seen).toEqual(["up", "down", "unknown", "unknown", "unknown", "unknown", "unknown"]);
});

test("names with numbers are ordered as people do, and routers come first", () => {
  const named = (id: string, name: string, device_type: string) => device(id, "up", { name, device_type });
  const board = boardWith(named("a", "Atm 1", "atm"), named("b", "Router 10", "router"), named("c", "Router 2", "router"));
  expect(board.regions()[0]?.places[0]?.devices.map(({ id }) => id)).toEqual(["c", "b", "a"]);
});

test("a device whose branch is not described still has a place", () => {
  const board = boardWith(device("a", "up", { branch: "lost", region: "r9" }));
  expect(board.regions().find(({ id }) => id === "r9")?.places.map(({ id }) => id)).toEqual(["lost"]);
});

test("a branch keeps the moment at which it was last spoken of", () => {
  const board = boardOf([]);
  board.apply(delta(1, [], { branches: [agent("b1")], now: NOW + HOUR }));
  expect(board.places.get("b1")?.branch.told_at).toBe(NOW + HOUR);
});
