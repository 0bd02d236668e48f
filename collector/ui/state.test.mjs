// node --test collector/ui

import assert from "node:assert/strict";
import test from "node:test";

import {
  AGENT_COLUMNS, Board, Clock, LIVE_SPAN_MS, LIVE_STEP_MS, LiveQuality, aDay, agentProblems, agents, backlog, causeWords,
  causesInWords, clipped, duration, filterChoices, filtersFromQuery, fleetWords, grid, intervalAt, isUnfiltered, kilobytes,
  matches, pointAt, queryWithFilters, queryWithView, retryDelay, roundCeiling, runs, statusOf, statusWords, tally, timeTicks,
  troubles, typeWords, viewFromQuery, viewSorted,
} from "./state.js";

const NOW = Date.UTC(2025, 10, 23, 12);
const HOUR = 3_600_000;
const ANY = filtersFromQuery("");

test("a snapshot is shown whole", () => {
  const board = new Board();
  const outcome = board.apply(snapshot({ seq: 7, devices: ["a up", "b down"] }));
  assert.equal(outcome.effect, "shown");
  assert.equal(outcome.touched.whole, true);
  assert.deepEqual(tally(board.devices.values()), { total: 2, up: 1, down: 1, unknown: 0, flapping: 0 });
});

test("the next delta replaces whole devices and names what it touched", () => {
  const board = boardOf(["a up", "b up"]);
  const outcome = board.apply(delta(1, ["b down"]));
  assert.deepEqual(outcome, { effect: "shown", touched: { whole: false, devices: ["b"], branches: [] } });
  assert.equal(board.devices.get("b").status, "down");
});

test("a delta that was already applied changes nothing", () => {
  const board = boardOf(["a up"], 5);
  assert.equal(board.apply(delta(5, ["a down"])).effect, "alive");
  assert.equal(board.devices.get("a").status, "up");
  assert.equal(board.seq, 5);
});

test("a missing delta is a gap and leaves the board as it was", () => {
  const board = boardOf(["a up"]);
  assert.equal(board.apply(delta(2, ["a down"])).effect, "gap");
  assert.equal(board.devices.get("a").status, "up");
  assert.equal(board.seq, 0);
});

test("a delta of another epoch is a gap even when its number fits", () => {
  const board = boardOf(["a up"]);
  assert.equal(board.apply({ ...delta(1, ["a down"]), epoch: "other" }).effect, "gap");
});

test("a delta before any snapshot is a gap", () => {
  assert.equal(new Board().apply(delta(0, ["a up"])).effect, "gap");
});

test("a heartbeat tells of a gap when its number or epoch is not ours", () => {
  const board = boardOf(["a up"], 3);
  const heartbeat = (epoch, seq) => board.apply({ type: "heartbeat", epoch, seq, now: NOW }).effect;
  assert.equal(heartbeat("e", 3), "alive");
  assert.equal(heartbeat("e", 4), "gap");
  assert.equal(heartbeat("other", 3), "gap");
});

test("a new, renamed or moved device lays the grid out anew", () => {
  const board = boardOf(["a up"]);
  assert.equal(board.apply(delta(1, ["b up"])).touched.whole, true);
  assert.equal(board.apply({ ...delta(2, []), devices: [device("a", "up", { name: "Renamed" })] }).touched.whole, true);
  assert.equal(board.apply({ ...delta(3, []), devices: [device("b", "up", { branch: "b2" })] }).touched.whole, true);
});

test("a message of an unknown kind is no reason to reconnect", () => {
  const board = boardOf(["a up"]);
  assert.equal(board.apply({ type: "later" }).effect, "alive");
  assert.equal(board.apply(null).effect, "alive");
});

test("what has no number leaves the numbered feed alone", () => {
  const board = boardOf(["a up"], 3);
  const watched = [{ id: "a", span_ms: 2_000, sent: 1, lost: 1, rtt_ms: null, rtt_min_ms: null, rtt_max_ms: null }];
  assert.equal(board.apply({ type: "watched", epoch: "e", now: NOW, devices: watched }).effect, "alive");
  assert.equal(board.apply({ type: "problem", detail: "no" }).effect, "alive");
  assert.equal(board.apply(delta(4, ["a down"])).effect, "shown");
});

