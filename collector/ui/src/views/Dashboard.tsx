/** Regions and types, worst first, with their availability, and what is wrong now. */
import { computed } from "@preact/signals";
import type { Availability, AvailabilityRow } from "../api/types";
import { type Counts, addCounts, none, tally } from "../feed/board";
import { NO_FILTERS } from "../feed/filters";
import { type Trouble, troubles } from "../feed/troubles";
import { AvailabilityCell } from "../parts/Availability";
import { CountBar, Elapsed, MARKS, Note } from "../parts/bits";
import { useAnswer } from "../parts/useAnswer";
import { branchPath, devicePath } from "../route";
import { board, drawn, monitorPath, now } from "../state";
import { foldMs, format, midnight, regionWords, roundDuration, t, typeWords } from "../words";

/** Incidents that are shown; the monitor has all. */
const INCIDENTS = 12;
const DAY_MS = 86_400_000;
/** Figures of the past are asked for anew this often, while somebody looks. */
const FRESH_MS = 300_000;

type By = "region" | "type";
/** Grows when figures are to be asked for; null until the server's time is known, since "today" is its, not the browser's. */
const turn = computed(() => (now.value === null ? null : Math.floor(now.value / FRESH_MS)));

export default function Dashboard() {
  return (
    <div class="dash">
      <Division by="region" />
      <Incidents />
      <Division by="type" />
    </div>
  );
}

interface Paths {
  turn: number;
  of: [today: string, week: string, month: string];
}
const kept = new Map<By, Paths>();

/** The same questions for five minutes, and no new ones while nobody looks. */
function pathsOf(by: By): Paths["of"] | null {
  const known = kept.get(by);
  const at = turn.value;
  if (at === null || (known && (known.turn === at || document.hidden))) return known?.of ?? null;
  const to = Math.floor((now.peek() ?? 0) / 60_000) * 60_000;
  const path = (from: number) => `/api/v1/availability?by=${by}&from=${from}&to=${to}`;
  const of: Paths["of"] = [path(Math.min(midnight(to), to - 60_000)), path(to - 7 * DAY_MS), path(to - 30 * DAY_MS)];
  kept.set(by, { turn: at, of });
  return of;
}

interface Row {
  key: string;
  name: string;
  counts: Counts;
}

function Division({ by }: { by: By }) {
  void drawn.value;
  const words = t();
  const paths = pathsOf(by);
  const ranges = [useAnswer<Availability>(paths?.[0] ?? null), useAnswer<Availability>(paths?.[1] ?? null), useAnswer<Availability>(paths?.[2] ?? null)];
  const rows = (by === "region" ? byRegion() : byType()).sort((a, b) => b.counts.down - a.counts.down || b.counts.unknown - a.counts.unknown);
  const error = ranges.find((range) => range.error)?.error;
  const asOf = ranges[0]?.value?.counted_to_ms;
  const keyed = ranges.map(({ value }) => new Map(value?.rows.map((row) => [row.key, row]) ?? []));
  const title = by === "region" ? words.byRegion : words.byType;
  return (
    <section class="panel" aria-label={title}>
      <div class="section-head">
        {by === "region" ? <h1>{title}</h1> : <h2>{title}</h2>}
        {asOf !== undefined && <span class="faint">{words.figuresAsOf(format.minute(asOf))}</span>}
        {ranges.some(({ isLoading, value }) => isLoading && !value) && <span class="faint" role="status">{words.readingFigures}</span>}
      </div>
      {error && <p class="problem" role="alert">{words.figuresFailed(error.message)}</p>}
      <div class="table-scroll" tabIndex={0} role="group" aria-label={title}>
        <table class="named">
          <thead>
            <tr>
              <th scope="col">{by === "region" ? words.region : words.type}</th>
              <th scope="col" class="bar-column"><span class="skip">{words.statusFilter}</span></th>
              <th scope="col" class="number">{words.ofDevices}</th>
              <th scope="col" class="number">{words.statuses.down}</th>
              <th scope="col" class="number">{words.statuses.unknown}</th>
              <th scope="col" class="number">{words.statuses.flapping}</th>
              <th scope="col" class="number">{words.today}</th>
              <th scope="col" class="number">{words.sevenDays}</th>
              <th scope="col" class="number">{words.thirtyDays}</th>
            </tr>
          </thead>
          <tbody>{rows.map((row) => <DivisionRow key={row.key} by={by} row={row} ranges={keyed.map((map) => map.get(row.key))} />)}</tbody>
        </table>
      </div>
    </section>
  );
}

