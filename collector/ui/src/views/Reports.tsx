/** Availability of any time, with its bounds and its state; as a table, a CSV, and on paper. */
import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { ask } from "../api/ask";
import type { Availability, AvailabilityRow } from "../api/types";
import { filterChoices } from "../feed/filters";
import { type ReportForm, csvOf, ranked, reportForm, reportPath } from "../feed/report";
import { AvailabilityCell } from "../parts/Availability";
import { Note, Problem } from "../parts/bits";
import { save } from "../parts/save";
import { useAnswer, useRetry } from "../parts/useAnswer";
import { branchPath, devicePath } from "../route";
import { board, monitorPath, now, route, setParam, structure } from "../state";
import { duration, format, midnight, percent, regionWords, t, typeWords, zone } from "../words";

const BYS = ["branch", "region", "type", "device", "all"];
/** Months that can be chosen; an address may name an older one. */
const MONTHS = 36;
/** Rows that are on the screen unless somebody asks for all; paper has all of them. */
const ROWS_SHOWN = 500;

export default function Reports() {
  const words = t();
  void structure.value;
  const at = now.peek();
  if (at === null) return <Note>{words.waiting}</Note>;
  return <Report today={format.dayKey(at)} />;
}

/** `today` is a date of the zone in force. */
function Report({ today }: { today: string }) {
  const words = t();
  const form = reportForm(route.value.params, today.slice(0, 7));
  // Taken when it is asked for: the end of today's part must not move while somebody reads.
  const bounds = useMemo(() => (form.month ? null : boundsOf(form.from, form.to)), [form.month, form.from, form.to, zone.value]);
  const { value, error, isLoading } = useWhole((cursor) => reportPath(form, bounds, zone.value, cursor));
  const target = Number(form.target.replace(",", "."));
  const { rows, missed } = useMemo(() => ranked(value?.rows ?? [], target), [value, target]);
  const [isWhole, setWhole] = useState(false);
  const [isPrinting, setPrinting] = useState(false);
  useEffect(() => {
    if (!isPrinting) return;
    print();
    setPrinting(false);
  }, [isPrinting]);
  const shown = isWhole || isPrinting ? rows.length : Math.min(rows.length, ROWS_SHOWN);
  // Thousands of rows are not made anew with each letter of a target.
  const table = useMemo(() => <Table rows={rows.slice(0, shown)} by={form.by} target={target} />, [rows, shown, form.by, target, words, zone.value]);
  const saveCsv = () => save(csvOf(value?.rows ?? []), `ward-${form.by}-${form.month || `${form.from}-${form.to}`}.csv`);
  const choices = filterChoices(board, form);
  return (
    <article class="report">
      <h1>{words.reportTitle}</h1>
      <form class="form" onSubmit={(event) => event.preventDefault()}>
        <label><span>{words.by}</span><select value={form.by} onChange={(event) => setParam("by", event.currentTarget.value)}>{BYS.map((by) => <option key={by} value={by}>{words.bys[by]}</option>)}</select></label>
        <label><span>{words.month}</span><select value={form.month} onChange={(event) => pickMonth(event.currentTarget.value)}>{form.month === "" && <option value="">–</option>}{months(today, form.month).map((month) => <option key={month} value={month}>{format.month(month)}</option>)}</select></label>
        <label><span>{words.from}</span><input type="date" value={form.from} max={today} onChange={(event) => pickDate("from", event.currentTarget.value)} /></label>
        <label><span>{words.to}</span><input type="date" value={form.to} max={today} onChange={(event) => pickDate("to", event.currentTarget.value)} /></label>
        <label><span>{words.region}</span><select value={form.region} onChange={(event) => pickRegion(event.currentTarget.value)}><option value="">{words.allRegions}</option>{choices.region.map(([id, name]) => <option key={id} value={id}>{regionWords(name)}</option>)}</select></label>
        <label><span>{words.branch}</span><select value={form.branch} onChange={(event) => setParam("branch", event.currentTarget.value)}><option value="">{words.allBranches}</option>{choices.branch.map(([id, name]) => <option key={id} value={id}>{name}</option>)}</select></label>
        <label><span>{words.type}</span><select value={form.type} onChange={(event) => setParam("type", event.currentTarget.value)}><option value="">{words.allTypes}</option>{choices.type.map((type) => <option key={type} value={type}>{typeWords(type)}</option>)}</select></label>
        <label><span>{words.targetPercent}</span><input type="text" inputMode="decimal" size={7} value={form.target} onChange={(event) => setParam("target", event.currentTarget.value)} /></label>
        <button type="button" class="choice" disabled={!value} onClick={saveCsv}>{words.csv}</button>
        <button type="button" class="choice" disabled={!value} onClick={() => setPrinting(true)}>{words.print}</button>
      </form>
      {error && <Problem what={words.figuresFailed} error={error} />}
      {isLoading && !value && <Note role="status">{words.readingFigures}</Note>}
      {value && (
        <>
          <p>
            <strong>{words.reportOf(format.full(value.from_ms), format.full(value.to_ms), value.time_zone)}</strong> · {words.states[value.state] ?? value.state}
            {value.counted_to_ms < value.to_ms && ` · ${words.countedTo(format.full(value.counted_to_ms))}`}
            {Number.isFinite(target) && ` · ${words.missed(missed, form.target)}`}
          </p>
          <p>{narrowed(form)}</p>
          {rows.length === 0 ? <Note>{words.nothingToShow}</Note> : table}
          {rows.length > shown && <p>{words.worstOf(shown, rows.length)} <button type="button" class="choice" onClick={() => setWhole(true)}>{words.showAll}</button></p>}
        </>
      )}
    </article>
  );
}