test("a closing message hands its reason on", () => {
  assert.deepEqual(boardOf([]).apply({ type: "closing", reason: "restart" }), { effect: "closing", reason: "restart" });
});

test("a device that goes from down to up glows for five seconds", () => {
  const board = boardOf(["a down"]);
  board.apply(delta(1, ["a up"]));
  assert.deepEqual(board.endGlow(NOW + 4_999), []);
  assert.deepEqual(board.endGlow(NOW + 5_000), ["a"]);
  assert.equal(board.recoveries.size, 0);
});

test("a recovery that a gap swallowed glows after the new snapshot", () => {
  const board = boardOf(["a down"]);
  board.apply(snapshot({ seq: 9, devices: ["a up"] }));
  assert.equal(board.recoveries.has("a"), true);
});

test("a device that fails again stops glowing at once", () => {
  const board = boardOf(["a down"]);
  board.apply(delta(1, ["a up"]));
  board.apply(delta(2, ["a down"]));
  assert.equal(board.recoveries.size, 0);
});

test("unknown to up is no recovery", () => {
  const board = boardOf(["a unknown"]);
  board.apply(delta(1, ["a up"]));
  assert.equal(board.recoveries.size, 0);
});

test("whatever isn't plainly up or down is unknown", () => {
  const seen = ["up", "down", "unknown", "UP", "paused", null, undefined].map((status) => statusOf({ status }));
  assert.deepEqual(seen, ["up", "down", "unknown", "unknown", "unknown", "unknown", "unknown"]);
});

test("unknown always comes with a cause in words", () => {
  assert.equal(statusWords({ status: "unknown", cause: "dns_failure" }), "unknown: its name does not resolve");
  assert.equal(statusWords({ status: "unknown", cause: null }), "unknown: no cause given");
  assert.equal(causeWords("clock_off"), "clock off");
  assert.equal(causesInWords([{ cause: "paused" }, { cause: "paused" }]), "monitoring is paused");
  assert.equal(causesInWords([{ cause: "paused" }, { cause: null }]), "monitoring is paused (1), no cause given (1)");
});

test("a type is written as people write it", () => {
  assert.deepEqual(["atm", "nvr", "access_point", "router", null].map(typeWords), ["ATM", "NVR", "Access point", "Router", "Other"]);
});

test("the newest failure comes first and those older than a day are folded away", () => {
  const board = boardOf([]);
  const failed = (id, hours) => device(id, "down", { down_since: NOW - hours * HOUR });
  board.apply({ ...delta(1, []), devices: [failed("a", 2), failed("b", 30), failed("c", 1), failed("d", 25)] });
  const { recent, old } = troubles(board, ANY, NOW);
  assert.deepEqual(keys(recent), ["device:c", "device:a"]);
  assert.deepEqual(keys(old), ["device:d", "device:b"]);
});

test("a failure whose start nobody knows is never folded away", () => {
  const board = boardOf([]);
  board.apply({ ...delta(1, []), devices: [device("a", "down"), device("b", "down", { down_since: NOW - HOUR })] });
  assert.deepEqual(keys(troubles(board, ANY, NOW).recent), ["device:b", "device:a"]);
});

test("a silent branch is one entry and none of its devices is a failure", () => {
  const board = boardOf([]);
  const silent = { id: "b1", name: "Vake", region: "r1", contact: "silent", last_contact: NOW - HOUR };
  const devices = ["a", "b", "c"].map((id) => device(id, "unknown", { cause: "agent_silent" }));
  board.apply({ ...delta(1, []), devices, branches: [silent] });
  const { recent, old, elsewhere } = troubles(board, ANY, NOW);
  assert.deepEqual(keys(recent), ["branch:b1"]);
  assert.equal(recent[0].at, NOW - HOUR);
  assert.equal(recent[0].unknown.length, 3);
  assert.equal(old.length + elsewhere.length, 0);
});

