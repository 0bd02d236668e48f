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
/** Of a branch in full screen: its lines of devices, and the least width that shows its name. */
const TILE_LINES = 2;
const TILE_MIN = 6;

/** In full screen nobody scrolls: the grid is drawn as large as it fits, and no smaller than the last of these. */
const UNITS = [1, 0.9, 0.8, 0.75, 0.7, 0.65, 0.6];

interface Cards {
  place: Place;
  devices: Device[];
}
type Row =
  | { row: "region"; key: string; name: string; counts: Counts; branches: number; height: number }
  | { row: "cards"; key: string; cards: Cards[]; columns: number; height: number }
  | { row: "tiles"; key: string; tiles: Tile[]; height: number };
/** In full screen: a region's name, or a branch. */
type Tile = { key: string; width: number } & ({ name: string; counts: Counts } | { card: Cards });

const minute = computed(() => Math.floor((now.value ?? 0) / 60_000));

export function Grid() {
  const box = useRef<HTMLDivElement>(null);
  const rem = useRem();
  const width = useWidth(box) / rem;
  const version = drawn.value;
  // Failures grow old also while nothing changes.
  void minute.value;
  const chosen = filters.value;
  const isWall = wall.value;
  const { rows, shown, unit } = useMemo(() => (isWall ? fitted(width, roomBelow(box.current) / rem) : layout(width)), [version, chosen, width, isWall, rem]);
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
  let last = flow(width, UNITS[0] as number);
  for (const unit of UNITS.slice(1)) {
    if (last.rows.reduce((sum, row) => sum + row.height, 0) <= height) break;
    last = flow(width, unit);
  }
  return last;
}

/** Branches one after the other in lines of one height, each as wide as its devices: little is left empty. `width` in rem. */
function flow(width: number, unit: number): Layout {
  const wide = width / unit;
  const rows: Row[] = [];
  let tiles: Tile[] = [];
  let used = 0;
  const flush = () => {
    if (tiles.length > 0) rows.push({ row: "tiles", key: `tiles:${rows.length}`, tiles, height: cardsHeight(TILE_LINES) * unit });
    tiles = [];
    used = 0;
  };
  const { regions, shown } = chosenRegions();
  for (const { id, name, counts, cards } of regions) {
    const region: Tile = { key: `region:${id}`, width: TILE_MIN, name, counts };
    const all = [region, ...cards.map((card): Tile => ({ key: card.place.id, width: Math.min(wide, tileWidth(card.devices.length)), card }))];
    all.forEach((tile, at) => {
      // A region's name stands beside its first branch.
      const following = at === 0 ? (all[1]?.width ?? 0) + GAP : 0;
      if (used + tile.width + following > wide) flush();
      tiles.push(tile);
      used += tile.width + GAP;
    });
  }
  flush();
  return { rows, shown, unit };
}

function tileWidth(devices: number): number {
  const perLine = Math.ceil(devices / TILE_LINES);
  // Half a unit for the borders, whose width is in pixels.
  return Math.max(TILE_MIN, perLine * (CELL + CELL_GAP) + 2 * CARD_PADDING + 0.5);
}

function cardsHeight(lines: number): number {
  return CARD_HEAD + lines * (CELL + CELL_GAP) + CARD_PADDING + GAP + 0.15;
}

interface ChosenRegion {
  id: string;
  name: string;
  counts: Counts;
  branches: number;
  cards: Cards[];
}

/** Regions with what of their branches passes the filters. */
function chosenRegions(): { regions: ChosenRegion[]; shown: number } {
  const chosenOf = chooser(filters.value);
  const keepEmpty = isUnfiltered(filters.value);
  const regions: ChosenRegion[] = [];
  let shown = 0;
  for (const { id, name, places } of board.regions()) {
    const cards: Cards[] = [];
    const counts = none();
    for (const place of places) {
      addCounts(counts, place.counts, 1);
      const devices = chosenOf(place);
      if (devices.length === 0 && !(keepEmpty && place.devices.length === 0)) continue;
      cards.push({ place, devices });
      shown += devices.length;
    }
    if (cards.length > 0) regions.push({ id, name, counts, branches: places.length, cards });
  }
  return { regions, shown };
}

/** `width` in rem. */
function layout(width: number): Layout {
  const columns = Math.max(1, Math.floor((width + GAP) / (CARD_MIN + GAP)));
  const cardWidth = (width - GAP * (columns - 1)) / columns;
  const perLine = Math.max(1, Math.floor((cardWidth - 2 * CARD_PADDING - 0.15 + CELL_GAP) / (CELL + CELL_GAP)));
  const { regions, shown } = chosenRegions();
  const rows: Row[] = [];
  for (const { id, name, counts, branches, cards } of regions) {
    rows.push({ row: "region", key: `region:${id}`, name, counts, branches, height: REGION_HEAD });
    for (let at = 0; at < cards.length; at += columns) {
      const some = cards.slice(at, at + columns);
      const lines = Math.max(...some.map(({ devices }) => Math.ceil(devices.length / perLine)), 1);
      rows.push({ row: "cards", key: `${id}:${at}`, cards: some, columns, height: cardsHeight(lines) });
    }
  }
  return { rows, shown, unit: 1 };
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
  if (row.row === "tiles") {
    return (
      <div class="cards" style={{ gridTemplateColumns: row.tiles.map(({ width }) => `calc(${width} * var(--unit))`).join(" ") }}>
        {row.tiles.map((tile) => "card" in tile ? <CardOf key={tile.key} {...tile.card} /> : (
          <h3 key={tile.key} class="region-tile">{regionWords(tile.name)} {tile.counts.down > 0 && <span class="n-down">{t().nDown(tile.counts.down)}</span>}</h3>
        ))}
      </div>
    );
  }
  return (
    <div class="cards" style={{ gridTemplateColumns: `repeat(${row.columns}, minmax(0, 1fr))` }}>
      {row.cards.map(({ place, devices }) => <CardOf key={place.id} place={place} devices={devices} />)}
    </div>
  );
}

function CardOf({ place, devices }: Cards) {
  void drawn.value;
  return <Card place={place} devices={devices} revision={place.revision} old={devices.filter(isOld).length} />;
}

/** A branch that looks as before is not drawn again, whatever else changes. */
function Card({ place, devices, revision, old }: Cards & { revision: number; old: number }) {
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
  }, [place, revision, ids, old, language.value]);
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

/** Down for longer than what is folded away. */
function isOld(device: Device): boolean {
  return statusOf(device) === "down" && device.down_since != null && (now.peek() ?? 0) - device.down_since > foldMs.peek();
}

const LETTERS: Record<string, string> = { atm: "T" };

function Cell({ device, branchName }: { device: Device; branchName: string }) {
  const status = statusOf(device);
  const marks = [status];
  const flag = (name: string, holds: boolean | undefined) => holds && marks.push(name as typeof status);
  flag("old", isOld(device));
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