function DivisionRow({ by, row: { key, name, counts }, ranges }: { by: By; row: Row; ranges: (AvailabilityRow | undefined)[] }) {
  const path = (status: string) => monitorPath({ [by]: key, status });
  const number = (name: "down" | "unknown" | "flapping", tone: string) => (
    <td class="number">{counts[name] > 0 ? <a class={tone} href={path(name)}>{format.number(counts[name])}</a> : "0"}</td>
  );
  return (
    <tr>
      <th scope="row"><a href={path("")}>{name}</a></th>
      <td class="bar-column"><CountBar counts={counts} /></td>
      <td class="number">{format.number(counts.total)}</td>
      {number("down", "n-down")}
      {number("unknown", "n-unknown")}
      {number("flapping", "warn")}
      {ranges.map((row, at) => <td key={at} class="number"><AvailabilityCell row={row} /></td>)}
    </tr>
  );
}

function byRegion(): Row[] {
  return board.regions().map(({ id, name, places }) => {
    const counts = none();
    for (const place of places) addCounts(counts, place.counts, 1);
    return { key: id, name: regionWords(name), counts };
  });
}

function byType(): Row[] {
  const rows = new Map<string, Counts>();
  for (const place of board.places.values()) {
    for (const device of place.devices) {
      const counts = rows.get(device.device_type) ?? none();
      rows.set(device.device_type, counts);
      addCounts(counts, tally([device]), 1);
    }
  }
  return [...rows].map(([key, counts]) => ({ key, name: typeWords(key), counts }));
}

function Incidents() {
  void drawn.value;
  const words = t();
  const { recent, old } = troubles(board, NO_FILTERS, now.peek() ?? 0, foldMs.value);
  return (
    <section class="panel beside" aria-label={words.incidents}>
      <div class="section-head"><h2>{words.incidents}</h2><a href="/">{words.allIncidents}</a></div>
      {recent.length === 0 && <Note>{words.noIncidents}</Note>}
      <ul class="incidents">{recent.slice(0, INCIDENTS).map((entry) => <Incident key={entry.key} entry={entry} />)}</ul>
      {recent.length > INCIDENTS && <p><a href="/">{words.more(recent.length - INCIDENTS)}</a></p>}
      {old.length > 0 && <p class="faint">{words.olderThan(old.length, roundDuration(foldMs.value))}</p>}
    </section>
  );
}

function Incident({ entry }: { entry: Trouble }) {
  const isBranch = "devices" in entry;
  const path = isBranch ? branchPath(entry.place.id) : devicePath(entry.device.id);
  const mark = entry.kind === "recovered" ? MARKS.up : entry.kind === "unseen" ? MARKS.unknown : MARKS.down;
  const tone = entry.kind === "recovered" ? "n-up" : entry.kind === "unseen" ? "n-unknown" : "n-down";
  return (
    <li>
      <span class={tone} aria-hidden="true">{mark}</span>
      <a href={path}>{isBranch ? t().branchName(entry.name) : entry.name}</a>
      <span class="faint">{isBranch ? t().devices(entry.devices.length) : entry.place.branch.name} · {regionWords(entry.place.branch.region_name ?? "")}</span>
      <span class="number">{entry.kind !== "recovered" && <Elapsed since={entry.at} />}</span>
    </li>
  );
}