test("a device that the server calls down is listed even in a silent branch", () => {
  const board = boardOf(["a down", "b unknown"]);
  board.apply({ ...delta(1, []), branches: [{ id: "b1", name: "Vake", region: "r1", contact: "silent", last_contact: NOW }] });
  assert.deepEqual(keys(troubles(board, ANY, NOW).recent).sort(), ["branch:b1", "device:a"]);
});

test("an isolated agent is one entry since its first device was lost", () => {
  const board = boardOf([]);
  const lost = (id, ago) => device(id, "unknown", { cause: "agent_isolated", since: NOW - ago });
  board.apply({ ...delta(1, []), devices: [lost("a", 9_000), lost("b", 12_000)] });
  const { recent } = troubles(board, ANY, NOW);
  assert.deepEqual(keys(recent), ["branch:b1"]);
  assert.equal(recent[0].at, NOW - 12_000);
});

test("other unknown devices are listed apart, branch by branch", () => {
  const board = boardOf(["a up"]);
  board.apply({ ...delta(1, []), devices: [device("b", "unknown", { cause: "paused" })] });
  const { recent, elsewhere } = troubles(board, ANY, NOW);
  assert.equal(recent.length, 0);
  assert.deepEqual(elsewhere.map((entry) => entry.unknown.length), [1]);
});

test("a recovered device keeps its place in the list while it glows", () => {
  const board = boardOf([]);
  board.apply({ ...delta(1, []), devices: [device("a", "down", { down_since: NOW - 30 * HOUR })] });
  board.apply(delta(2, ["a up"]));
  const { recent } = troubles(board, ANY, NOW);
  assert.equal(recent[0].kind, "recovered");
  assert.equal(recent[0].recovery.downSince, NOW - 30 * HOUR);
});

test("a failure tells how much of its branch is down", () => {
  const { recent } = troubles(boardOf(["a down", "b down", "c up"]), ANY, NOW);
  assert.deepEqual([recent[0].downHere, recent[0].devicesHere], [2, 3]);
});

test("filters hide failures but not how much of the branch is down", () => {
  const { recent } = troubles(boardOf(["first down", "second down"]), filtersFromQuery("?q=first"), NOW);
  assert.deepEqual(keys(recent), ["device:first"]);
  assert.equal(recent[0].downHere, 2);
});

test("each filter and each searched word must match", () => {
  const branch = { id: "b1", name: "Vake", region: "r1", region_name: "Tbilisi" };
  const router = device("x", "down", { name: "Vake Router 1", ip: "10.0.0.7", is_flapping: true });
  const pass = (query) => matches(router, branch, filtersFromQuery(query));
  for (const query of ["", "q=vake+10.0.0", "q=TBILISI", "region=r1&branch=b1", "type=router&status=down", "status=flapping"]) {
    assert.equal(pass(query), true, query);
  }
  for (const query of ["q=vake+gori", "region=r2", "branch=b2", "type=atm", "status=up", "status=unknown"]) {
    assert.equal(pass(query), false, query);
  }
});

test("filters go into the address and come back, beside what else is there", () => {
  const filters = { ...ANY, q: "a&b=ვაკე", region: "r1" };
  const query = queryWithFilters("?view=wall&status=down", filters);
  assert.equal(new URLSearchParams(query).get("view"), "wall");
  assert.deepEqual(filtersFromQuery(query), filters);
  assert.equal(queryWithFilters("?q=x", ANY), "");
  assert.equal(isUnfiltered(ANY), true);
});

test("the branch menu offers only branches of the chosen region", () => {
  const board = boardOf(["a up"]);
  board.apply({ ...delta(1, []), branches: [{ id: "b2", name: "Gori", region: "r2", region_name: "Shida Kartli" }] });
  const all = filterChoices(board, ANY);
  assert.deepEqual(all.region, [["r2", "Shida Kartli"], ["r1", "Tbilisi"]]);
  assert.deepEqual(filterChoices(board, filtersFromQuery("region=r2")).branch, [["b2", "Gori"]]);
});

