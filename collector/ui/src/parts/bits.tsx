/** Small things that many views show. */
import type { ComponentChildren } from "preact";
import type { Branch, Device } from "../api/types";
import { type Counts, statusOf } from "../feed/board";
import { board, linkState, now } from "../state";
import { causeWords, duration, format, regionWords, roundDuration, t, timeWords, typeWords } from "../words";
import { refusal } from "../words/refusal";

/** Never colour alone: a mark tells a status too. */
export const MARKS = { up: "✓", down: "✕", unknown: "?" } as const;

/** How long something has lasted, second by second by the server's clock. */
export function Elapsed({ since }: { since: number | null | undefined }) {
  if (since == null || now.value === null) return null;
  return <>{duration(now.value - since)}</>;
}

export function Since({ time }: { time: number | null | undefined }) {
  // The day decides how a time is written, not the second.
  return <>{time == null ? t().sinceUnknown : t().since(timeWords(time, now.peek()))}</>;
}

/** How far what is known of a branch was observed. Without a connection only what was can be told, and not how long ago it is at most. */
export function observedWords(branch: Branch | undefined): string {
  if (branch?.contact !== "connected" || branch.silent_after_ms === undefined) return format.full(branch?.observed_through);
  if (linkState.value === "live") return t().lessThanAgo(roundDuration(branch.silent_after_ms));
  return format.full((now.peek() ?? 0) - branch.silent_after_ms);
}

export function StatusMark({ status }: { status: "up" | "down" | "unknown" }) {
  return <span class={`status-mark ${status}`} aria-hidden="true">{MARKS[status]}</span>;
}

export function statusWords(thing: { status?: unknown; cause?: string | null }): string {
  const status = statusOf(thing);
  return status === "unknown" ? `${t().status.unknown}: ${causeWords(thing.cause)}` : t().status[status];
}

/** What stands beside a device's status: flapping, maintenance, degraded, another box. */
export function flagsOf(device: Device): string[] {
  const flags = (device.flags ?? []).map((flag) => t().flagWords[flag] ?? flag.replaceAll("_", " "));
  if (device.in_maintenance) flags.unshift(t().inMaintenance);
  if (device.is_flapping) flags.unshift(t().flapping);
  return flags;
}

export function deviceWords(device: Device, branchName: string): string {
  return [device.name, statusWords(device), ...flagsOf(device), typeWords(device.device_type), branchName].join(", ");
}

/** Regions by their ids, as people read them. */
export function regionNames(ids: readonly string[] | null): string {
  if (ids === null) return t().allOfThem;
  const names = new Map(regionChoices());
  return ids.map((id) => names.get(id) ?? id).join(", ");
}

/** Regions that there are, with their names. */
export function regionChoices(): (readonly [id: string, name: string])[] {
  return board.regions().map(({ id, name }) => [id, regionWords(name)] as const);
}

/** The first of a branch's lines is down, and another carries it: it works, and needs somebody. */
export function BackupLine({ branch, class: name = "" }: { branch: Branch; class?: string }) {
  const active = branch.uplinks?.find(({ is_active }) => is_active);
  return active?.is_backup ? <span class={`warn ${name}`}>{t().onBackup(active.name)}</span> : null;
}

/** Shares of up, unknown and down. What is down is never too small to be seen. */
export function CountBar({ counts }: { counts: Counts }) {
  const part = (name: "down" | "unknown" | "up") =>
    counts[name] > 0 && <span class={`part ${name}`} style={{ flexGrow: counts[name] }} />;
  return (
    <span class="count-bar" aria-hidden="true">
      {part("down")}
      {part("unknown")}
      {part("up")}
    </span>
  );
}

export function Note({ children, role }: { children: ComponentChildren; role?: "status" | "alert" }) {
  return <p class="none" role={role}>{children}</p>;
}

/** What went wrong, in the page's language, and after it what the collector itself says of it, in English. */
export function Problem({ what, error }: { what?: string; error: unknown }) {
  const { words, detail } = refusal(error);
  return <p class="problem" role="alert">{what && `${what} `}{words}{detail && <> <span lang="en">{detail}</span></>}</p>;
}
