/** The list of failures. Rows have fixed heights, so that a list of thousands can be scrolled at once. */
import { signal } from "@preact/signals";
import type { Device } from "../api/types";
import { type Recovery, statusOf } from "../feed/board";
import { isUnfiltered } from "../feed/filters";
import { type Trouble, devicesIn } from "../feed/troubles";
import { branchPath, devicePath } from "../route";
import { board, drawn, failures, filters, now } from "../state";
import { causeWords, duration, foldMs, regionWords, roundDuration, t, timeWords, typeWords } from "../words";
import { Elapsed, MARKS, Since, flagsOf, statusWords } from "./bits";
import { Virtual } from "./Virtual";

const HOUR_MS = 3_600_000;
/** Ages after which a failure may be folded away; the last is never. */
const FOLD_AGES = [HOUR_MS, 8 * HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS, Number.MAX_SAFE_INTEGER];

type Row =
  | { row: "entry"; key: string; entry: Trouble }
  | { row: "inside"; key: string; device: Device }
  | { row: "fold"; key: "old" | "elsewhere"; words: string };
const HEIGHTS = { entry: 4.4, inside: 1.9, fold: 2.6 };

/** Folds and branches that somebody opened. */
const open = signal<ReadonlySet<string>>(new Set());

function toggle(key: string): void {
  const next = new Set(open.value);
  if (!next.delete(key)) next.add(key);
  open.value = next;
}

export function Failures() {
  void drawn.value;
  const words = t();
  const { recent, old, elsewhere } = failures.value;
  const rows = rowsOf(recent, old, elsewhere);
  const isFiltered = !isUnfiltered(filters.value);
  return (
    <section class="trouble" aria-labelledby="trouble-title">
      <div class="section-head">
        <h1 id="trouble-title">{words.downNow}</h1>
        <label class="fold-age">
          <span>{words.foldAge}</span>
          <select value={String(foldMs.value)} onChange={(event) => (foldMs.value = Number(event.currentTarget.value))}>
            {FOLD_AGES.map((age) => <option key={age} value={String(age)}>{age === Number.MAX_SAFE_INTEGER ? words.foldNever : roundDuration(age)}</option>)}
          </select>
        </label>
        {isFiltered && <span class="faint">{words.filtered}</span>}
      </div>
      {recent.length + old.length === 0 && <p class="none">{nothing(isFiltered)}</p>}
      <div class="scroll" tabIndex={0} role="group" aria-labelledby="trouble-title">
        <Virtual rows={rows} keyOf={keyOf} heightOf={heightOf} render={renderRow} label={words.downNow} class="entries" />
      </div>
    </section>
  );
}

function keyOf(row: Row): string {
  return row.key;
}

function heightOf(row: Row): number {
  return HEIGHTS[row.row];
}

function rowsOf(recent: Trouble[], old: Trouble[], elsewhere: Trouble[]): Row[] {
  const rows: Row[] = [];
  const put = (entries: Trouble[]) => {
    for (const entry of entries) {
      rows.push({ row: "entry", key: entry.key, entry });
      if (!("devices" in entry) || !open.value.has(entry.key)) continue;
      for (const device of entry.devices) rows.push({ row: "inside", key: `${entry.key}/${device.id}`, device });
    }
  };
  put(recent);
  if (old.length > 0) {
    rows.push({ row: "fold", key: "old", words: t().olderThan(old.length, roundDuration(foldMs.value)) });
    if (open.value.has("old")) put(old);
  }
  if (elsewhere.length > 0) {
    rows.push({ row: "fold", key: "elsewhere", words: t().elsewhere(devicesIn(elsewhere)) });
    if (open.value.has("elsewhere")) put(elsewhere);
  }
  return rows;
}

function nothing(isFiltered: boolean): string {
  const words = t();
  if (board.about === null) return words.waiting;
  if (isFiltered) return words.noFailureMatches;
  if (board.counts.unknown > 0) return words.noneKnownDown(board.counts.unknown);
  return board.counts.total === 0 ? words.noDevices : words.nothingDown;
}

function renderRow(row: Row) {
  switch (row.row) {
    case "fold":
      return (
        <button type="button" class="fold" aria-expanded={open.value.has(row.key)} onClick={() => toggle(row.key)}>
          {row.words}
        </button>
      );
    case "inside":
      return <a class="inside" href={devicePath(row.device.id)}>{row.device.name} · {statusWords(row.device)}</a>;
    case "entry":
      return "devices" in row.entry ? <BranchEntry entry={row.entry} /> : <DeviceEntry entry={row.entry} />;
  }
}