test("the grid orders names with numbers as people do, and routers first", () => {
  const board = boardOf([]);
  const named = (id, name, type) => device(id, "up", { name, device_type: type });
  board.apply({
    ...delta(1, []),
    devices: [named("a", "Atm 1", "atm"), named("b", "Router 10", "router"), named("c", "Router 2", "router")],
  });
  assert.deepEqual(grid(board)[0].branches[0].devices.map((d) => d.id), ["c", "b", "a"]);
});

test("a device whose branch is not described is still on the grid", () => {
  const board = boardOf([]);
  board.apply({ ...delta(1, []), devices: [device("a", "up", { branch: "lost", region: "r9" })] });
  const region = grid(board).find((r) => r.id === "r9");
  assert.deepEqual(region.branches.map((place) => place.id), ["lost"]);
});

test("only an agent that still holds entries is called behind", () => {
  const branch = { contact: "connected", waiting: 12, logged_through: NOW - 60_000, told_at: NOW };
  assert.equal(backlog(branch, NOW), 60_000);
  assert.equal(backlog(branch, NOW + 5_000), 65_000);
  assert.equal(backlog({ ...branch, waiting: 0 }, NOW), null);
  assert.equal(backlog({ ...branch, logged_through: NOW - 5_000 }, NOW), null);
  assert.equal(backlog({ ...branch, contact: "silent" }, NOW), null);
});

test("entries that were under way when a branch was last spoken of don't grow into a backlog", () => {
  const board = new Board();
  const branch = agent("a", { waiting: 3, logged_through: NOW - 2_000 });
  board.apply({ ...snapshot({}), branches: [branch] });
  assert.equal(backlog(board.branches.get("a"), NOW + HOUR), null);
  board.apply({ ...delta(1, []), now: NOW + HOUR, branches: [branch] });
  assert.equal(backlog(board.branches.get("a"), NOW + HOUR), HOUR + 2_000);
});

test("an agent's problems come with the worst first", () => {
  const words = (more) => agentProblems({ ...agent("a", more), told_at: NOW }, NOW).map((problem) => problem.words).join(", ");
  assert.equal(words({}), "");
  assert.equal(words({ contact: "silent", buffer_volatile: true, clock_ahead_ms: 9_000 }), "silent, buffer in memory");
  assert.equal(words({ contact: "never" }), "never connected");
  assert.equal(words({ waiting: 9, logged_through: NOW - HOUR, clock_ahead_ms: -3_200 }), "1 h behind, clock 3.2 s slow");
  assert.equal(words({ clock_ahead_ms: 1_000, clock_synchronised: false }), "");
});

test("the fleet shows silent, volatile, behind and badly dated agents before those that are well", () => {
  const board = fleetOf(
    agent("well"), agent("clock", { clock_ahead_ms: 60_000 }), agent("never", { contact: "never" }),
    agent("behind", { waiting: 5, logged_through: NOW - HOUR }), agent("volatile", { buffer_volatile: true }),
    agent("silent", { contact: "silent" }), agent("also well"),
  );
  assert.equal(order(board, ""), "silent volatile behind clock never also well well");
  assert.equal(fleetWords(board, NOW), "7 agents: 5 connected, 1 silent, 1 never connected · 5 with a problem");
});

test("a column sorts both ways, with what isn't known last", () => {
  const board = fleetOf(agent("a9", { waiting: 9 }), agent("a10", { waiting: 10 }), agent("b", { spent: null }), agent("c", { waiting: 9 }));
  assert.equal(order(board, "waiting"), "a9 c a10 b");
  assert.equal(order(board, "-waiting"), "a10 a9 c b");
  assert.equal(order(board, "-branch"), "c b a10 a9");
});

test("what is known so far is not ranked among whole days", () => {
  const spent = (over_ms, disk_bytes) => ({ spent: { over_ms, disk_bytes, flushes: 1, sent_bytes: 0, received_bytes: 0 } });
  const board = fleetOf(agent("day", spent(24 * HOUR, 9_000)), agent("new", spent(60_000, 99_000)), agent("half", spent(12 * HOUR, 9_000)));
  assert.equal(order(board, "-card"), "half day new");
});

test("in memory ranks above any number of bytes", () => {
  const board = fleetOf(agent("full", { buffer_bytes: 5e9 }), agent("volatile", { buffer_volatile: true }));
  assert.equal(order(board, "-buffer"), "volatile full");
});

