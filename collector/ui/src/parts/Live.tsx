/** How a device answers right now: its agent tells every 2 s while somebody looks. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Branch } from "../api/types";
import { LIVE_RECENT_MS, LIVE_SPAN_MS, LIVE_STEP_MS, LiveQuality, runs } from "../feed/live";
import { roundCeiling } from "../feed/history";
import { linkState, now, refusal, say, watched } from "../state";
import { duration, figure, t } from "../words";

export function Live({ id, branch }: { id: string; branch: Branch | undefined }) {
  const live = useRef<LiveQuality | null>(null);
  live.current ??= new LiveQuality(now.peek() ?? 0);
  const quality = live.current;
  const [, redraw] = useState(0);
  const at = now.value ?? 0;
  const told = watched.value;
  const refused = refusal.value;
  const isLive = linkState.value === "live";
  useEffect(() => {
    if (!told) return;
    const own = told.devices.find((device) => device.id === id);
    if (!own) return;
    quality.add(own, told.now);
    redraw((before) => before + 1);
  }, [told]);
  useEffect(() => {
    if (refused && refused !== refusedBefore.current) quality.problem = refused.detail;
    refusedBefore.current = refused;
  }, [refused]);
  const refusedBefore = useRef(refusal.peek());
  useEffect(() => quality.forgetAsking(), [isLive]);
  // The page's second, as a reason to ask: a hidden page asks for nothing.
  if (isLive && !document.hidden && quality.isDue(performance.now()) && say({ type: "watch", devices: [id] })) quality.asked(performance.now());
  return (
    <section class="panel" aria-label={t().live}>
      <div class="section-head">
        <h2>{t().live}</h2>
        <span class="live-words">{quality.problem === "" ? liveWords(quality, branch, at) : <>{t().liveRefused} <span lang="en">{quality.problem}</span></>}</span>
      </div>
      <LiveLine quality={quality} at={at} />
    </section>
  );
}

function liveWords(quality: LiveQuality, branch: Branch | undefined, at: number): string {
  const words = t();
  const { rtt_ms, sent, lost, silent_ms } = quality.recent(at);
  if (sent > 0) return words.liveWords(rtt_ms === null ? null : figure(rtt_ms), lost, sent, LIVE_RECENT_MS / 1000);
  if (branch?.contact !== "connected") return words.liveDeaf;
  return silent_ms <= LIVE_RECENT_MS ? words.liveWaiting : words.liveNothing(duration(silent_ms));
}

const [WIDTH, TOP, BOTTOM, HEIGHT] = [600, 6, 62, 70];

/** What was lost stands as a bar from the ground, what nobody measured as a gap. */
function LiveLine({ quality, at }: { quality: LiveQuality; at: number }) {
  const points = quality.points.filter((point) => at - point.t_ms <= LIVE_SPAN_MS);
  const most = points.reduce((sofar, point) => Math.max(sofar, point.rtt_max_ms ?? 0), 0);
  const ceiling = roundCeiling(most);
  const x = (time: number) => Math.min(WIDTH, ((time - at + LIVE_SPAN_MS) / LIVE_SPAN_MS) * WIDTH);
  const y = (ms: number | null) => BOTTOM - ((ms ?? 0) / ceiling) * (BOTTOM - TOP);
  const path = (key: "rtt_min_ms" | "rtt_avg_ms" | "rtt_max_ms", run: typeof points) => run.map((point) => `${x(point.t_ms).toFixed(1)},${y(point[key]).toFixed(1)}`);
  return (
    <svg class="live-svg" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={t().liveTitle}>
      <line class="ground" x1={0} x2={WIDTH} y1={BOTTOM} y2={BOTTOM} />
      {points.filter(({ lost }) => lost > 0).map((point) => {
        const wide = Math.max(4, (Math.min(point.span_ms, LIVE_STEP_MS) / LIVE_SPAN_MS) * WIDTH);
        const high = (point.lost / point.sent) * (BOTTOM - TOP);
        return <rect key={`l${point.t_ms}`} class="loss" x={x(point.t_ms) - wide} y={BOTTOM - high} width={wide} height={high} />;
      })}
      {runs(points, LIVE_STEP_MS).map((run) =>
        run.length === 1 && run[0] ? (
          <line key={run[0].t_ms} class="lone" x1={x(run[0].t_ms)} x2={x(run[0].t_ms)} y1={y(run[0].rtt_min_ms) + 1} y2={y(run[0].rtt_max_ms) - 1} />
        ) : (
          <g key={run[0]?.t_ms}>
            <polygon class="band" points={[...path("rtt_max_ms", run), ...path("rtt_min_ms", run).reverse()].join(" ")} />
            <polyline class="average" points={path("rtt_avg_ms", run).join(" ")} />
          </g>
        ),
      )}
    </svg>
  );
}
