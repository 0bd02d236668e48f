/** The fleet of agents: what is wrong with each, and the order of their table. Pure. */
import type { Branch } from "../api/types";
import { agentSearchWords } from "../words";
import type { Board } from "./board";
import { byName } from "./board";
import { type Filters, includesAll, searched } from "./filters";

/** An agent that still holds entries and is further behind than this has a backlog, not a batch. */
const BACKLOG_MS = 30_000;
/** A clock that is off by less is nobody's trouble. */
const CLOCK_OFF_MS = 1_000;
const DAY_MS = 24 * 3_600_000;
/** Less than this says nothing of a day. */
const SCALED_FROM_MS = 3_600_000;

/** What can be wrong with an agent, and how much each weighs: more than all that follow it together. */
const WEIGHTS = { silent: 64, volatile: 32, behind: 16, clock: 8, config: 4, old_version: 2, never: 1 };
export type AgentProblem = keyof typeof WEIGHTS;

/** How far the centre's log of a connected branch lags behind, or null when there's no backlog. */
export function backlog(branch: Branch, now: number): number | null {
  if (branch.contact !== "connected" || !((branch.waiting ?? 0) > 0) || branch.logged_through == null) return null;
  // A few entries on their way are no backlog, however long ago they were spoken of.
  return branch.told_at - branch.logged_through > BACKLOG_MS ? now - branch.logged_through : null;
}

/** Whether the agent has said how it is since the collector started: without that its figures are zeros of nobody. */
export function hasReported(branch: Branch): boolean {
  return (branch.spent?.over_ms ?? 0) > 0;
}

export function isClockOff(branch: Branch): boolean {
  return Math.abs(branch.clock_ahead_ms ?? 0) > CLOCK_OFF_MS;
}

/** Whether the agent doesn't have the config that it was sent, as far as it has told. */
export function isConfigPending({ config_wanted, config_version }: Branch): boolean {
  return config_wanted != null && config_version !== config_wanted;
}

/** What is wrong with a branch's agent, the worst first. `newest` is the version that most of the fleet should have. */
export function problemsOf(branch: Branch, now: number, newest: string): AgentProblem[] {
  const problems: AgentProblem[] = [];
  if (branch.contact === "silent") problems.push("silent");
  if (branch.buffer_volatile) problems.push("volatile");
  if (backlog(branch, now) !== null) problems.push("behind");
  // What a silent agent's clock was like says nothing of what it is.
  if (branch.contact === "connected" && isClockOff(branch)) problems.push("clock");
  if (branch.config_version != null && isConfigPending(branch)) problems.push("config");
  if (branch.agent_version && newest && compareVersions(branch.agent_version, newest) < 0) problems.push("old_version");
  if (branch.contact !== "connected" && branch.contact !== "silent") problems.push("never");
  return problems;
}

/** The newest version that any agent runs. */
export function newestVersion(board: Board): string {
  let newest = "";
  for (const { branch } of board.places.values()) {
    if (branch.agent_version && compareVersions(branch.agent_version, newest) > 0) newest = branch.agent_version;
  }
  return newest;
}