test("a cost is scaled to a day only from an hour on", () => {
  assert.deepEqual(aDay(500, HOUR), { amount: 12_000, isSoFar: false });
  assert.deepEqual(aDay(500, HOUR - 1), { amount: 500, isSoFar: true });
  assert.equal(aDay(500, 0), null);
  assert.deepEqual([0, 40, 4_240, 9_949, 9_960, 1_234_567].map(kilobytes), ["0", "< 0.1", "4.2", "9.9", "10", "1,235"]);
});

test("a row tells what is known of an agent, and dashes for what isn't", () => {
  assert.equal(row(agent("a")), "a|Tbilisi|connected|< 30 s|0.1.0|0||0|synchronised|100|24|24|0|0|0");
  const silent = agent("b", { contact: "silent", observed_through: NOW - 90_000, buffer_volatile: true, clock_synchronised: false });
  assert.equal(row(silent), "b|Tbilisi|silent|1 m 30 s|0.1.0|0||in memory|not synchronised|100|24|24|0|0|0");
  const never = agent("c", { contact: "never", observed_through: null, agent_version: null, spent: { over_ms: 0 } });
  assert.equal(row(never), "c|Tbilisi|never|–|–|–||–|–|–|–|–|–|–|–");
});

test("the search finds agents by name, version and what is wrong with them", () => {
  const board = fleetOf(agent("vake"), agent("gldani", { buffer_volatile: true, agent_version: "0.0.9" }), agent("lilo", { contact: "silent" }));
  const found = (filters) => agents(board, { ...ANY, ...filters }, viewFromQuery(""), NOW).map((a) => a.branch.id).join(" ");
  assert.equal(found({ q: "0.0.9" }), "gldani");
  assert.equal(found({ q: "MEMORY tbilisi" }), "gldani");
  assert.equal(found({ q: "silent" }), "lilo");
  assert.equal(found({ branch: "vake", status: "down" }), "vake");
  assert.equal(found({ region: "r2" }), "");
});

test("a view and its order go into the address and come back, beside the filters", () => {
  assert.deepEqual(viewFromQuery("?view=fleet&sort=-line"), { name: "fleet", sort: "line", isDescending: true });
  assert.deepEqual(viewFromQuery("?view=nonsense&sort=-nonsense"), { name: "devices", sort: "", isDescending: false });
  assert.equal(queryWithView("?q=vake", { name: "fleet", sort: "line", isDescending: true }), "?q=vake&view=fleet&sort=-line");
  assert.equal(queryWithView("?view=fleet&sort=line", { name: "devices", sort: "line", isDescending: false }), "");
});

test("a press on a head sorts, a second turns it round, a third puts problems first again", () => {
  const press = (key, presses) => {
    let view = viewFromQuery("?view=fleet");
    for (let n = 0; n < presses; n += 1) view = viewSorted(view, key);
    return queryWithView("", view);
  };
  assert.deepEqual([1, 2, 3].map((n) => press("line", n)), ["?view=fleet&sort=-line", "?view=fleet&sort=line", "?view=fleet"]);
  assert.deepEqual([1, 2, 3].map((n) => press("branch", n)), ["?view=fleet&sort=branch", "?view=fleet&sort=-branch", "?view=fleet"]);
});

test("a duration shows its two largest units", () => {
  const seconds = [0, 45, 60, 192, 7_500, 86_399, 273_600];
  assert.deepEqual(seconds.map((s) => duration(s * 1000)), ["0 s", "45 s", "1 m 00 s", "3 m 12 s", "2 h 05 m", "23 h 59 m", "3 d 04 h"]);
  assert.equal(duration(-5_000), "0 s");
});

test("the clock follows the server whatever the browser's clock says", () => {
  const clock = new Clock();
  assert.equal(clock.now(100), null);
  clock.observe(NOW, 100);
  assert.equal(clock.now(1_100), NOW + 1_000);
});

test("a message that was long under way doesn't set the clock back", () => {
  const clock = new Clock();
  clock.observe(NOW, 0);
  clock.observe(NOW + 5_000, 5_800);
  assert.equal(clock.now(6_000), NOW + 6_000);
});

