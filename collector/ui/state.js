// What the page knows and what follows from it, without DOM, clock or network: whatever needs the
// time is given `now`. The server alone decides a status; nothing here derives one.

/** The server sends a heartbeat every 5 s: two missed and a bit means that nobody is there. */
export const LOST_AFTER_MS = 12_000;
export const GLOW_MS = 5_000;
/** About a third of the fleet is long dead: failures older than this are folded away. */
export const OLD_FAILURE_MS = 24 * 3_600_000;
/** An agent that still holds entries and is further behind than this has a backlog, not a batch. */
const BACKLOG_MS = 30_000;
/** Clock readings that differ by more than this are a step or a sleep, not the network's delay. */
const CLOCK_STEP_MS = 2_000;
const RETRY_FIRST_MS = 1_000;
const RETRY_LIMIT_MS = 10_000;
/** Georgia has kept UTC+4 without summer time since 2005. Only places the ticks; labels use Intl. */
const TBILISI_OFFSET_MS = 4 * 3_600_000;

const CAUSE_WORDS = {
  never_observed: "not observed yet",
  agent_silent: "the branch's agent is silent",
  agent_isolated: "the agent is cut off from the branch's network",
  probe_error: "the probe itself failed",
  dns_failure: "its name does not resolve",
  paused: "monitoring is paused",
};

const TYPE_WORDS = { atm: "ATM", nvr: "NVR", biostar: "Biostar" };
const TYPE_ORDER = ["router", "switch", "access_point", "nvr", "paybox", "atm", "biostar"];
const collator = new Intl.Collator("en", { numeric: true });

// ---- the board: a snapshot, kept current by numbered deltas ----

/** All devices and branches as the server last described them. */
export class Board {
  epoch = null;
  seq = null;
  /** What the snapshot says about the server: version, simulated, demo, notes. */
  about = null;
  devices = new Map();
  branches = new Map();
  /** Device id → when it recovered and since when it had been down; kept for the glow's five seconds. */
  recoveries = new Map();

  /**
   * Takes one message and tells what to do about it. The effect is `shown` (with what was touched),
   * `alive` (nothing to draw), `gap` (deltas are missing: reconnect for a snapshot) or `closing`.
   */
  apply(message) {
    switch (message?.type) {
      case "snapshot":
        return this.#replaceAll(message);
      case "delta":
        return this.#change(message);
      case "heartbeat":
        return { effect: this.#isAhead(message) ? "gap" : "alive" };
      case "closing":
        return { effect: "closing", reason: String(message.reason ?? "") };
      default:
        // A newer server may send kinds that this page doesn't know; they are no reason to reconnect.
        return { effect: "alive" };
    }
  }

  /** Forgets recoveries that have glowed long enough; returns their device ids. */
  endGlow(now) {
    const ended = [...this.recoveries].filter(([, r]) => now - r.at >= GLOW_MS).map(([id]) => id);
    for (const id of ended) this.recoveries.delete(id);
    return ended;
  }

  #isAhead({ epoch, seq }) {
    return epoch !== this.epoch || seq > this.seq;
  }

  #replaceAll(message) {
    const before = this.devices;
    this.devices = new Map();
    for (const device of message.devices) this.#put(device, before.get(device.id), message.now);
    this.branches = new Map(message.branches.map((branch) => [branch.id, branch]));
    for (const id of this.recoveries.keys()) if (!this.devices.has(id)) this.recoveries.delete(id);
    this.epoch = message.epoch;
    this.seq = message.seq;
    this.about = {
      version: message.version,
      simulated: message.simulated === true,
      demo: message.demo === true,
      notes: message.notes ?? [],
    };
    return { effect: "shown", touched: { whole: true, devices: [], branches: [] } };
  }

  #change(message) {
    if (message.epoch !== this.epoch) return { effect: "gap" };
    if (message.seq <= this.seq) return { effect: "alive" };
    if (message.seq !== this.seq + 1) return { effect: "gap" };

    this.seq = message.seq;
    const { devices = [], branches = [] } = message;
    // Places on the grid change only when something comes, goes or moves.
    const whole =
      branches.some((branch) => placeChanged(this.branches.get(branch.id), branch)) ||
      devices.some((device) => placeChanged(this.devices.get(device.id), device));

    for (const branch of branches) this.branches.set(branch.id, branch);
    for (const device of devices) this.#put(device, this.devices.get(device.id), message.now);
    const touched = { whole, devices: devices.map((d) => d.id), branches: branches.map((b) => b.id) };
    return { effect: "shown", touched };
  }

  #put(device, before, now) {
    this.devices.set(device.id, device);
    if (statusOf(device) !== "up") this.recoveries.delete(device.id);
    else if (before && statusOf(before) === "down") {
      this.recoveries.set(device.id, { at: now, downSince: before.down_since });
    }
  }
}

