/** Reports: what is asked for, and as CSV. Pure. */
import type { AvailabilityRow } from "../api/types";

export interface ReportForm {
  by: string;
  /** `2026-10`, or empty for `from` and `to`. */
  month: string;
  /** Dates of the zone, both included. */
  from: string;
  to: string;
  region: string;
  branch: string;
  type: string;
  target: string;
}

export function reportForm(params: URLSearchParams, thisMonth: string): ReportForm {
  const from = params.get("from") ?? "";
  const to = params.get("to") ?? "";
  return {
    by: params.get("by") ?? "branch",
    month: from && to ? "" : (params.get("month") ?? thisMonth),
    from,
    to,
    region: params.get("region") ?? "",
    branch: params.get("branch") ?? "",
    type: params.get("type") ?? "",
    target: params.get("target") ?? "99.9",
  };
}

/** Rows of an answer: as many as the collector gives at once. */
const PAGE = "10000";

/** The address of a report on what a region or a type consists of, between two dates. */
export function reportAddress(by: "region" | "type", key: string, from: string, to: string): string {
  return `/reports?${new URLSearchParams({ by: by === "region" ? "branch" : "device", [by]: key, from, to }).toString()}`;
}

/** Worst first, with what isn't known last; and how many missed what was promised, in percent. */
export function ranked(rows: readonly AvailabilityRow[], target: number): { rows: AvailabilityRow[]; missed: number } {
  const sorted = [...rows].sort((a, b) => (a.availability ?? 101) - (b.availability ?? 101));
  return { rows: sorted, missed: rows.filter(({ availability }) => availability !== null && availability < target).length };
}

/** The question to the collector; `bounds` are the moments of the dates, in ms. */
export function reportPath(form: ReportForm, bounds: { from: number; to: number } | null, zone: string, cursor: string | null): string | null {
  const params = new URLSearchParams({ by: form.by, limit: PAGE });
  if (zone) params.set("tz", zone);
  if (form.month) params.set("month", form.month);
  else if (bounds && bounds.to > bounds.from) {
    params.set("from", String(bounds.from));
    params.set("to", String(bounds.to));
  } else return null;
  if (form.region) params.set("region", form.region);
  if (form.branch) params.set("branch", form.branch);
  if (form.type) params.set("device_type", form.type);
  if (cursor) params.set("cursor", cursor);
  return `/api/v1/availability?${params.toString()}`;
}

const CSV_COLUMNS = [
  "key", "name", "devices", "availability", "at_least", "at_most", "coverage", "up_ms", "down_ms", "unknown_ms", "maintenance_ms", "outages",
  "mttr_ms", "longest_ms", "state", "revision",
] as const;

/** RFC 4180, figures as the collector has them. */
export function csvOf(rows: AvailabilityRow[]): string {
  const lines = rows.map((row) => CSV_COLUMNS.map((column) => csvField(row[column])).join(","));
  return [CSV_COLUMNS.join(","), ...lines].join("\r\n") + "\r\n";
}

export function csvField(value: string | number | null | undefined): string {
  if (value == null) return "";
  const text = String(value);
  // A spreadsheet takes a name that begins so for a formula.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