function Table({ rows, by, target }: { rows: AvailabilityRow[]; by: string; target: number }) {
  const words = t();
  const heads = [
    words.ofDevices, words.availability, words.bounds, words.coverage, words.outagesCount, words.downTime, words.unknownTime, words.maintenanceTime,
    words.mttr, words.longest,
  ];
  return (
    <div class="table-scroll" tabIndex={0} role="group" aria-label={words.reportTitle}>
      <table>
        <thead>
          <tr>
            <th scope="col">{words.bys[by]}</th>
            {heads.map((head) => <th key={head} scope="col" class="number">{head}</th>)}
            <th scope="col">{words.state}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key}>
              <th scope="row"><RowName row={row} by={by} /></th>
              <td class="number">{format.number(row.devices)}</td>
              <td class={`number ${row.availability !== null && row.availability < target ? "n-down" : ""}`}><AvailabilityCell row={row} isAlone={false} /></td>
              <td class="number">{row.at_least === null ? "–" : `${percent(row.at_least)} – ${percent(row.at_most)} %`}</td>
              <td class="number">{row.coverage === null ? "–" : `${percent(row.coverage)} %`}</td>
              <td class="number">{format.number(row.outages)}</td>
              <td class="number">{time(row.down_ms)}</td>
              <td class="number">{time(row.unknown_ms)}</td>
              <td class="number">{time(row.maintenance_ms)}</td>
              <td class="number">{row.mttr_ms === null ? "–" : duration(row.mttr_ms)}</td>
              <td class="number">{row.longest_ms === null ? "–" : time(row.longest_ms)}</td>
              <td>{words.states[row.state] ?? row.state}{row.revision > 1 && `, ${words.revision(row.revision)}`}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function time(ms: number): string {
  return ms === 0 ? "0" : duration(ms);
}

function RowName({ row, by }: { row: AvailabilityRow; by: string }) {
  switch (by) {
    case "device":
      return <a href={devicePath(row.key)}>{row.name}</a>;
    case "branch":
      return <a href={branchPath(row.key)}>{row.name}</a>;
    case "region":
      return <a href={monitorPath({ region: row.key })}>{regionWords(row.name ?? row.key)}</a>;
    case "type":
      return <a href={monitorPath({ type: row.key })}>{typeWords(row.key)}</a>;
    default:
      return <>{t().bys["all"]}</>;
  }
}

/** Months back from today's, and the one that an address names. */
function months(today: string, named: string): string[] {
  const [year = 0, month = 1] = today.split("-").map(Number);
  const known = Array.from({ length: MONTHS }, (_, back) => new Date(Date.UTC(year, month - 1 - back, 1)).toISOString().slice(0, 7));
  return named === "" || known.includes(named) ? known : [...known, named];
}

/** What the report is about where that isn't everything: the form doesn't stand on paper. */
function narrowed({ region, branch, type }: ReportForm): string {
  const place = board.places.get(branch);
  const name = board.regions().find(({ id }) => id === region)?.name ?? region;
  return [region && regionWords(name), branch && t().branchName(place?.branch.name ?? branch), type && typeWords(type)].filter(Boolean).join(" · ");
}

function pickRegion(region: string): void {
  setParam("branch", "");
  setParam("region", region);
}

function pickMonth(month: string): void {
  setParam("from", "");
  setParam("to", "");
  setParam("month", month);
}

function pickDate(which: "from" | "to", date: string): void {
  const other = which === "from" ? "to" : "from";
  setParam("month", "");
  setParam(which, date);
  if (!route.value.params.get(other)) setParam(other, date);
}

/** The moments at which the first date begins and the last one ends, in the zone in force; of today, the whole minutes so far. */
function boundsOf(from: string, to: string): { from: number; to: number } | null {
  const [first, last] = [Date.parse(`${from}T12:00:00Z`), Date.parse(`${to}T12:00:00Z`)];
  if (Number.isNaN(first) || Number.isNaN(last)) return null;
  const end = midnight(last + 86_400_000);
  return { from: midnight(first), to: Math.min(end, Math.floor((now.peek() ?? end) / 60_000) * 60_000) };
}

/** An answer with the rows of all its pages: what is said of them all is counted over them all. */
function useWhole(page: (cursor: string | null) => string | null): { value: Availability | null; error: Error | null; isLoading: boolean } {
  const first = useAnswer<Availability>(page(null));
  const [rest, setRest] = useState<{ of: Availability; rows: AvailabilityRow[] } | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [turn, setTurn] = useState(0);
  useRetry(error, useCallback(() => setTurn((before) => before + 1), []));
  // The form already says what is asked for now: another report under it would be a wrong one.
  const begun = first.path === page(null) ? first.value : null;
  useEffect(() => {
    setError(null);
    if (begun === null || begun.next_cursor === null) return undefined;
    let isGone = false;
    void (async () => {
      const rows = [...begun.rows];
      for (let cursor: string | null = begun.next_cursor; cursor !== null && !isGone; ) {
        const answer: Availability = await ask<Availability>(page(cursor) ?? "");
        rows.push(...answer.rows);
        cursor = answer.next_cursor;
      }
      if (!isGone) setRest({ of: begun, rows });
    })().catch((failed: Error) => !isGone && setError(failed));
    return () => {
      isGone = true;
    };
  }, [begun, turn]);
  const value = useMemo(() => {
    if (begun === null || begun.next_cursor === null) return begun;
    return rest?.of === begun ? { ...begun, rows: rest.rows } : null;
  }, [begun, rest]);
  return { value, error: first.error ?? error, isLoading: first.isLoading || (value === null && begun !== null && error === null) };
}
