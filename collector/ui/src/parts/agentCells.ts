/** The words of an agent's figures. */
import type { Branch } from "../api/types";
import { type AgentColumn, aDay, backlog, hasReported, isClockOff } from "../feed/agents";
import { duration, format, kilobytes, regionWords, roundDuration, t } from "../words";

export interface CellWords {
  text: string;
  tone?: "warn" | "quiet";
  aside?: string;
}

const NOT_KNOWN: CellWords = { text: "–", tone: "quiet" };

/** `lostMs` is for how long the page has had no connection. */
export function agentCell(column: AgentColumn, branch: Branch, now: number, lostMs = 0): CellWords {
  const words = t();
  const { spent } = branch;
  switch (column) {
    case "branch":
      return { text: branch.name };
    case "region":
      return { text: regionWords(branch.region_name ?? branch.region ?? "") };
    case "contact":
      return { text: words.contacts[branch.contact ?? "never"] ?? "", ...(branch.contact === "silent" ? { tone: "warn" as const } : {}) };
    case "age":
      return ageCell(branch, now, lostMs);
    case "version":
      return branch.agent_version ? { text: branch.agent_version } : NOT_KNOWN;
    case "behind": {
      const behind = backlog(branch, now);
      return behind === null ? { text: "" } : { text: duration(behind), tone: "warn" };
    }
    case "line":
      return costCell(spent ? spent.sent_bytes + spent.received_bytes : undefined, spent?.over_ms, kilobytes);
    case "card":
      return costCell(spent?.disk_bytes, spent?.over_ms, kilobytes);
    case "flushes":
      return costCell(spent?.flushes, spent?.over_ms, format.number);
  }
  if (!hasReported(branch)) return NOT_KNOWN;
  switch (column) {
    case "waiting":
      return numberCell(branch.waiting);
    case "buffer":
      return branch.buffer_volatile ? { text: words.inMemory, tone: "warn" } : { text: kilobytes(branch.buffer_bytes ?? 0), ...(branch.buffer_bytes ? {} : { tone: "quiet" as const }) };
    case "clock":
      return clockCell(branch);
    case "missed":
      return numberCell(branch.ticks_missed);
    case "errors":
      return numberCell(branch.send_errors);
    case "drops":
      return numberCell(branch.receive_drops);
  }
}

/** The feed doesn't speak of a branch that is well: its age is then known only to be less than what makes it silent. */
function ageCell(branch: Branch, now: number, lostMs: number): CellWords {
  if (branch.contact === "connected") {
    const most = (branch.silent_after_ms ?? 0) + lostMs;
    return { text: most === 0 ? t().now : `< ${roundDuration(most)}`, tone: "quiet" };
  }
  return branch.observed_through == null ? NOT_KNOWN : { text: duration(now + lostMs - branch.observed_through), tone: "warn" };
}

function numberCell(number: number | null | undefined): CellWords {
  if (number === undefined || number === null) return NOT_KNOWN;
  return number === 0 ? { text: "0", tone: "quiet" } : { text: format.number(number) };
}

export function clockCell(branch: Branch): CellWords {
  const words = t();
  const off = branch.clock_ahead_ms ?? 0;
  if (isClockOff(branch)) {
    const much = Math.abs(off) < 60_000 ? `${(Math.abs(off) / 1000).toFixed(1)} ${words.seconds}` : roundDuration(Math.abs(off));
    return { text: off > 0 ? words.clockFast(much) : words.clockSlow(much), tone: "warn" };
  }
  return branch.clock_synchronised ? { text: words.clockSynchronised, tone: "quiet" } : { text: words.clockNotSynchronised };
}

function costCell(amount: number | undefined, overMs: number | undefined, write: (amount: number) => string): CellWords {
  const day = aDay(amount, overMs);
  if (day === null) return NOT_KNOWN;
  return day.isSoFar ? { text: write(day.amount), aside: t().soFar } : { text: write(day.amount) };
}
