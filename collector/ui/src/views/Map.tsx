/** Regions and branches on a drawn Georgia: size by devices, on one scale for the whole country, colour by state. */
import { useMemo } from "preact/hooks";
import { type Counts, type Place, type Region, addCounts, none } from "../feed/board";
import { CAPITAL, LAND, MAP_HEIGHT, MAP_WIDTH, type Point, REGIONS, centre, radii, regionKey, spread } from "../feed/georgia";
import { Note } from "../parts/bits";
import { branchPath } from "../route";
import { board, drawn, monitorPath } from "../state";
import { regionWords, t } from "../words";

interface Spot {
  place: Place;
  at: Point;
  radius: number;
}

export default function MapView() {
  void drawn.value;
  const words = t();
  const regions = board.regions();
  const spots = useMemo(() => spotsOf(regions), [regions]);
  const elsewhere = regions.filter(({ id }) => !REGIONS.has(regionKey(id)));
  const counted = new Map(regions.map((region) => [regionKey(region.id), { region, counts: countsOf(region) }]));
  if (board.about === null) return <Note>{words.waiting}</Note>;
  return (
    <section class="panel">
      <div class="section-head">
        <h1>{words.mapTitle}</h1>
        <ul class="legend map-legend" aria-label={words.legend}>
          {(["up", "some", "down", "unknown"] as const).map((state) => (
            <li key={state}><svg viewBox="0 0 12 12" class="map swatch" aria-hidden="true"><circle class={state} cx={6} cy={6} r={5} /></svg> {{ up: words.mapUp, some: words.mapSome, down: words.mapAll, unknown: words.mapUnknown }[state]}</li>
          ))}
        </ul>
        <span class="faint">{words.mapLegend}</span>
      </div>
      <div class="map-scroll" tabIndex={0} role="group" aria-label={words.mapTitle}>
      <svg class="map" viewBox={`0 0 ${MAP_WIDTH} ${MAP_HEIGHT}`} role="group" aria-label={words.mapTitle}>
        {LAND.map((shape, at) => <polygon key={at} class="land" points={pointsText(shape)} />)}
        {[...REGIONS].map(([id, shape]) => {
          const known = counted.get(id);
          const area = <polygon key={id} class={`region ${known ? stateOf(known.counts) : ""}`} style={{ "--share": known ? shareDown(known.counts) : 0 }} points={pointsText(shape)} />;
          if (!known) return area;
          const label = [regionWords(known.region.name), ...countWords(known.counts)].join(", ");
          return <a key={id} href={monitorPath({ region: known.region.id })} aria-label={label}>{area}<title>{label}</title></a>;
        })}
        <polygon class="region" points={pointsText(CAPITAL)} />
        <line class="leader" x1={CAPITAL[2]?.[0]} y1={CAPITAL[2]?.[1]} x2={596} y2={118} />
        {spots.map((spot) => <Dot key={spot.place.id} spot={spot} revision={spot.place.revision} />)}
        {[...REGIONS].map(([id, shape]) => {
          const known = counted.get(id);
          const [x, y] = labelAt(id, shape);
          return known && <text key={id} x={x} y={y} aria-hidden="true">{regionWords(known.region.name)}</text>;
        })}
      </svg>
      </div>
      <p class="faint">{words.mapNote}</p>
      {elsewhere.length > 0 && (
        <ul class="chips" aria-label={words.elsewhereRegion}>
          <li class="faint">{words.elsewhereRegion}:</li>
          {elsewhere.map((region) => {
            const counts = countsOf(region);
            return <li key={region.id}><a class={`chip ${stateOf(counts) === "unknown" ? "unknown" : counts.down > 0 ? "down" : ""}`} href={monitorPath({ region: region.id })}>{[regionWords(region.name), ...countWords(counts)].join(", ")}</a></li>;
          })}
        </ul>
      )}
    </section>
  );
}

function countsOf({ places }: Region): Counts {
  const counts = none();
  for (const place of places) addCounts(counts, place.counts, 1);
  return counts;
}

function shareDown({ down, total }: Counts): number {
  return total === 0 ? 0 : Number((down / total).toFixed(3));
}

function countWords(counts: Counts): string[] {
  const words = t();
  const parts = [words.devices(counts.total)];
  if (counts.down > 0) parts.push(words.nDown(counts.down));
  if (counts.unknown > 0) parts.push(words.nUnknown(counts.unknown));
  return parts;
}

function labelAt(id: string, shape: Point[]): Point {
  const [x, y] = centre(shape);
  // The capital's name stands under its larger picture, where it covers nothing.
  return id === "tbilisi" ? [x, 142] : [x, y];
}

function pointsText(shape: readonly Point[]): string {
  return shape.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
}

function spotsOf(regions: Region[]): Spot[] {
  const spots: { place: Place; at: Point; widest: number }[] = [];
  for (const { id, places } of regions) {
    const shape = REGIONS.get(regionKey(id));
    if (!shape) continue;
    const { points, spacing } = spread(shape, places.length, id === "tbilisi" ? null : centre(shape));
    places.forEach((place, at) => spots.push({ place, at: points[at] ?? [0, 0], widest: spacing * 0.47 }));
  }
  const sizes = radii(spots.map(({ place, widest }) => ({ devices: place.devices.length, widest })));
  return spots.map(({ place, at }, number) => ({ place, at, radius: sizes[number] ?? 1 }));
}

/** Green is only what is wholly known to be up. */
function stateOf(counts: Counts): "up" | "some" | "down" | "unknown" {
  if (counts.down > 0) return counts.down === counts.total ? "down" : "some";
  return counts.total > 0 && counts.up === counts.total ? "up" : "unknown";
}

function Dot({ spot: { place, at, radius }, revision }: { spot: Spot; revision: number }) {
  return useMemo(() => {
    const label = [place.branch.name, ...countWords(place.counts)].join(", ");
    return (
      <a href={branchPath(place.id)} aria-label={label}>
        <circle class={stateOf(place.counts)} cx={at[0]} cy={at[1]} r={radius}><title>{label}</title></circle>
      </a>
    );
  }, [place, revision, at[0], at[1], radius, t()]);
}
