/** Regions and types, worst first, with their availability, and what is wrong now. */
import { computed } from "@preact/signals";
import type { Availability, AvailabilityRow } from "../api/types";
import { type Counts, type Place, addCounts, none, tally } from "../feed/board";
import { NO_FILTERS } from "../feed/filters";
import { reportAddress } from "../feed/report";
import { type Trouble, troubles } from "../feed/troubles";
import { AvailabilityCell } from "../parts/Availability";
import { CountBar, Elapsed, MARKS, Note, Problem } from "../parts/bits";
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

interface Range {
  path: string;
  /** The dates of the report on it. */
  from: string;
  to: string;
}
interface Paths {
  turn: number;
  of: [today: Range, week: Range, month: Range];
}
const kept = new Map<By, Paths>();

/** The same questions for five minutes, and no new ones while nobody looks. */
function pathsOf(by: By): Paths["of"] | null {
  const known = kept.get(by);
  const at = turn.value;
  if (at === null || (known && (known.turn === at || document.hidden))) return known?.of ?? null;
  const to = Math.floor((now.peek() ?? 0) / 60_000) * 60_000;
  const range = (from: number): Range => ({ path: `/api/v1/availability?by=${by}&from=${from}&to=${to}`, from: format.dayKey(from), to: format.dayKey(to) });
  const of: Paths["of"] = [range(Math.min(midnight(to), to - 60_000)), range(to - 7 * DAY_MS), range(to - 30 * DAY_MS)];
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
  const ranges = [useAnswer<Availability>(paths?.[0].path ?? null), useAnswer<Availability>(paths?.[1].path ?? null), useAnswer<Availability>(paths?.[2].path ?? null)];
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
      {error && <Problem what={words.figuresFailed} error={error} />}
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
          <tbody>{rows.map((row) => <DivisionRow key={row.key} by={by} row={row} ranges={keyed.map((map, at) => ({ figures: map.get(row.key), dates: paths?.[at] }))} />)}</tbody>
        </table>
      </div>
    </section>
  );
}

function DivisionRow({ by, row: { key, name, counts }, ranges }: { by: By; row: Row; ranges: { figures: AvailabilityRow | undefined; dates: Range | undefined }[] }) {
  const path = (status: string) => monitorPath({ [by]: key, status });
  const number = (name: "down" | "unknown" | "flapping", tone: string) => (
    <td class="number">{counts[name] > 0 ? <a class={tone} href={path(name)}>{format.number(counts[name])}</a> : "0"}</td>
  );
  return (
    <tr>
      <th scope="row"><a href={path("")}>{name}</a></th>
      <td class="bar-column"><CountBar counts={counts} /></td>
      <td class="number"><a href={path("")}>{format.number(counts.total)}</a></td>
      {number("down", "n-down")}
      {number("unknown", "n-unknown")}
      {number("flapping", "warn")}
      {ranges.map(({ figures, dates }, at) => (
        <td key={at} class="number">{figures && dates ? <a href={reportAddress(by, key, dates.from, dates.to)}><AvailabilityCell row={figures} /></a> : "–"}</td>
      ))}
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
    for (const [type, counts] of typesIn(place)) {
      const sum = rows.get(type) ?? none();
      rows.set(type, sum);
      addCounts(sum, counts, 1);
    }
  }
  return [...rows].map(([key, counts]) => ({ key, name: typeWords(key), counts }));
}

const types = new WeakMap<Place, { revision: number; counts: Map<string, Counts> }>();

/** A branch's devices by type, counted anew when the branch looks different. */
function typesIn(place: Place): Map<string, Counts> {
  const known = types.get(place);
  if (known?.revision === place.revision) return known.counts;
  const counts = new Map<string, Counts>();
  for (const device of place.devices) {
    const sum = counts.get(device.device_type) ?? none();
    counts.set(device.device_type, sum);
    addCounts(sum, tally([device]), 1);
  }
  types.set(place, { revision: place.revision, counts });
  return counts;
}

function Incidents() {
  void drawn.value;
  const words = t();
  const { recent, old } = troubles(board, NO_FILTERS, now.peek() ?? 0, foldMs.value);
  return (
    <section class="panel beside" aria-label={words.incidents}>
      <div class="section-head"><h2>{words.incidents}</h2><a href="/">{words.allIncidents}</a></div>
      {recent.length === 0 && <Note>{board.about === null ? words.waiting : old.length === 0 ? words.noIncidents : words.noNewIncidents}</Note>}
      <ul class="incidents">{recent.slice(0, INCIDENTS).map((entry) => <Incident key={entry.key} entry={entry} />)}</ul>
      {recent.length > INCIDENTS && <p><a href="/">{words.more(recent.length - INCIDENTS)}</a></p>}
      {old.length > 0 && <p><a href="/">{words.olderThan(old.length, roundDuration(foldMs.value))}</a></p>}
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
