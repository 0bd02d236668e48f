import { expect, test } from "vitest";
import type { Board } from "./board";
import { HOUR, NOW, agent, boardOf, boardWith, delta, device, filters } from "./estate";
import { type Trouble, troubles } from "./troubles";

const DAY = 24 * HOUR;
const list = (board: Board, chosen = filters(), foldMs = DAY) => troubles(board, chosen, NOW, foldMs);
const keys = (entries: Trouble[]) => entries.map(({ key }) => key);
const SILENT = agent("b1", { name: "Vake", contact: "silent", last_contact: NOW - HOUR });

test("the newest failure comes first and those older than the set age are folded away", () => {
  const failed = (id: string, hours: number) => device(id, "down", { down_since: NOW - hours * HOUR });
  const board = boardWith(failed("a", 2), failed("b", 30), failed("c", 1), failed("d", 25), device("e", "up"));
  expect(keys(list(board).recent)).toEqual(["device:c", "device:a"]);
  expect(keys(list(board).old)).toEqual(["device:d", "device:b"]);
  expect(keys(list(board, filters(), HOUR * 1.5).recent)).toEqual(["device:c"]);
});

test("a failure whose start nobody knows is never folded away", () => {
  const board = boardWith(device("a", "down"), device("b", "down", { down_since: NOW - HOUR }));
  expect(keys(list(board).recent)).toEqual(["device:b", "device:a"]);
});

test("a silent branch is one entry and none of its devices is a failure", () => {
  const board = boardOf([]);
  const devices = ["a", "b", "c"].map((id) => device(id, "unknown", { cause: "agent_silent" }));
  board.apply(delta(1, [], { devices, branches: [SILENT] }));
  const { recent, old, elsewhere } = list(board);
  expect(keys(recent)).toEqual(["branch:b1"]);
  expect(recent[0]).toMatchObject({ kind: "unseen", reason: "silent", at: NOW - HOUR });
  expect(recent[0] && "devices" in recent[0] && recent[0].devices.length).toBe(3);
  expect(old.length + elsewhere.length).toBe(0);
});

test("a device that the server calls down is listed even in a silent branch", () => {
  const board = boardOf(["a down", "b unknown"]);
  board.apply(delta(1, [], { branches: [SILENT] }));
  expect(keys(list(board).recent).sort()).toEqual(["branch:b1", "device:a"]);
});

test("an isolated agent is one entry since its first device was lost", () => {
  const lost = (id: string, ago: number) => device(id, "unknown", { cause: "agent_isolated", since: NOW - ago });
  const { recent } = list(boardWith(lost("a", 9_000), lost("b", 12_000)));
  expect(keys(recent)).toEqual(["branch:b1"]);
  expect(recent[0]?.at).toBe(NOW - 12_000);
});

test("other unknown devices are listed apart, branch by branch", () => {
  const { recent, elsewhere } = list(boardWith(device("a", "up"), device("b", "unknown", { cause: "paused" })));
  expect([recent.length, keys(elsewhere).join()]).toEqual([0, "branch:b1"]);
});

test("a recovered device keeps its place in the list while it glows, and leaves it after", () => {
  const board = boardWith(device("a", "down", { down_since: NOW - 30 * HOUR }));
  board.apply(delta(2, ["a up"]));
  expect(list(board).recent[0]).toMatchObject({ kind: "recovered", recovery: { downSince: NOW - 30 * HOUR } });
  board.endGlow(NOW + 5_000);
  expect(list(board).recent).toEqual([]);
});

test("a branch whose devices all failed together is one entry, those that failed apart are not", () => {
  const at = (id: string, ago: number) => device(id, "down", { down_since: NOW - ago });
  expect(keys(list(boardWith(at("a", 5_000), at("b", 9_000), at("c", 60_000))).recent)).toEqual(["down:b1"]);
  expect(list(boardWith(at("a", 5_000), at("b", 9_000), at("c", 60_000))).recent[0]?.at).toBe(NOW - 60_000);
  expect(list(boardWith(at("a", 5_000), at("b", 9_000), at("c", HOUR))).recent).toHaveLength(3);
  expect(list(boardWith(at("a", 5_000), at("b", 9_000), at("c", 9_000), device("d", "up"))).recent).toHaveLength(3);
  expect(list(boardWith(at("a", 5_000), at("b", 9_000))).recent).toHaveLength(2);
});

test("filters hide failures but not how much of the branch is down", () => {
  const { recent } = list(boardOf(["first down", "second down"]), filters({ q: "first" }));
  expect(keys(recent)).toEqual(["device:first"]);
  expect(recent[0]?.place.counts.down).toBe(2);
});

test("what is kept of a branch follows its changes and the filters", () => {
  const board = boardOf(["a down", "b up"]);
  expect(list(board).recent).toHaveLength(1);
  expect(list(board, filters({ type: "atm" })).recent).toHaveLength(0);
  board.apply(delta(1, ["b down"]));
  expect(list(board).recent).toHaveLength(2);
});
