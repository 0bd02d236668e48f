/** Regions and branches on a drawn Georgia: size by devices, colour by state. */
import { useMemo } from "preact/hooks";
import type { Place, Region } from "../feed/board";
import { CAPITAL, LAND, MAP_HEIGHT, MAP_WIDTH, type Point, REGIONS, centre, regionKey, spread } from "../feed/georgia";
import { Note } from "../parts/bits";
import { branchPath } from "../route";
import { board, drawn, go, monitorPath } from "../state";
import { regionWords, t } from "../words";

const [SMALLEST, LARGEST] = [2.2, 11];

interface Spot {
  place: Place;
  at: Point;
  radius: number;
}

export default function MapView() {
  void drawn.value;
  const words = t();
  const regions = board.regions();
  const spots = useMemo(() => regions.map((region) => spotsOf(region)), [regions]);
  const elsewhere = regions.filter(({ id }) => !REGIONS.has(regionKey(id)));
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
          const region = regions.find((one) => regionKey(one.id) === id);
          return <polygon key={id} class="region" points={pointsText(shape)} onClick={() => region && go(monitorPath({ region: region.id }))} />;
        })}
        <polygon class="region" points={pointsText(CAPITAL)} />
        <line class="leader" x1={CAPITAL[2]?.[0]} y1={CAPITAL[2]?.[1]} x2={596} y2={118} />
        {spots.flat().map((spot) => <Dot key={spot.place.id} spot={spot} revision={spot.place.revision} />)}
        {[...REGIONS].map(([id, shape]) => {
          const region = regions.find((one) => regionKey(one.id) === id);
          const [x, y] = labelAt(id, shape);
          return region && <text key={id} x={x} y={y}>{regionWords(region.name)}</text>;
        })}
      </svg>
      </div>
      <p class="faint">{words.mapNote}</p>
      {elsewhere.length > 0 && (
        <p>{words.elsewhereRegion}: {elsewhere.map(({ id, name }) => <a key={id} href={monitorPath({ region: id })}>{regionWords(name)} </a>)}</p>
      )}
    </section>
  );
}

function labelAt(id: string, shape: Point[]): Point {
  const [x, y] = centre(shape);
  // The capital's name stands under its larger picture, where it covers nothing.
  return id === "tbilisi" ? [x, 142] : [x, y];
}

function pointsText(shape: readonly Point[]): string {
  return shape.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
}

function spotsOf({ id, places }: Region): Spot[] {
  const shape = REGIONS.get(regionKey(id));
  if (!shape) return [];
  const { points, spacing } = spread(shape, places.length, id === "tbilisi" ? null : centre(shape));
  const most = Math.max(1, ...places.map(({ devices }) => devices.length));
  return places.map((place, at) => {
    const widest = Math.min(LARGEST, spacing * 0.47);
    const radius = Math.max(Math.min(SMALLEST, widest), widest * Math.sqrt(place.devices.length / most));
    return { place, at: points[at] ?? [0, 0], radius };
  });
}

/** Green is only what is wholly known to be up. */
export function stateOf({ counts }: Place): "up" | "some" | "down" | "unknown" {
  if (counts.down > 0) return counts.down === counts.total ? "down" : "some";
  return counts.total > 0 && counts.up === counts.total ? "up" : "unknown";
}

function Dot({ spot: { place, at, radius }, revision }: { spot: Spot; revision: number }) {
  return useMemo(() => {
    const { counts, branch } = place;
    const words = t();
    const parts = [branch.name, words.devices(counts.total)];
    if (counts.down > 0) parts.push(words.nDown(counts.down));
    if (counts.unknown > 0) parts.push(words.nUnknown(counts.unknown));
    const label = parts.join(", ");
    return (
      <a href={branchPath(place.id)} aria-label={label}>
        <circle class={stateOf(place)} cx={at[0]} cy={at[1]} r={radius}><title>{label}</title></circle>
      </a>
    );
  }, [place, revision, at[0], at[1], radius, t()]);
}