export function compareVersions(a: string, b: string): number {
  const [left, right] = [a.split("."), b.split(".")];
  for (let i = 0; i < Math.max(left.length, right.length); i += 1) {
    const difference = (Number.parseInt(left[i] ?? "0", 10) || 0) - (Number.parseInt(right[i] ?? "0", 10) || 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** A cost scaled to a day, or what it is so far while it covers too little to tell a day from; null before any word. */
export function aDay(amount: number | undefined, overMs: number | undefined): { amount: number; isSoFar: boolean } | null {
  if (!overMs || amount === undefined) return null;
  const isSoFar = overMs < SCALED_FROM_MS;
  return { amount: isSoFar ? amount : (amount * DAY_MS) / overMs, isSoFar };
}

export const AGENT_COLUMNS = [
  "branch", "region", "contact", "age", "version", "waiting", "behind", "buffer", "clock", "line", "card", "flushes", "missed",
  "errors", "drops",
] as const;
export type AgentColumn = (typeof AGENT_COLUMNS)[number];
/** Columns of words: they begin with the first letter, numbers with the largest. */
const WORDS: readonly AgentColumn[] = ["branch", "region", "contact", "version"];

export interface AgentOrder {
  by: AgentColumn | "";
  isDescending: boolean;
}

/** What a column sorts by: null is not known and comes last in either direction. */
function sortValue(column: AgentColumn, branch: Branch, now: number): number | string | null {
  const reported = <T>(value: T): T | null => (hasReported(branch) ? value : null);
  const { spent } = branch;
  switch (column) {
    case "branch":
      return branch.name;
    case "region":
      return branch.region_name ?? branch.region ?? "";
    case "contact":
      return branch.contact === "silent" ? 0 : branch.contact === "connected" ? 2 : 1;
    case "age":
      return branch.contact === "connected" ? 0 : branch.observed_through == null ? null : now - branch.observed_through;
    case "version":
      return branch.agent_version || null;
    case "waiting":
      return reported(branch.waiting ?? null);
    case "behind":
      return backlog(branch, now);
    case "buffer":
      // What a power cut would lose comes before any number of bytes.
      return reported(branch.buffer_volatile ? Infinity : (branch.buffer_bytes ?? null));
    case "clock":
      return reported(isClockOff(branch) ? Math.abs(branch.clock_ahead_ms ?? 0) + 1 : branch.clock_synchronised ? 0 : 1);
    case "line":
      return spent ? (aDay(spent.sent_bytes + spent.received_bytes, spent.over_ms)?.amount ?? null) : null;
    case "card":
      return aDay(spent?.disk_bytes, spent?.over_ms)?.amount ?? null;
    case "flushes":
      return aDay(spent?.flushes, spent?.over_ms)?.amount ?? null;
    case "missed":
      return reported(branch.ticks_missed ?? null);
    case "errors":
      return reported(branch.send_errors ?? null);
    case "drops":
      return reported(branch.receive_drops ?? null);
  }
}

const SO_FAR: readonly AgentColumn[] = ["line", "card", "flushes"];

export interface AgentRow {
  branch: Branch;
  problems: AgentProblem[];
}

/** The branches that pass the filters, in this order: problems first unless it says otherwise. */
export function agents(board: Board, filters: Filters, order: AgentOrder, now: number): AgentRow[] {
  const words = searched(filters.q);
  const newest = newestVersion(board);
  const rows: AgentRow[] = [];
  for (const { branch } of board.places.values()) {
    if (filters.region && branch.region !== filters.region) continue;
    if (filters.branch && branch.id !== filters.branch) continue;
    const problems = problemsOf(branch, now, newest);
    const text = [branch.name, branch.id, branch.region_name, branch.agent_version, branch.contact, ...problems, agentSearchWords(branch.region_name, branch.contact ?? "never", problems)].join(" ").toLowerCase();
    if (includesAll(text, words)) rows.push({ branch, problems });
  }
  const byBranch = (a: AgentRow, b: AgentRow) => byName(a.branch.name, b.branch.name);
  const { by } = order;
  if (by === "") return rows.sort((a, b) => weight(b) - weight(a) || byBranch(a, b));
  const values = new Map(rows.map((row) => [row, sortValue(by, row.branch, now)]));
  const rank = (row: AgentRow) => {
    if (values.get(row) == null) return 2;
    // What is known so far can't be compared with whole days.
    return SO_FAR.includes(by) && (row.branch.spent?.over_ms ?? 0) < SCALED_FROM_MS ? 1 : 0;
  };
  const sign = order.isDescending ? -1 : 1;
  return rows.sort((a, b) => rank(a) - rank(b) || sign * compared(values.get(a), values.get(b)) || byBranch(a, b));
}

/** The order after a press on a column's head: most first for numbers, then the other way, then problems first again. */
export function pressed(order: AgentOrder, by: AgentColumn): AgentOrder {
  const isNumber = !WORDS.includes(by);
  if (order.by !== by) return { by, isDescending: isNumber };
  if (order.isDescending === isNumber) return { by, isDescending: !isNumber };
  return { by: "", isDescending: false };
}

function weight(row: AgentRow): number {
  return row.problems.reduce((sum, problem) => sum + WEIGHTS[problem], 0);
}

function compared(a: unknown, b: unknown): number {
  if (typeof a === "string" && typeof b === "string") return byName(a, b);
  const [left, right] = [Number(a), Number(b)];
  return left === right ? 0 : left < right ? -1 : 1;
}