function placeChanged(before, after) {
  const place = ["name", "region", "region_name", "branch", "device_type"];
  return before === undefined || place.some((key) => before[key] !== after[key]);
}

// ---- words for what a device or a branch is ----

/** Anything that isn't plainly up or down is unknown. */
export function statusOf(thing) {
  return thing.status === "up" || thing.status === "down" ? thing.status : "unknown";
}

export function causeWords(cause) {
  if (cause == null) return "no cause given";
  return CAUSE_WORDS[cause] ?? String(cause).replaceAll("_", " ");
}

export function typeWords(type) {
  const words = String(type ?? "other").replaceAll(/[_-]/g, " ");
  return TYPE_WORDS[type] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/** A status as a sentence part: `down`, `up`, `unknown: the branch's agent is silent`. */
export function statusWords(thing) {
  const status = statusOf(thing);
  return status === "unknown" ? `unknown: ${causeWords(thing.cause)}` : status;
}

/** How far the centre's picture of a connected branch lags behind, or null when there's no backlog. */
export function backlog(branch, now) {
  if (branch.contact !== "connected" || !(branch.waiting > 0) || branch.observed_through == null) return null;
  const behind = now - branch.observed_through;
  return behind > BACKLOG_MS ? behind : null;
}

// ---- counts ----

export function tally(devices) {
  const counts = { total: 0, up: 0, down: 0, unknown: 0, flapping: 0 };
  for (const device of devices) {
    counts.total += 1;
    counts[statusOf(device)] += 1;
    if (device.is_flapping) counts.flapping += 1;
  }
  return counts;
}

export function byBranch(devices) {
  const groups = new Map();
  for (const device of devices) {
    const group = groups.get(device.branch);
    if (group) group.push(device);
    else groups.set(device.branch, [device]);
  }
  return groups;
}

// ---- the list of failures ----

/**
 * What the list shows: `recent` and `old` (split at 24 h), each newest first, of failed devices and
 * of branches that can't be seen at all; `elsewhere`, the other unknown devices branch by branch.
 */
export function troubles(board, filters, now) {
  const entries = [];
  const elsewhere = [];
  const groups = byBranch(board.devices.values());

  for (const branchId of new Set([...groups.keys(), ...board.branches.keys()])) {
    const branch = board.branches.get(branchId) ?? { id: branchId, name: branchId };
    const devices = groups.get(branchId) ?? [];
    const wanted = devices.filter((device) => matches(device, branch, filters));
    entries.push(...failedDevices(wanted, branch, devices, board.recoveries));

    const unseen = unseenBranch(branch, devices, wanted, filters);
    if (unseen) (unseen.reason === "other" ? elsewhere : entries).push(unseen);
  }

  const isOld = (entry) => entry.at !== null && now - entry.at > OLD_FAILURE_MS && entry.kind !== "recovered";
  return {
    recent: entries.filter((entry) => !isOld(entry)).sort(newestFirst),
    old: entries.filter(isOld).sort(newestFirst),
    elsewhere: elsewhere.sort((a, b) => collator.compare(a.branch.name, b.branch.name)),
  };
}

function failedDevices(wanted, branch, siblings, recoveries) {
  const downHere = siblings.filter((device) => statusOf(device) === "down").length;
  const entries = [];
  for (const device of wanted) {
    const common = { key: `device:${device.id}`, device, branch, name: device.name };
    const recovery = recoveries.get(device.id);
    if (statusOf(device) === "down") {
      entries.push({ ...common, kind: "down", at: device.down_since ?? null, downHere, devicesHere: siblings.length });
    } else if (recovery) {
      entries.push({ ...common, kind: "recovered", at: recovery.downSince ?? null, recovery });
    }
  }
  return entries;
}

/** One entry for the unknown devices of a branch, however many: it is one cause, not many failures. */
function unseenBranch(branch, devices, wanted, filters) {
  const unknown = wanted.filter((device) => statusOf(device) === "unknown");
  const isolated = unknown.filter((device) => device.cause === "agent_isolated");
  const common = { key: `branch:${branch.id}`, kind: "unseen", branch, name: branch.name, unknown };

  if (branch.contact === "silent") {
    const shown = unknown.length > 0 || (devices.length === 0 && isUnfiltered(filters));
    return shown ? { ...common, reason: "silent", at: branch.last_contact ?? null } : null;
  }
  if (isolated.length > 0) {
    return { ...common, reason: "isolated", at: earliest(isolated.map((device) => device.since)) };
  }
  return unknown.length > 0 ? { ...common, reason: "other", at: null } : null;
}

function earliest(times) {
  const known = times.filter((time) => time != null);
  return known.length > 0 ? Math.min(...known) : null;
}

/** An entry whose start nobody knows stays with the recent ones, after those that can be placed. */
export function newestFirst(a, b) {
  if (a.at !== b.at) {
    if (a.at === null) return 1;
    if (b.at === null) return -1;
    return b.at - a.at;
  }
  return collator.compare(a.name, b.name);
}

/** `the probe itself failed (2), monitoring is paused (1)` */
export function causesInWords(devices) {
  const counts = new Map();
  for (const { cause } of devices) counts.set(cause, (counts.get(cause) ?? 0) + 1);
  if (counts.size === 1) return causeWords(devices[0].cause);
  return [...counts].map(([cause, count]) => `${causeWords(cause)} (${count})`).join(", ");
}

// ---- the grid ----

/** Regions in order of name, each with its branches, each with its devices. */
export function grid(board) {
  const groups = byBranch(board.devices.values());
  const regions = new Map();
  for (const branchId of new Set([...board.branches.keys(), ...groups.keys()])) {
    const devices = (groups.get(branchId) ?? []).sort(byTypeThenName);
    const branch = board.branches.get(branchId) ?? { id: branchId, name: branchId, region: devices[0].region };
    const id = branch.region ?? "";
    if (!regions.has(id)) regions.set(id, { id, name: branch.region_name ?? id, branches: [] });
    regions.get(id).branches.push({ id: branchId, branch, devices });
  }
  const ordered = [...regions.values()].sort((a, b) => collator.compare(a.name, b.name));
  for (const region of ordered) region.branches.sort((a, b) => collator.compare(a.branch.name, b.branch.name));
  return ordered;
}

function byTypeThenName(a, b) {
  return typeRank(a) - typeRank(b) || collator.compare(a.name, b.name);
}

function typeRank(device) {
  const rank = TYPE_ORDER.indexOf(String(device.device_type).replaceAll("-", "_"));
  return rank === -1 ? TYPE_ORDER.length : rank;
}

// ---- filters ----

const FILTER_KEYS = ["q", "region", "branch", "type", "status"];

export function filtersFromQuery(query) {
  const params = new URLSearchParams(query);
  return Object.fromEntries(FILTER_KEYS.map((key) => [key, params.get(key) ?? ""]));
}

/** The query with these filters in it; parameters that aren't filters are kept. */
export function queryWithFilters(query, filters) {
  const params = new URLSearchParams(query);
  for (const key of FILTER_KEYS) {
    if (filters[key]) params.set(key, filters[key]);
    else params.delete(key);
  }
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

export function isUnfiltered(filters) {
  return FILTER_KEYS.every((key) => !filters[key]);
}

/** Whether a device passes every filter; each word searched for must occur somewhere in it. */
export function matches(device, branch, filters) {
  if (filters.region && (branch?.region ?? device.region) !== filters.region) return false;
  if (filters.branch && device.branch !== filters.branch) return false;
  if (filters.type && device.device_type !== filters.type) return false;
  if (filters.status === "flapping" ? !device.is_flapping : filters.status && statusOf(device) !== filters.status) {
    return false;
  }
  const words = (filters.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const text = [device.name, device.id, device.ip, branch?.name, branch?.region_name, typeWords(device.device_type)]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

/** The choices of the filter menus, as `[value, words]`; branches only of the chosen region. */
export function filterChoices(board, filters) {
  const branches = [...board.branches.values()];
  const inRegion = branches.filter((branch) => !filters.region || branch.region === filters.region);
  const types = new Set([...board.devices.values()].map((device) => device.device_type));
  return {
    region: choices(branches.map((branch) => [branch.region, branch.region_name ?? branch.region])),
    branch: choices(inRegion.map((branch) => [branch.id, branch.name])),
    type: choices([...types].map((type) => [type, typeWords(type)])),
  };
}

function choices(pairs) {
  return [...new Map(pairs)].sort((a, b) => collator.compare(a[1], b[1]));
}

// ---- time ----

/**
 * The server's clock as seen from here. Fed with the server's `now` and the reading of a local
 * monotonic clock at which it arrived, so that a browser hours off still counts correctly.
 */
export class Clock {
  #offset = null;

  observe(serverNow, local) {
    const offset = serverNow - local;
    const stepped = this.#offset === null || Math.abs(offset - this.#offset) > CLOCK_STEP_MS;
    // Delay on the way only ever makes the offset smaller, so the largest is the closest.
    this.#offset = stepped ? offset : Math.max(offset, this.#offset);
  }

  /** The server's time, or null before it was ever heard. */
  now(local) {
    return this.#offset === null ? null : local + this.#offset;
  }
}

/** `45 s`, `3 m 12 s`, `2 h 05 m`, `3 d 04 h` */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  if (minutes === 0) return `${seconds} s`;
  if (hours === 0) return `${minutes} m ${twoDigits(seconds % 60)} s`;
  if (days === 0) return `${hours} h ${twoDigits(minutes % 60)} m`;
  return `${days} d ${twoDigits(hours % 24)} h`;
}

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

/** Time to wait before the n-th retry (from 0); `random` is in [0, 1). Pages must not return in step. */
export function retryDelay(attempt, random) {
  const limit = Math.min(RETRY_LIMIT_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt, 10));
  return limit / 2 + (limit / 2) * random;
}

// ---- history ----

/** Runs of points without a missing step: a line drawn across a gap would claim what nobody measured. */
export function runs(points, stepMs) {
  const result = [];
  let previous = null;
  for (const point of points) {
    if (point.rtt_avg_ms == null) {
      previous = null;
      continue;
    }
    const adjoins = previous !== null && point.t_ms - previous.t_ms < stepMs * 1.5;
    if (adjoins) result.at(-1).push(point);
    else result.push([point]);
    previous = point;
  }
  return result;
}

/** The parts of the intervals that lie within the range. */
export function clipped(intervals, fromMs, toMs) {
  return intervals
    .map((interval) => ({
      ...interval,
      from_ms: Math.max(interval.from_ms, fromMs),
      to_ms: Math.min(interval.to_ms ?? toMs, toMs),
    }))
    .filter((interval) => interval.to_ms > interval.from_ms);
}

export function intervalAt(intervals, time) {
  return intervals.find((interval) => interval.from_ms <= time && time < interval.to_ms) ?? null;
}

/** The point whose step holds `time`, or null in a gap. */
export function pointAt(points, stepMs, time) {
  return points.find((point) => point.t_ms <= time && time < point.t_ms + stepMs) ?? null;
}

/** The next round number, for the top of an axis. */
export function roundCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((ceiling) => ceiling >= value * 0.9999);
}

/** Round local times within the range, at most `most` of them. */
export function timeTicks(fromMs, toMs, most) {
  const minute = 60_000;
  const steps = [1, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 14_400].map((n) => n * minute);
  const step = steps.find((candidate) => (toMs - fromMs) / candidate <= most) ?? steps.at(-1);
  const first = Math.ceil((fromMs + TBILISI_OFFSET_MS) / step) * step - TBILISI_OFFSET_MS;
  const ticks = [];
  for (let tick = first; tick <= toMs; tick += step) ticks.push(tick);
  return ticks;
}
