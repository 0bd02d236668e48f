/** Every device as a cell, in its branch, in its region. */
import { useMemo, useRef } from "preact/hooks";
import { computed } from "@preact/signals";
import type { Device } from "../api/types";
import { backlog } from "../feed/agents";
import { type Counts, type Place, addCounts, none, statusOf } from "../feed/board";
import { chooser, isUnfiltered } from "../feed/filters";
import { branchPath, devicePath } from "../route";
import { board, drawn, filters, now, wall } from "../state";
import { duration, foldMs, language, regionWords, roundDuration, t } from "../words";
import { BackupLine, MARKS, deviceWords } from "./bits";
import { Virtual, useRem, useWidth } from "./Virtual";

/** In units of the grid, as in the style sheet: heights are known before anything is drawn. A unit is 1 rem but in full screen. */
const CARD_MIN = 13;
const GAP = 0.5;
const CELL = 1.9;
const CELL_GAP = 0.2;
const CARD_PADDING = 0.5;
const CARD_HEAD = 1.6;
const REGION_HEAD = 2.6;

/** In full screen nobody scrolls: the grid is drawn as large as it fits, and no smaller than the last of these. */
const UNITS = [1, 0.9, 0.8, 0.7, 0.6, 0.5];

interface Cards {
  place: Place;
  devices: Device[];
}
type Row =
  | { row: "region"; key: string; name: string; counts: Counts; branches: number; height: number }
  | { row: "cards"; key: string; cards: Cards[]; columns: number; height: number };

const minute = computed(() => Math.floor((now.value ?? 0) / 60_000));

export function Grid() {
  const box = useRef<HTMLDivElement>(null);
  const rem = useRem();
  const width = useWidth(box) / rem;
  const version = drawn.value;
  const chosen = filters.value;
  const isWall = wall.value;
  const { rows, shown, unit } = useMemo(() => (isWall ? fitted(width, roomBelow(box.current) / rem) : layout(width, 1)), [version, chosen, width, isWall, rem]);
  return (
    <>
      <div class="grid-head">
        <ul class="legend" aria-label={t().legend}>
          <li><span class="cell up" aria-hidden="true">R</span> {t().status.up}</li>
          <li><span class="cell down" aria-hidden="true">{MARKS.down}</span> {t().status.down}</li>
          {foldMs.value < Number.MAX_SAFE_INTEGER && <li><span class="cell down old" aria-hidden="true">{MARKS.down}</span> {t().downOld(roundDuration(foldMs.value))}</li>}
          <li><span class="cell unknown" aria-hidden="true">{MARKS.unknown}</span> {t().status.unknown}</li>
          <li><span class="cell up flapping" aria-hidden="true">R</span> {t().flapping}</li>
          <li><span class="cell up maintenance" aria-hidden="true">R</span> {t().inMaintenance}</li>
        </ul>
        {!isUnfiltered(chosen) && <span class="faint" role="status">{t().shownOf(shown, board.counts.total)}</span>}
      </div>
      {shown === 0 && board.counts.total > 0 && <p class="none">{t().noDeviceMatches}</p>}
      <div class="scroll" tabIndex={0} role="group" aria-labelledby="estate-title" onKeyDown={move}>
        <div ref={box} style={{ "--unit": `${unit}rem` }}>
          {width > 0 && <Virtual rows={rows} keyOf={keyOf} heightOf={heightOf} render={renderRow} role="presentation" />}
        </div>
      </div>
    </>
  );
}

function keyOf(row: Row): string {
  return row.key;
}

function heightOf(row: Row): number {
  return row.height;
}

interface Layout {
  rows: Row[];
  shown: number;
  /** In rem. */
  unit: number;
}

/** What is left of the screen from an element's top down, in pixels. */
function roomBelow(node: HTMLElement | null): number {
  const pane = node?.parentElement;
  return pane ? innerHeight - pane.getBoundingClientRect().top : 0;
}

function fitted(width: number, height: number): Layout {
  let last = layout(width, UNITS[0] as number);
  for (const unit of UNITS.slice(1)) {
    if (last.rows.reduce((sum, row) => sum + row.height, 0) <= height) break;
    last = layout(width, unit);
  }
  return last;
}

/** `width` in rem. */
function layout(width: number, unit: number): Layout {
  const wide = width / unit;
  const columns = Math.max(1, Math.floor((wide + GAP) / (CARD_MIN + GAP)));
  const cardWidth = (wide - GAP * (columns - 1)) / columns;
  const perLine = Math.max(1, Math.floor((cardWidth - 2 * CARD_PADDING - 0.15 + CELL_GAP) / (CELL + CELL_GAP)));
  const chosenOf = chooser(filters.value);
  const keepEmpty = isUnfiltered(filters.value);
  const rows: Row[] = [];
  let shown = 0;
  for (const region of board.regions()) {
    const cards: Cards[] = [];
    const counts = none();
    for (const place of region.places) {
      addCounts(counts, place.counts, 1);
      const devices = chosenOf(place);
      if (devices.length === 0 && !(keepEmpty && place.devices.length === 0)) continue;
      cards.push({ place, devices });
      shown += devices.length;
    }
    if (cards.length === 0) continue;
    rows.push({ row: "region", key: `region:${region.id}`, name: region.name, counts, branches: region.places.length, height: REGION_HEAD * unit });
    for (let at = 0; at < cards.length; at += columns) {
      const some = cards.slice(at, at + columns);
      const lines = Math.max(...some.map(({ devices }) => Math.ceil(devices.length / perLine)), 1);
      const height = (CARD_HEAD + lines * (CELL + CELL_GAP) + CARD_PADDING + GAP + 0.15) * unit;
      rows.push({ row: "cards", key: `${region.id}:${at}`, cards: some, columns, height });
    }
  }
  return { rows, shown, unit };
}