function DeviceEntry({ entry }: { entry: Extract<Trouble, { kind: "down" | "recovered" }> }) {
  const { device, place } = entry;
  const isBack = entry.kind === "recovered";
  const words = t();
  const where = [place.branch.name, regionWords(place.branch.region_name ?? device.region), typeWords(device.device_type)].join(" · ");
  const why = isBack ? backWords(entry.recovery) : reasonWords(entry);
  const flags = flagsOf(device);
  return (
    <a class={`entry ${entry.kind}`} href={devicePath(device.id)}>
      <span class="mark" aria-hidden="true">{isBack ? MARKS.up : MARKS.down}</span>
      <span class="name" title={device.name}>{device.name}</span>
      <span class="elapsed">{!isBack && <Elapsed since={entry.at} />}</span>
      <span class="place" title={where}>{where}</span>
      <span class="since">{isBack ? words.upAgain : <Since time={device.down_since} />}</span>
      <span class="reason" title={why}>{flags.length > 0 && <b class="flags">{flags.join(", ")} · </b>}{why}</span>
    </a>
  );
}

/** What speaks for one device, or for its whole branch, being at fault. */
function reasonWords({ device, place }: Extract<Trouble, { kind: "down" }>): string {
  const words = t();
  const parts = [device.last_ok == null ? words.neverReplied : words.lastReply(timeWords(device.last_ok, now.peek()))];
  if (device.verdict && device.verdict !== "device_down") parts.unshift(words.verdicts[device.verdict] ?? device.verdict);
  if (device.cause != null) parts.unshift(causeWords(device.cause));
  if (place.counts.down > 1) parts.push(words.ofBranchDown(place.counts.down, place.counts.total));
  return parts.join(" · ");
}

function backWords({ downSince, upSince }: Recovery): string {
  return downSince == null ? t().upAgain : t().upAgainAfter(duration(upSince - downSince));
}

function BranchEntry({ entry }: { entry: Extract<Trouble, { kind: "unseen" | "branch_down" }> }) {
  const { place, devices } = entry;
  const words = t();
  const isDown = entry.kind === "branch_down";
  const why = [isDown ? words.wholeBranchDown(devices.length) : `${unseenWords(entry)} · ${words.devicesUnknown(devices.length)}`];
  if (entry.verdict) why.unshift(words.verdicts[entry.verdict] ?? entry.verdict);
  if (devices.some((device) => device.is_provisional)) why.unshift(words.provisional);
  const text = why.join(" · ");
  return (
    <div class={`entry ${isDown ? "down" : "unseen"}`}>
      <button type="button" class="mark unfold" aria-expanded={open.value.has(entry.key)} aria-label={`${words.branchName(place.branch.name)}: ${words.devices(devices.length)}`} onClick={() => toggle(entry.key)}>
        {isDown ? MARKS.down : MARKS.unknown}
      </button>
      <a class="name" href={branchPath(place.id)}>{words.branchName(place.branch.name)}</a>
      <span class="elapsed"><Elapsed since={entry.at} /></span>
      <span class="place">{regionWords(place.branch.region_name ?? place.branch.region ?? "")}</span>
      <span class="since">{entry.kind === "unseen" && entry.reason === "other" ? "" : <Since time={entry.at} />}</span>
      <span class="reason" title={text}>{text}</span>
    </div>
  );
}

function unseenWords(entry: Extract<Trouble, { kind: "unseen" }>): string {
  const words = t();
  const { contact } = entry.place.branch;
  if (entry.reason === "silent") return entry.at === null ? words.silent : words.noContactSince(timeWords(entry.at, now.peek()));
  if (entry.reason === "isolated") return causeWords("agent_isolated");
  if (contact === "never" || contact === undefined) return words.neverConnected;
  return causesInWords(entry.devices);
}

/** `the probe itself failed (2), monitoring is paused (1)` */
function causesInWords(devices: Device[]): string {
  const counts = new Map<string | null, number>();
  for (const { cause } of devices.filter((device) => statusOf(device) === "unknown")) counts.set(cause, (counts.get(cause) ?? 0) + 1);
  if (counts.size === 1) return causeWords([...counts.keys()][0]);
  return [...counts].map(([cause, number]) => `${causeWords(cause)} (${number})`).join(", ");
}
