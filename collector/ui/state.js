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
/** How often a device that is looked at is asked for again; the server forgets it after 30 s. */
const WATCH_EVERY_MS = 10_000;
/** What the live line shows. */
export const LIVE_SPAN_MS = 120_000;
/** What "the last seconds" are. */
const LIVE_RECENT_MS = 10_000;
/** An agent tells every 2 s, or with each probe where those are rarer. Of what lies further apart, the between is not known. */
export const LIVE_STEP_MS = 4_000;
const DAY_MS = 24 * 3_600_000;
/** Less than this says nothing of a day. */
const SCALED_FROM_MS = 3_600_000;
/** A clock that is off by less is nobody's trouble. */
const CLOCK_OFF_MS = 1_000;
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
const grouped = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

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
      case "watched":
      case "problem":
        // They have no number: nothing of the board depends on them.
        return { effect: "alive" };
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
    this.branches = new Map(message.branches.map((branch) => [branch.id, toldAt(branch, message.now)]));
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

    for (const branch of branches) this.branches.set(branch.id, toldAt(branch, message.now));
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

/** A branch with the moment at which the server described it: a healthy branch may not be spoken of for minutes. */
function toldAt(branch, now) {
  return { ...branch, told_at: now };
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

/** How far the centre's log of a connected branch lags behind, or null when there's no backlog. */
export function backlog(branch, now) {
  if (branch.contact !== "connected" || !(branch.waiting > 0) || branch.logged_through == null) return null;
  // A few entries on their way are no backlog, however long ago they were spoken of.
  const wasBehind = branch.told_at - branch.logged_through > BACKLOG_MS;
  return wasBehind ? now - branch.logged_through : null;
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

// ---- the fleet of agents ----

/** What can be wrong with an agent, and how much each weighs: more than all that follow it together. */
const PROBLEM_WEIGHTS = { silent: 16, volatile: 8, behind: 4, clock: 2, never: 1 };

/** What is wrong with a branch's agent, the worst first, as `{ kind, words }`. */
export function agentProblems(branch, now) {
  const problems = [];
  const add = (kind, words) => problems.push({ kind, words });
  if (branch.contact === "silent") add("silent", "silent");
  else if (branch.contact !== "connected") add("never", "never connected");
  if (branch.buffer_volatile) add("volatile", "buffer in memory");
  const behind = backlog(branch, now);
  if (behind !== null) add("behind", `${roundDuration(behind)} behind`);
  // What a silent agent's clock was like says nothing of what it is.
  if (branch.contact === "connected" && isClockOff(branch)) add("clock", `clock ${clockDifference(branch)}`);
  return problems;
}

/** Whether the agent has said how it is since the collector started: without that its figures are zeros of nobody. */
function hasReported(branch) {
  return branch.spent?.over_ms > 0;
}

function isClockOff({ clock_ahead_ms }) {
  return Math.abs(clock_ahead_ms ?? 0) > CLOCK_OFF_MS;
}

function clockDifference({ clock_ahead_ms }) {
  const off = Math.abs(clock_ahead_ms);
  const words = off < 60_000 ? `${(off / 1000).toFixed(1)} s` : roundDuration(off);
  return `${words} ${clock_ahead_ms > 0 ? "fast" : "slow"}`;
}

/** A cost scaled to a day, or what it is so far while it covers too little to tell a day from; null before any word. */
export function aDay(amount, overMs) {
  if (!(overMs > 0) || amount == null) return null;
  const isSoFar = overMs < SCALED_FROM_MS;
  return { amount: isSoFar ? amount : (amount * DAY_MS) / overMs, isSoFar };
}

export function kilobytes(bytes) {
  const kB = bytes / 1000;
  if (kB > 0 && kB < 0.1) return "< 0.1";
  return kB > 0 && kB < 9.95 ? kB.toFixed(1) : grouped.format(kB);
}

/**
 * The columns of the fleet's table. `cell(branch, now)` gives the text, `value` to sort by (null: not known, always last),
 * and where needed `aside` (fainter, behind the text), `tone` (`warn` or `quiet`) and `hint`.
 */
export const AGENT_COLUMNS = [
  {
    key: "branch", group: "Agent", head: "Branch", hint: "The branch that the agent stands in; a press shows its devices",
    cell: (branch) => ({ text: branch.name, value: branch.name, hint: branch.name }),
  },
  {
    key: "region", group: "Agent", head: "Region", hint: "The region of the branch",
    cell: (branch) => ({ text: branch.region_name ?? branch.region ?? "", value: branch.region_name ?? branch.region ?? "" }),
  },
  {
    key: "contact", group: "Agent", head: "Contact", hint: "Whether the agent can be heard: silent, never heard, or connected",
    cell: contactCell,
  },
  {
    key: "age", group: "Agent", head: "Age", isNumber: true,
    hint: "How old the newest thing is that is known of the branch's devices", cell: ageCell,
  },
  {
    key: "version", group: "Agent", head: "Version", hint: "The agent's version",
    cell: ({ agent_version }) => (agent_version ? { text: agent_version, value: agent_version } : NOT_KNOWN),
  },
  {
    key: "waiting", group: "Backlog", head: "Entries", isNumber: true,
    hint: "Entries that wait for the collector's word that it has them",
    cell: reported((branch) => numberCell(branch.waiting)),
  },
  {
    key: "behind", group: "Backlog", head: "Behind", isNumber: true,
    hint: "How far the collector's log of the branch lags behind while entries wait", cell: behindCell,
  },
  {
    key: "buffer", group: "Backlog", head: "Buffer, kB", isNumber: true,
    hint: "Waiting entries on the agent's card. In memory: the card takes nothing, and a power cut loses them",
    cell: reported(bufferCell),
  },
  {
    key: "clock", group: "Agent's machine", head: "Clock", isNumber: true,
    hint: "Whether something like NTP vouches for the machine's clock, and how far it is off when that is more than 1 s",
    cell: reported(clockCell),
  },
  {
    key: "line", group: "A day", head: "Line, kB", isNumber: true,
    hint: "Sent and received in a day, with the headers of TLS, TCP and IP",
    cell: reported(({ spent }) => costCell(spent.sent_bytes + spent.received_bytes, spent, kilobytes,
      `sent ${kilobytes(spent.sent_bytes)} kB, received ${kilobytes(spent.received_bytes)} kB`)),
  },
  {
    key: "card", group: "A day", head: "Card, kB", isNumber: true, hint: "Written to the agent's card in a day",
    cell: reported(({ spent }) => costCell(spent.disk_bytes, spent, kilobytes, `${kilobytes(spent.disk_bytes)} kB written`)),
  },
  {
    key: "flushes", group: "A day", head: "Flushes", isNumber: true,
    hint: "How often in a day something was made durable on the agent's card",
    cell: reported(({ spent }) => costCell(spent.flushes, spent, (n) => grouped.format(n), `${spent.flushes} flushes`)),
  },
  {
    key: "missed", group: "Since its start", head: "Ticks missed", isNumber: true,
    hint: "Probes skipped since the agent's start because it was late",
    cell: reported((branch) => numberCell(branch.ticks_missed)),
  },
  {
    key: "errors", group: "Since its start", head: "Send errors", isNumber: true,
    hint: "Probes that could not be sent since the agent's start",
    cell: reported((branch) => numberCell(branch.send_errors)),
  },
  {
    key: "drops", group: "Since its start", head: "Drops", isNumber: true,
    hint: "Replies that the kernel dropped since the agent's start for want of room",
    cell: reported((branch) => numberCell(branch.receive_drops)),
  },
];

const NOT_KNOWN = { text: "–", value: null, tone: "quiet" };

/** A cell of what the agent itself has to say: not known until it has. */
function reported(cell) {
  return (branch, now) => (hasReported(branch) ? cell(branch, now) : NOT_KNOWN);
}

function contactCell({ contact }) {
  if (contact === "connected") return { text: "connected", value: 2 };
  return contact === "silent" ? { text: "silent", value: 0, tone: "warn" } : { text: "never", value: 1, tone: "quiet" };
}

/** The feed doesn't speak of a branch that is well: its age is then known only to be less than what makes it silent. */
function ageCell(branch, now) {
  if (branch.contact === "connected") {
    const most = branch.silent_after_ms;
    return { text: most == null ? "now" : `< ${roundDuration(most)}`, value: 0, tone: "quiet" };
  }
  if (branch.observed_through == null) return NOT_KNOWN;
  return { text: duration(now - branch.observed_through), value: now - branch.observed_through, tone: "warn" };
}

function numberCell(number) {
  if (number == null) return NOT_KNOWN;
  return { text: grouped.format(number), value: number, tone: number === 0 ? "quiet" : "" };
}

function behindCell(branch, now) {
  const behind = backlog(branch, now);
  return behind === null ? { ...NOT_KNOWN, text: "" } : { text: duration(behind), value: behind, tone: "warn" };
}

function bufferCell({ buffer_volatile, buffer_bytes }) {
  // What a power cut would lose comes before any number of bytes.
  if (buffer_volatile) return { text: "in memory", value: Infinity, tone: "warn" };
  return { text: kilobytes(buffer_bytes), value: buffer_bytes, tone: buffer_bytes === 0 ? "quiet" : "" };
}

function clockCell(branch) {
  const off = Math.abs(branch.clock_ahead_ms ?? 0);
  const vouched = branch.clock_synchronised ? "" : "not synchronised";
  if (isClockOff(branch)) return { text: clockDifference(branch), value: off + 1, tone: "warn", hint: vouched };
  return vouched ? { text: vouched, value: 1 } : { text: "synchronised", value: 0, tone: "quiet" };
}

function costCell(amount, { over_ms }, words, hint) {
  const day = aDay(amount, over_ms);
  if (day === null) return NOT_KNOWN;
  const cell = { text: words(day.amount), value: day.amount, hint: `${hint} in ${roundDuration(over_ms)}` };
  return day.isSoFar ? { ...cell, aside: "so far", isSoFar: true } : cell;
}

/** The branches that pass the filters and the searched words, in the order of `view`. */
export function agents(board, filters, view, now) {
  const column = AGENT_COLUMNS.find(({ key }) => key === view.sort);
  const rows = [...board.branches.values()]
    .map((branch) => ({ branch, problems: agentProblems(branch, now) }))
    .filter(({ branch, problems }) => matchesAgent(branch, problems, filters));
  const byName = (a, b) => collator.compare(a.branch.name, b.branch.name);
  if (!column) return rows.sort((a, b) => weight(b.problems) - weight(a.problems) || byName(a, b));
  for (const row of rows) row.cell = column.cell(row.branch, now);
  const sign = view.isDescending ? -1 : 1;
  return rows.sort((a, b) => knownFirst(a.cell, b.cell) || sign * compared(a.cell.value, b.cell.value) || byName(a, b));
}

function weight(problems) {
  return problems.reduce((sum, { kind }) => sum + PROBLEM_WEIGHTS[kind], 0);
}

/** What isn't known comes last in either direction; what is known so far can't be compared with whole days. */
function knownFirst(a, b) {
  const rank = ({ value, isSoFar }) => (value === null ? 2 : isSoFar ? 1 : 0);
  return rank(a) - rank(b);
}

function compared(a, b) {
  if (typeof a === "string" && typeof b === "string") return collator.compare(a, b);
  return a === b ? 0 : a < b ? -1 : 1;
}

function matchesAgent(branch, problems, filters) {
  if (filters.region && branch.region !== filters.region) return false;
  if (filters.branch && branch.id !== filters.branch) return false;
  const said = problems.map(({ words }) => words);
  return hasWords(filters.q, [branch.name, branch.id, branch.region_name, branch.agent_version, branch.contact, ...said]);
}

/** `128 agents: 126 connected, 2 silent · 3 with a problem` */
export function fleetWords(board, now) {
  const counts = { connected: 0, silent: 0, never: 0, troubled: 0 };
  for (const branch of board.branches.values()) {
    counts[branch.contact in counts ? branch.contact : "never"] += 1;
    if (agentProblems(branch, now).length > 0) counts.troubled += 1;
  }
  const contacts = ["connected", "silent", "never"].filter((contact) => counts[contact] > 0);
  const total = board.branches.size;
  const parts = contacts.map((contact) => `${counts[contact]} ${contact === "never" ? "never connected" : contact}`);
  const troubled = counts.troubled === 0 ? "no problem" : `${counts.troubled} with a problem`;
  return total === 0 ? "" : `${total} ${total === 1 ? "agent" : "agents"}: ${parts.join(", ")} · ${troubled}`;
}

// ---- views ----

/** Which view the address names, and how the fleet's table is sorted: problems first unless it says otherwise. */
export function viewFromQuery(query) {
  const params = new URLSearchParams(query);
  const [, minus, key] = /^(-?)(.*)$/.exec(params.get("sort") ?? "");
  const sort = AGENT_COLUMNS.some((column) => column.key === key) ? key : "";
  return { name: params.get("view") === "fleet" ? "fleet" : "devices", sort, isDescending: sort !== "" && minus === "-" };
}

/** The query with this view in it; parameters that aren't the view's are kept. */
export function queryWithView(query, { name, sort, isDescending }) {
  const params = new URLSearchParams(query);
  params.delete("view");
  params.delete("sort");
  if (name === "fleet") params.set("view", "fleet");
  if (name === "fleet" && sort) params.set("sort", (isDescending ? "-" : "") + sort);
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

/** The view after a press on a column's head: most first for numbers, then the other way, then problems first again. */
export function viewSorted(view, key) {
  const isNumber = AGENT_COLUMNS.find((column) => column.key === key).isNumber === true;
  if (view.sort !== key) return { ...view, sort: key, isDescending: isNumber };
  if (view.isDescending === isNumber) return { ...view, isDescending: !isNumber };
  return { ...view, sort: "", isDescending: false };
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
  return hasWords(filters.q, [device.name, device.id, device.ip, branch?.name, branch?.region_name, typeWords(device.device_type)]);
}

function hasWords(searched, parts) {
  const words = (searched ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const text = parts.join(" ").toLowerCase();
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

/** A duration whose second unit is left out where it is zero: `5 m`, `1 h 30 m`. */
export function roundDuration(ms) {
  return duration(ms).replace(/ 00 [hms]$/, "");
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

// ---- live quality ----

/** What is known of a device that is looked at, from one word of its agent to the next. */
export class LiveQuality {
  points = [];
  /** What the server says is wrong with asking. */
  problem = "";
  #askedAt = null;
  #since;

  constructor(now) {
    this.#since = now;
  }

  /** Whether it is time to ask for the device again; `now` is any clock that only goes forward. */
  isDue(now) {
    return this.#askedAt === null || now - this.#askedAt >= WATCH_EVERY_MS;
  }

  asked(now) {
    this.#askedAt = now;
  }

  /** The next chance to ask is to be taken: the connection is new, or the page is looked at again. */
  forgetAsking() {
    this.#askedAt = null;
  }

  add({ span_ms, sent, lost, rtt_ms, rtt_min_ms, rtt_max_ms }, now) {
    this.problem = "";
    // The server's clock was set back: what was drawn would lie in the future.
    if (this.points.length > 0 && now < this.points.at(-1).t_ms) this.points = [];
    this.points.push({ t_ms: now, span_ms, sent, lost, rtt_avg_ms: rtt_ms, rtt_min_ms, rtt_max_ms });
    this.points = this.points.filter((point) => now - point.t_ms <= LIVE_SPAN_MS);
  }

  /** The newest round trip and the loss of the last seconds; `silent_ms` is how long nothing has come. */
  recent(now) {
    const points = this.points.filter((point) => now - point.t_ms <= LIVE_RECENT_MS);
    const rtt_ms = points.findLast((point) => point.rtt_avg_ms != null)?.rtt_avg_ms ?? null;
    const sum = (key) => points.reduce((total, point) => total + point[key], 0);
    return { rtt_ms, sent: sum("sent"), lost: sum("lost"), silent_ms: now - (this.points.at(-1)?.t_ms ?? this.#since) };
  }

  /** One line of words: what is measured now, or why nothing is. */
  words(branch, now) {
    if (this.problem !== "") return `The live view was refused: ${this.problem}`;
    const { rtt_ms, sent, lost, silent_ms } = this.recent(now);
    if (sent > 0) {
      const trip = rtt_ms === null ? "no reply" : `${Number(rtt_ms.toPrecision(3))} ms`;
      const loss = `${lost === 0 ? "none" : lost} of ${sent} ${sent === 1 ? "probe" : "probes"} lost`;
      return `${trip} · ${loss} in ${LIVE_RECENT_MS / 1000} s`;
    }
    if (branch?.contact !== "connected") return "The branch's agent can't be heard: nothing is measured live.";
    if (silent_ms <= LIVE_RECENT_MS) return "Waiting for the agent…";
    return `Nothing from the agent for ${duration(silent_ms)}: it may probe this device more rarely.`;
  }
}