test("a step of the server's clock is followed", () => {
  const clock = new Clock();
  clock.observe(NOW, 0);
  clock.observe(NOW - HOUR, 1_000);
  assert.equal(clock.now(1_000), NOW - HOUR);
});

test("retries wait from half a second to ten, never all pages together", () => {
  assert.equal(retryDelay(0, 0), 500);
  assert.ok(retryDelay(0, 0.99) < 1_000);
  assert.equal(retryDelay(3, 0), 4_000);
  assert.equal(retryDelay(1_000, 1), 10_000);
});

test("a missing step splits the line", () => {
  const points = [0, 60, 120, 240, 300].map((t) => ({ t_ms: t, rtt_avg_ms: 1 }));
  assert.deepEqual(runs(points, 60).map((run) => run.map((p) => p.t_ms)), [[0, 60, 120], [240, 300]]);
});

test("a step without any reply has no round-trip time and splits the line too", () => {
  const points = [0, 60, 120].map((t) => ({ t_ms: t, rtt_avg_ms: t === 60 ? null : 1 }));
  assert.deepEqual(runs(points, 60).map((run) => run.length), [1, 1]);
});

test("a device that is looked at is asked for at once, every 10 s, and anew on a new connection", () => {
  const live = new LiveQuality(NOW);
  assert.equal(live.isDue(0), true);
  live.asked(0);
  assert.deepEqual([1, 9_999, 10_000].map((now) => live.isDue(now)), [false, false, true]);
  live.forgetAsking();
  assert.equal(live.isDue(1), true);
});

test("the live line tells the newest round trip and what the last ten seconds lost", () => {
  const live = liveOf("r r . r");
  assert.equal(live.words({ contact: "connected" }, NOW + 8_000), "4 ms · 1 of 4 probes lost in 10 s");
  assert.equal(live.words({ contact: "connected" }, NOW + 17_000), "4 ms · none of 1 probe lost in 10 s");
  assert.equal(liveOf(". .").words({ contact: "connected" }, NOW + 4_000), "no reply · 2 of 2 probes lost in 10 s");
});

