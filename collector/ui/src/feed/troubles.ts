/** The list of failures: what is down now, newest first, and what of it is one cause. Pure. */
import type { Device, Verdict } from "../api/types";
import { type Board, type Place, type Recovery, byName, statusOf } from "./board";
import { type Filters, chooser, filterKey, isUnfiltered } from "./filters";

/** Devices of a branch that all failed within this time failed of one cause. */
const TOGETHER_MS = 120_000;
/** Fewer devices than this are no sign of a common cause. */
const TOGETHER_FROM = 3;

interface Common {
  key: string;
  place: Place;
  name: string;
  /** When it began, as far as anybody knows. */
  at: number | null;
}
export type Trouble =
  | (Common & { kind: "down"; device: Device })
  | (Common & { kind: "recovered"; device: Device; recovery: Recovery })
  /** All of a branch failed together, and its agent tells so. */
  | (Common & { kind: "branch_down"; devices: Device[]; verdict: Verdict | null })
  /** Unknown devices of a branch, however many: one cause, not many failures. */
  | (Common & { kind: "unseen"; reason: "silent" | "isolated" | "other"; devices: Device[]; verdict: Verdict | null });

export interface Troubles {
  recent: Trouble[];
  /** Older than the set age: folded away, so that long-dead devices don't drown a new failure. */
  old: Trouble[];
  /** Unknown for reasons that are nobody's failure. */
  elsewhere: Trouble[];
}

interface Kept {
  revision: number;
  filters: string;
  entries: Trouble[];
}
const kept = new WeakMap<Place, Kept>();

/** What the list shows. What a branch adds is kept until it looks different. */
export function troubles(board: Board, filters: Filters, now: number, foldMs: number): Troubles {
  const result: Troubles = { recent: [], old: [], elsewhere: [] };
  const key = filterKey(filters);
  const chosenOf = chooser(filters);
  for (const place of board.places.values()) {
    let entries = kept.get(place);
    if (entries?.revision !== place.revision || entries.filters !== key) {
      entries = { revision: place.revision, filters: key, entries: entriesOf(place, chosenOf(place), board.recoveries, filters) };
      kept.set(place, entries);
    }
    for (const entry of entries.entries) {
      const isOld = entry.at !== null && now - entry.at > foldMs && entry.kind !== "recovered";
      if (entry.kind === "unseen" && entry.reason === "other") result.elsewhere.push(entry);
      else (isOld ? result.old : result.recent).push(entry);
    }
  }
  result.recent.sort(newestFirst);
  result.old.sort(newestFirst);
  result.elsewhere.sort((a, b) => byName(a.name, b.name));
  return result;
}

/** How many devices a list of entries is about. */
export function devicesIn(entries: Trouble[]): number {
  return entries.reduce((sum, entry) => sum + ("devices" in entry ? entry.devices.length : 1), 0);
}

/** An entry whose start nobody knows stands after those that can be placed. */
function newestFirst(a: Trouble, b: Trouble): number {
  if (a.at !== b.at) {
    if (a.at === null) return 1;
    if (b.at === null) return -1;
    return b.at - a.at;
  }
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

function entriesOf(place: Place, wanted: Device[], recoveries: Map<string, Recovery>, filters: Filters): Trouble[] {
  const entries: Trouble[] = [];
  const together = failedTogether(place, wanted);
  if (together) entries.push(together);
  for (const device of wanted) {
    const common = { key: `device:${device.id}`, place, name: device.name, device };
    const recovery = recoveries.get(device.id);
    if (statusOf(device) === "down" && !together) entries.push({ ...common, kind: "down", at: device.down_since ?? null });
    else if (statusOf(device) === "up" && recovery) entries.push({ ...common, kind: "recovered", at: recovery.downSince, recovery });
  }
  const unseen = unseenIn(place, wanted, filters);
  if (unseen) entries.push(unseen);
  return entries;
}

function failedTogether(place: Place, wanted: Device[]): Trouble | null {
  const { down, total } = place.counts;
  if (down < TOGETHER_FROM || down !== total || wanted.length !== total) return null;
  const since = place.devices.map((device) => device.down_since).filter((time) => time != null);
  if (since.length !== total) return null;
  const first = Math.min(...since);
  if (Math.max(...since) - first > TOGETHER_MS) return null;
  const { id, branch, devices } = place;
  return { key: `down:${id}`, kind: "branch_down", place, name: branch.name, at: first, devices, verdict: verdictOf(devices) };
}

function unseenIn(place: Place, wanted: Device[], filters: Filters): Trouble | null {
  const { branch } = place;
  const devices = wanted.filter((device) => statusOf(device) === "unknown");
  const isolated = devices.filter((device) => device.cause === "agent_isolated");
  const common = { key: `branch:${place.id}`, kind: "unseen" as const, place, name: branch.name, devices, verdict: verdictOf(devices) };
  if (branch.contact === "silent") {
    const isShown = devices.length > 0 || (place.devices.length === 0 && isUnfiltered(filters));
    return isShown ? { ...common, reason: "silent", at: branch.last_contact ?? null } : null;
  }
  if (isolated.length > 0) return { ...common, reason: "isolated", at: earliest(isolated.map(({ since }) => since)) };
  return devices.length > 0 ? { ...common, reason: "other", at: null } : null;
}

function verdictOf(devices: Device[]): Verdict | null {
  return devices.find(({ verdict }) => verdict != null)?.verdict ?? null;
}

function earliest(times: (number | null)[]): number | null {
  const known = times.filter((time) => time !== null);
  return known.length > 0 ? Math.min(...known) : null;
}
