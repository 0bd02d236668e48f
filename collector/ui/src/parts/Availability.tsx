/** A share of time as people read it, with what it rests on. */
import type { AvailabilityRow } from "../api/types";
import { percent, t } from "../words";

/** Less observed than this in percent, and a share of time says so beside itself. */
const THIN = 95;

/** `isAlone` is where no column of its own tells the coverage. */
export function AvailabilityCell({ row, isAlone = true }: { row: AvailabilityRow | undefined; isAlone?: boolean }) {
  const words = t();
  if (!row) return <>–</>;
  if (row.availability === null) return <span class="faint thin">{reasonWords(row.reason)}</span>;
  const bounds = row.at_least === null || row.at_most === null ? "" : words.boundsBetween(percent(row.at_least), percent(row.at_most));
  const coverage = row.coverage === null ? "" : words.coverageWords(percent(row.coverage));
  const isThin = isAlone && row.coverage !== null && row.coverage < THIN;
  return <span title={`${bounds}; ${coverage}`}>{percent(row.availability)} %{isThin && <span class="faint thin"> {coverage}</span>}</span>;
}

function reasonWords(reason: string | null): string {
  const words = t();
  const known: Record<string, string> = { not_observed: words.notObserved, all_maintenance: words.allMaintenance, no_devices: words.noDevicesShort };
  return known[reason ?? ""] ?? words.notKnown;
}