test("the live line says why nothing is measured", () => {
  const live = new LiveQuality(NOW);
  const connected = { contact: "connected" };
  assert.equal(live.words(connected, NOW + 3_000), "Waiting for the agent…");
  assert.match(live.words(connected, NOW + 12_000), /^Nothing from the agent for 12 s/);
  assert.match(live.words({ contact: "silent" }, NOW), /can't be heard/);
  live.problem = "there is no device";
  assert.equal(live.words(connected, NOW), "The live view was refused: there is no device");
});

test("the live line goes back two minutes, and a clock that was set back begins it anew", () => {
  const live = liveOf("r".repeat(3).split("").join(" "));
  live.add(measured(9), NOW + 6_000 + LIVE_SPAN_MS);
  assert.deepEqual(live.points.map((point) => point.rtt_avg_ms), [3, 9]);
  live.add(measured(5), NOW);
  assert.deepEqual(live.points.map((point) => point.rtt_avg_ms), [5]);
});

test("a live line breaks where a probe was lost and where nothing was measured", () => {
  const lengths = (text) => runs(liveOf(text).points, LIVE_STEP_MS).map((run) => run.length);
  assert.deepEqual(lengths("r r . r"), [2, 1]);
  assert.deepEqual(lengths("r r - r"), [3], "one telling without a probe is none");
  assert.deepEqual(lengths("r r - - r"), [2, 1]);
});

test("intervals are cut to the range and an open one ends with it", () => {
  const intervals = [
    { status: "up", from_ms: -50, to_ms: 10 },
    { status: "down", from_ms: 10, to_ms: null },
    { status: "up", from_ms: -90, to_ms: -50 },
  ];
  assert.deepEqual(clipped(intervals, 0, 100).map((i) => [i.from_ms, i.to_ms]), [[0, 10], [10, 100]]);
});

test("a moment is read from the interval and the step that hold it", () => {
  const intervals = [{ from_ms: 0, to_ms: 10 }, { from_ms: 20, to_ms: 30 }];
  assert.deepEqual(intervalAt(intervals, 20), intervals[1]);
  assert.equal(intervalAt(intervals, 10), null);
  const points = [{ t_ms: 0 }, { t_ms: 120 }];
  assert.equal(pointAt(points, 60, 59), points[0]);
  assert.equal(pointAt(points, 60, 60), null);
});

test("an axis ends at a round number", () => {
  assert.deepEqual([0, 0.7, 1, 11, 42, 55, 101].map(roundCeiling), [1, 0.8, 1, 15, 50, 60, 150]);
});

test("ticks stand at round times in Tbilisi", () => {
  const ticks = timeTicks(NOW - 24 * HOUR, NOW, 10);
  assert.ok(ticks.length <= 10);
  const hours = ticks.map((tick) => new Date(tick + 4 * HOUR).getUTCHours());
  assert.ok(hours.every((hour) => hour % 3 === 0), hours.join(" "));
  const midnights = timeTicks(NOW - 7 * 24 * HOUR, NOW, 8).map((tick) => new Date(tick + 4 * HOUR).getUTCHours());
  assert.deepEqual(new Set(midnights), new Set([0]));
});

// ---- helpers ----

function device(id, status, more = {}) {
  return { id, name: `Device ${id}`, branch: "b1", region: "r1", device_type: "router", ip: "10.0.0.1", status, ...more };
}

/** `"a down"` → a device called a that is down. */
function devicesOf(lines) {
  return lines.map((line) => device(...line.split(" ")));
}

function snapshot({ seq = 0, devices = [] }) {
  const branches = [{ id: "b1", name: "Vake", region: "r1", region_name: "Tbilisi", contact: "connected" }];
  return { type: "snapshot", epoch: "e", seq, now: NOW, version: "0", notes: [], branches, devices: devicesOf(devices) };
}

function delta(seq, lines) {
  return { type: "delta", epoch: "e", seq, now: NOW, devices: devicesOf(lines), branches: [] };
}

function boardOf(lines, seq = 0) {
  const board = new Board();
  board.apply(snapshot({ seq, devices: lines }));
  return board;
}

/** A branch whose agent is well. */
function agent(id, more = {}) {
  const spent = { over_ms: 24 * HOUR, disk_bytes: 24_000, flushes: 24, sent_bytes: 60_000, received_bytes: 40_000 };
  return {
    id, name: id, region: "r1", region_name: "Tbilisi", contact: "connected", silent_after_ms: 30_000, observed_through: NOW,
    logged_through: NOW, agent_version: "0.1.0", waiting: 0, buffer_bytes: 0, buffer_volatile: false, ticks_missed: 0,
    send_errors: 0, receive_drops: 0, clock_synchronised: true, clock_ahead_ms: 3, spent, ...more,
  };
}

function fleetOf(...branches) {
  const board = new Board();
  board.apply({ ...snapshot({}), branches });
  return board;
}

/** The names of a fleet's branches in the order of `sort=…`. */
function order(board, sort) {
  return agents(board, ANY, viewFromQuery(`?view=fleet&sort=${sort}`), NOW).map((a) => a.branch.name).join(" ");
}

/** The cells of an agent's row. */
function row(branch) {
  return AGENT_COLUMNS.map((column) => column.cell({ ...branch, told_at: NOW }, NOW).text).join("|");
}

function measured(rtt_ms) {
  return { id: "a", span_ms: 2_000, sent: 1, lost: rtt_ms === null ? 1 : 0, rtt_ms, rtt_min_ms: rtt_ms, rtt_max_ms: rtt_ms };
}

/** `"r . -"` → every 2 s from 2 s on: a reply (that took as many ms as its place), a loss, no word. */
function liveOf(text) {
  const live = new LiveQuality(NOW);
  for (const [at, sign] of text.split(" ").entries()) {
    if (sign !== "-") live.add(measured(sign === "r" ? at + 1 : null), NOW + (at + 1) * 2_000);
  }
  return live;
}

function keys(entries) {
  return entries.map((entry) => entry.key);
}
