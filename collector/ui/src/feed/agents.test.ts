import { expect, test } from "vitest";
import type { Branch, BranchTold } from "../api/types";
import { type AgentColumn, type AgentOrder, aDay, agents, backlog, compareVersions, pressed, problemsOf } from "./agents";
import { Board } from "./board";
import { HOUR, NOW, agent, delta, filters, snapshot } from "./estate";

function fleetOf(...branches: BranchTold[]): Board {
  const board = new Board();
  board.apply(snapshot(0, [], { branches }));
  return board;
}
function order(board: Board, text: string): string {
  const by = text.replace("-", "") as AgentColumn | "";
  return agents(board, filters(), { by, isDescending: text.startsWith("-") }, NOW).map(({ branch }) => branch.id).join(" ");
}

test("only an agent that still holds entries is called behind", () => {
  const branch: Branch = { id: "a", name: "a", contact: "connected", waiting: 12, logged_through: NOW - 60_000, told_at: NOW };
  expect(backlog(branch, NOW)).toBe(60_000);
  expect(backlog(branch, NOW + 5_000)).toBe(65_000);
  expect(backlog({ ...branch, waiting: 0 }, NOW)).toBeNull();
  expect(backlog({ ...branch, logged_through: NOW - 5_000 }, NOW)).toBeNull();
  expect(backlog({ ...branch, contact: "silent" }, NOW)).toBeNull();
});

test("entries that were under way when a branch was last spoken of don't grow into a backlog", () => {
  const told = agent("a", { waiting: 3, logged_through: NOW - 2_000 });
  const board = fleetOf(told);
  const branch = () => board.places.get("a")?.branch as Branch;
  expect(backlog(branch(), NOW + HOUR)).toBeNull();
  board.apply(delta(1, [], { branches: [told], now: NOW + HOUR }));
  expect(backlog(branch(), NOW + HOUR)).toBe(HOUR + 2_000);
});

test("an agent's problems come with the worst first", () => {
  const problems = (more: Partial<BranchTold>) => problemsOf({ ...agent("a", more), told_at: NOW }, NOW, "0.1.0").join(" ");
  expect(problems({})).toBe("");
  expect(problems({ contact: "silent", buffer_volatile: true, clock_ahead_ms: 9_000 })).toBe("silent volatile");
  expect(problems({ contact: "never", config_version: null, config_wanted: 2 })).toBe("never");
  expect(problems({ config_version: 1, config_wanted: 2, clock_ahead_ms: 9_000 })).toBe("clock config");
  expect(problems({ config_version: 2, config_wanted: 2 })).toBe("");
  expect(problems({ waiting: 9, logged_through: NOW - HOUR, clock_ahead_ms: -3_200 })).toBe("behind clock");
  expect(problems({ clock_ahead_ms: 1_000, clock_synchronised: false })).toBe("");
  expect(problems({ agent_version: "0.0.9" })).toBe("old_version");
});

test("versions are compared by their numbers", () => {
  expect([compareVersions("0.10.0", "0.9.9") > 0, compareVersions("1.0", "1.0.0"), compareVersions("0.1.0", "0.1.1") < 0]).toEqual([true, 0, true]);
});

test("the fleet shows silent, volatile, behind and badly dated agents before those that are well", () => {
  const board = fleetOf(
    agent("well"), agent("clock", { clock_ahead_ms: 60_000 }), agent("never", { contact: "never" }), agent("old", { agent_version: "0.0.1" }),
    agent("behind", { waiting: 5, logged_through: NOW - HOUR }), agent("volatile", { buffer_volatile: true }),
    agent("silent", { contact: "silent" }), agent("also well"),
  );
  expect(order(board, "")).toBe("silent volatile behind clock old never also well well");
});

test("a column sorts both ways, with what isn't known last", () => {
  const nobody = { over_ms: 0, disk_bytes: 0, flushes: 0, sent_bytes: 0, received_bytes: 0 };
  const board = fleetOf(agent("a9", { waiting: 9 }), agent("a10", { waiting: 10 }), agent("b", { spent: nobody }), agent("c", { waiting: 9 }));
  expect(order(board, "waiting")).toBe("a9 c a10 b");
  expect(order(board, "-waiting")).toBe("a10 a9 c b");
  expect(order(board, "-branch")).toBe("c b a10 a9");
});

test("what is known so far is not ranked among whole days", () => {
  const spent = (over_ms: number, disk_bytes: number) => ({ spent: { over_ms, disk_bytes, flushes: 1, sent_bytes: 0, received_bytes: 0 } });
  const board = fleetOf(agent("day", spent(24 * HOUR, 9_000)), agent("new", spent(60_000, 99_000)), agent("half", spent(12 * HOUR, 9_000)));
  expect(order(board, "-card")).toBe("half day new");
});

test("in memory ranks above any number of bytes", () => {
  expect(order(fleetOf(agent("full", { buffer_bytes: 5e9 }), agent("volatile", { buffer_volatile: true })), "-buffer")).toBe("volatile full");
});

test("a cost is scaled to a day only from an hour on", () => {
  expect(aDay(500, HOUR)).toEqual({ amount: 12_000, isSoFar: false });
  expect(aDay(500, HOUR - 1)).toEqual({ amount: 500, isSoFar: true });
  expect(aDay(500, 0)).toBeNull();
});

test("the search finds agents by name, version and what is wrong with them", () => {
  const board = fleetOf(agent("vake"), agent("gldani", { buffer_volatile: true, agent_version: "0.0.9" }), agent("lilo", { contact: "silent" }));
  const found = (chosen: object) => agents(board, filters(chosen), { by: "", isDescending: false }, NOW).map((row) => row.branch.id).join(" ");
  expect(found({ q: "0.0.9" })).toBe("gldani");
  expect(found({ q: "VOLATILE tbilisi" })).toBe("gldani");
  expect(found({ q: "silent" })).toBe("lilo");
  // As the screen says it, in whichever language.
  expect([found({ q: "buffer in memory" }), found({ q: "დუმს" })]).toEqual(["gldani", "lilo"]);
  expect(found({ branch: "vake", status: "down" })).toBe("vake");
  expect(found({ region: "r2" })).toBe("");
});

test("a press on a head sorts, a second turns it round, a third puts problems first again", () => {
  const press = (by: AgentColumn, presses: number) => {
    let order: AgentOrder = { by: "", isDescending: false };
    for (let n = 0; n < presses; n += 1) order = pressed(order, by);
    return `${order.isDescending ? "-" : ""}${order.by}`;
  };
  expect([1, 2, 3].map((n) => press("line", n))).toEqual(["-line", "line", ""]);
  expect([1, 2, 3].map((n) => press("branch", n))).toEqual(["branch", "-branch", ""]);
});
