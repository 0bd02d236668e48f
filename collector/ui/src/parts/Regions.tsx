/** Regions side by side, the worst first, each with its branches that need somebody. */
import { type Counts, type Place, type Region, addCounts, none } from "../feed/board";
import { chooser, isUnfiltered } from "../feed/filters";
import { tally } from "../feed/board";
import { branchPath } from "../route";
import { board, drawn, filters, monitorPath } from "../state";
import { regionWords, t } from "../words";
import { CountBar } from "./bits";

/** Branches that are named of one region; the rest is a number. */
const NAMED_LIMIT = 24;

interface Row {
  region: Region;
  counts: Counts;
  troubled: { place: Place; counts: Counts }[];
}

export function Regions() {
  void drawn.value;
  const rows = rowsOf();
  if (rows.length === 0) return <p class="none">{board.about === null ? t().waiting : board.counts.total === 0 ? t().noDevices : t().noDeviceMatches}</p>;
  return (
    <div class="scroll" tabIndex={0} role="group" aria-labelledby="estate-title">
      <div class="regions">{rows.map((row) => <RegionCard key={row.region.id} row={row} />)}</div>
    </div>
  );
}

function rowsOf(): Row[] {
  const chosenOf = chooser(filters.value);
  const isWhole = isUnfiltered(filters.value);
  const rows: Row[] = [];
  for (const region of board.regions()) {
    const counts = none();
    const troubled: Row["troubled"] = [];
    for (const place of region.places) {
      const of = isWhole ? place.counts : tally(chosenOf(place));
      addCounts(counts, of, 1);
      if (of.down + of.unknown > 0) troubled.push({ place, counts: of });
    }
    if (counts.total === 0 && !isWhole) continue;
    troubled.sort((a, b) => b.counts.down - a.counts.down || b.counts.unknown - a.counts.unknown);
    rows.push({ region, counts, troubled });
  }
  return rows.sort((a, b) => b.counts.down - a.counts.down || b.counts.unknown - a.counts.unknown);
}

function RegionCard({ row: { region, counts, troubled } }: { row: Row }) {
  const words = t();
  return (
    <section class="region-card">
      <h3><a href={monitorPath({ region: region.id })}>{regionWords(region.name)}</a></h3>
      <CountBar counts={counts} />
      <p class="region-counts">
        <span>{words.devices(counts.total)}</span>
        <span class="n-up">{counts.up} {words.status.up}</span>
        {counts.down > 0 && <span class="n-down">{words.nDown(counts.down)}</span>}
        {counts.unknown > 0 && <span class="n-unknown">{words.nUnknown(counts.unknown)}</span>}
      </p>
      {troubled.length === 0 && counts.total > 0 && <p class="faint">{words.allWell}</p>}
      <ul class="chips">
        {troubled.slice(0, NAMED_LIMIT).map(({ place, counts: of }) => (
          <li key={place.id}>
            <a class={`chip ${of.down > 0 ? "down" : "unknown"}`} href={branchPath(place.id)}>
              {place.branch.name} {of.down > 0 ? words.nDown(of.down) : words.nUnknown(of.unknown)}
            </a>
          </li>
        ))}
        {troubled.length > NAMED_LIMIT && <li class="faint">{words.more(troubled.length - NAMED_LIMIT)}</li>}
      </ul>
    </section>
  );
}