function renderRow(row: Row) {
  if (row.row === "region") {
    const { down, unknown, total } = row.counts;
    return (
      <h3 class="region-head">
        {regionWords(row.name)}{" "}
        <span class="faint">{t().branches(row.branches)} · {t().devices(total)}</span>
        {down > 0 && <span class="n-down">{t().nDown(down)}</span>}
        {unknown > 0 && <span class="n-unknown">{t().nUnknown(unknown)}</span>}
      </h3>
    );
  }
  return (
    <div class="cards" style={{ gridTemplateColumns: `repeat(${row.columns}, minmax(0, 1fr))` }}>
      {row.cards.map(({ place, devices }) => <Card key={place.id} place={place} devices={devices} revision={place.revision} />)}
    </div>
  );
}

/** A branch that looks as before is not drawn again, whatever else changes. */
function Card({ place, devices, revision }: Cards & { revision: number }) {
  const ids = devices.length === place.devices.length ? "" : devices.map(({ id }) => id).join(" ");
  return useMemo(() => {
    const { branch } = place;
    return (
      <section class={`card ${branch.contact ?? "never"}`} aria-label={branch.name}>
        <p class="card-head">
          <a href={branchPath(place.id)} title={branch.name}>{branch.name}</a>
          <BranchNote place={place} />
        </p>
        <div class="cells">{devices.map((device) => <Cell key={device.id} device={device} branchName={branch.name} />)}</div>
      </section>
    );
  }, [place, revision, ids, minute.value, foldMs.value, language.value]);
}

function BranchNote({ place }: { place: Place }) {
  const { branch } = place;
  const at = now.value ?? 0;
  if (branch.contact === "silent") return <span class="card-note">{branch.last_contact == null ? t().silent : t().silentFor(duration(at - branch.last_contact))}</span>;
  if (branch.contact !== "connected") return <span class="card-note">{t().neverContact}</span>;
  if (branch.uplinks?.some(({ is_active, is_backup }) => is_active && is_backup)) return <BackupLine branch={branch} class="card-note" />;
  if (branch.buffer_volatile) return <span class="card-note warn">{t().inMemory}</span>;
  const behind = backlog(branch, at);
  return behind === null ? null : <span class="card-note warn">{t().behindBy(roundDuration(behind))}</span>;
}

const LETTERS: Record<string, string> = { atm: "T" };

function Cell({ device, branchName }: { device: Device; branchName: string }) {
  const status = statusOf(device);
  const isOld = status === "down" && device.down_since != null && (now.peek() ?? 0) - device.down_since > foldMs.peek();
  const marks = [status];
  const flag = (name: string, holds: boolean | undefined) => holds && marks.push(name as typeof status);
  flag("old", isOld);
  flag("flapping", device.is_flapping);
  flag("maintenance", device.in_maintenance);
  flag("flagged", (device.flags?.length ?? 0) > 0);
  flag("glow", board.recoveries.has(device.id));
  const words = deviceWords(device, branchName);
  return (
    <a class={`cell ${marks.join(" ")}`} href={devicePath(device.id)} tabIndex={-1} title={words} aria-label={words} data-device={device.id}>
      {status === "up" ? (LETTERS[device.device_type] ?? device.device_type.charAt(0).toUpperCase()) : MARKS[status]}
    </a>
  );
}

/** Arrow keys go from cell to cell: left and right in order, up and down to what stands nearest. */
function move(event: KeyboardEvent): void {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const pane = event.currentTarget as HTMLElement;
  if (!direction) return;
  const cells = [...pane.querySelectorAll<HTMLElement>(".cards .cell")];
  const from = document.activeElement instanceof HTMLElement && document.activeElement.matches(".cell") ? document.activeElement : null;
  const [across = 0, down = 0] = direction;
  const next = from === null ? cells[0] : across !== 0 ? cells[cells.indexOf(from) + across] : nearest(cells, from, down);
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function nearest(cells: HTMLElement[], from: HTMLElement, down: number): HTMLElement | undefined {
  const start = from.getBoundingClientRect();
  let best: HTMLElement | undefined;
  let least = Infinity;
  for (const cell of cells) {
    const box = cell.getBoundingClientRect();
    const below = (box.top - start.top) * down;
    if (below < start.height / 2) continue;
    const distance = below * 4 + Math.abs(box.left - start.left);
    if (distance < least) [best, least] = [cell, distance];
  }
  return best;
}
