/** One device: what it is and why, how it answers now, and what it was. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Branch, Device, History, Outage, Transition } from "../api/types";
import { RttChart } from "../charts/RttChart";
import { statusOf } from "../feed/board";
import { Days } from "../parts/Days";
import { Diagnose } from "../parts/Diagnose";
import { Recorded, reasonWords } from "../parts/Evidence";
import { Maintenance } from "../parts/Maintenance";
import { Live } from "../parts/Live";
import { TimeAxis, Timeline } from "../parts/Timeline";
import { useAnswer } from "../parts/useAnswer";
import { Elapsed, Note, StatusMark, flagsOf, statusWords } from "../parts/bits";
import { branchPath, devicePath } from "../route";
import { board, drawn, may, monitorPath, now, route, setParam } from "../state";
import { duration, figure, format, regionWords, roundDuration, t, timeWords, typeWords } from "../words";

const RANGES = ["30m", "1h", "6h", "12h", "24h", "7d", "30d", "90d", "365d"];
const DEFAULT_RANGE = "24h";

export default function DeviceView({ id }: { id: string }) {
  void drawn.value;
  const device = board.devices.get(id);
  const named = route.value.params.get("range");
  const range = named && RANGES.includes(named) ? named : DEFAULT_RANGE;
  if (!device) return <Note>{board.about === null ? t().waiting : t().noSuchDevice}</Note>;
  const place = board.placeOf(device);
  return (
    <article>
      <Subject device={device} branch={place?.branch} />
      <div class="columns">
        <div class="column">
          <Live id={id} branch={place?.branch} />
          <HistoryPanel device={device} range={range} />
          <Transitions id={id} range={range} statusSince={device.since} />
        </div>
        <div class="column">
          <Facts device={device} branch={place?.branch} />
          {may("diagnose") && <section class="panel"><Diagnose id={id} /></section>}
          <Maintenance scope="device" id={id} />
          <Siblings device={device} />
        </div>
      </div>
    </article>
  );
}

function Subject({ device, branch }: { device: Device; branch: Branch | undefined }) {
  const words = t();
  const status = statusOf(device);
  const since = status === "down" ? device.down_since : device.since;
  const flags = flagsOf(device);
  return (
    <header class={`subject ${status}`}>
      <h1>{device.name}</h1>
      <span class="big"><StatusMark status={status} /> {statusWords(device)}</span>
      <span class="elapsed"><Elapsed since={since} /></span>
      {flags.length > 0 && <span class="warn">{flags.join(", ")}</span>}
      {device.verdict && <span>{words.verdicts[device.verdict] ?? device.verdict}{device.is_provisional && ` (${words.provisional})`}</span>}
      <span>
        <a href={branchPath(device.branch)}>{branch?.name ?? device.branch}</a> · <a href={monitorPath({ region: device.region })}>{regionWords(branch?.region_name ?? device.region)}</a> · {typeWords(device.device_type)}
      </span>
    </header>
  );
}

function Facts({ device, branch }: { device: Device; branch: Branch | undefined }) {
  const words = t();
  const status = statusOf(device);
  const since = status === "down" ? device.down_since : device.since;
  const sinceTerm = { down: words.downSince, up: words.upSince, unknown: words.unknownSince }[status];
  const isFresh = branch?.contact === "connected" && branch.silent_after_ms !== undefined;
  const observed = isFresh ? words.lessThanAgo(roundDuration(branch.silent_after_ms ?? 0)) : format.full(branch?.observed_through);
  const facts: [string, string][] = [
    [sinceTerm, format.full(since)],
    [words.lastReplyTerm, status === "up" ? words.now : format.full(device.last_ok)],
    [words.roundTrip, device.rtt_ms !== null ? `${figure(device.rtt_ms)} ${words.rttAxis}` : status === "up" ? words.notKnown : words.noReplyNoFigure],
    [words.packetLoss, device.packet_loss === null ? words.notKnown : `${figure(device.packet_loss)} %`],
    [words.address, device.ip],
    [words.id, device.id],
    [words.agent, words.contacts[branch?.contact ?? "never"] ?? words.notKnown],
    [words.observedThrough, observed],
  ];
  return (
    <section class="panel">
      <dl class="facts">{facts.map(([term, text]) => <div key={term}><dt>{term}</dt><dd>{text}</dd></div>)}</dl>
    </section>
  );
}

function Siblings({ device }: { device: Device }) {
  void drawn.value;
  const place = board.placeOf(device);
  if (!place) return null;
  const { counts } = place;
  return (
    <section class="panel">
      <h2>{t().siblings}: <a href={branchPath(place.id)}>{place.branch.name}</a></h2>
      {counts.down > 1 && <p class="n-down">{t().ofBranchDown(counts.down, counts.total)}</p>}
      <div class="siblings">
        {place.devices.filter(({ id }) => id !== device.id).map((other) => (
          <a key={other.id} href={devicePath(other.id)}><StatusMark status={statusOf(other)} /> {other.name}</a>
        ))}
      </div>
    </section>
  );
}

function HistoryPanel({ device, range }: { device: Device; range: string }) {
  const words = t();
  const path = `/api/v1/devices/${encodeURIComponent(device.id)}/history?time_range=${range}`;
  const { value: history, error, isLoading, again } = useAnswer<History>(path);
  useFresh(device, history, again);
  return (
    <section class="panel" aria-label={words.history}>
      <div class="section-head">
        <h2>{words.history}</h2>
        <div class="ranges" role="group" aria-label={words.range}>
          {RANGES.map((name) => (
            <button key={name} type="button" class="choice" aria-pressed={name === range} onClick={() => setParam("range", name === DEFAULT_RANGE ? "" : name)}>{words.ranges[name]}</button>
          ))}
        </div>
        {history && <span class="faint">{words.historyAsOf(timeWords(history.to_ms, now.peek()), roundDuration(history.step_ms), history.source === "embedded" ? words.storeOwn : words.storeVictoria)}</span>}
      </div>
      {error && <p class="problem" role="alert">{words.historyFailed(error.message)}</p>}
      {!history && isLoading && <Note role="status">{words.readingHistory}</Note>}
      {history && <Charts history={history} />}
      {history && <Outages outages={history.outages} />}
    </section>
  );
}

/** Asks anew when something new is known of the device and a step has passed, and at once when its status changes. */
function useFresh(device: Device, history: History | null, again: () => void): void {
  const status = useRef(device.status);
  useEffect(() => {
    if (!history || document.hidden) return;
    const isChanged = status.current !== device.status;
    status.current = device.status;
    const age = (now.peek() ?? 0) - history.to_ms;
    if (isChanged || age > Math.max(60_000, history.step_ms)) again();
  }, [device]);
}

function Charts({ history }: { history: History }) {
  const [moment, setMoment] = useState<number | null>(null);
  const words = t();
  const { from_ms: from, to_ms: to, intervals } = history;
  const isEmpty = history.points.length + intervals.length === 0;
  if (isEmpty) return <Note>{words.nothingRecorded}</Note>;
  const step = (event: KeyboardEvent) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    setMoment(Math.min(to - 1, Math.max(from, (moment ?? to) + direction * history.step_ms)));
  };
  return (
    <div tabIndex={0} role="group" aria-label={words.readoutHint} onKeyDown={step}>
      <h3>{words.statusTimeline}</h3>
      <Timeline intervals={intervals} from={from} to={to} label={words.statusTimeline} />
      <TimeAxis from={from} to={to} />
      {to - from > 2 * 86_400_000 && <><h3>{words.availabilityByDay}</h3><Days intervals={intervals} from={from} to={to} /></>}
      <h3>{words.rttChart}</h3>
      <RttChart history={history} onMoment={setMoment} />
      <p class="readout" aria-live="polite">{moment === null ? words.readoutHint : momentWords(history, moment)}</p>
    </div>
  );
}

function momentWords({ intervals, points, step_ms }: History, time: number): string {
  const words = t();
  const interval = intervals.find(({ from_ms, to_ms }) => from_ms <= time && time < to_ms);
  const point = points.find(({ t_ms }) => t_ms <= time && time < t_ms + step_ms);
  const parts = [format.full(time), interval ? statusWords(interval) : words.noRecord];
  if (point?.rtt_avg_ms != null) parts.push(words.rttWords(figure(point.rtt_min_ms), figure(point.rtt_avg_ms), figure(point.rtt_max_ms)));
  else parts.push(words.noRtt);
  if (point?.packet_loss != null) parts.push(words.lossWords(figure(point.packet_loss)));
  return parts.join(" · ");
}

/** Rows of a table: more than anyone reads. */
const ROWS_LIMIT = 500;

function Outages({ outages }: { outages: Outage[] }) {
  const words = t();
  if (outages.length === 0) return <p class="none">{words.outagesIn(0)}</p>;
  const newest = [...outages].sort((a, b) => b.from_ms - a.from_ms).slice(0, ROWS_LIMIT);
  return (
    <div class="table-scroll" tabIndex={0} role="group" aria-label={words.outages}>
      <table>
        <caption class="skip">{words.outages}</caption>
        <thead><tr><th scope="col">{words.began}</th><th scope="col">{words.onsetBounds}</th><th scope="col">{words.ended}</th><th scope="col" class="number">{words.lasted}</th><th scope="col" class="number">{words.unobserved}</th></tr></thead>
        <tbody>
          {newest.map((outage) => (
            <tr key={outage.from_ms}>
              <td>{format.full(outage.from_ms)}</td>
              <td>{outage.last_ok_ms == null ? words.notKnown : `${format.clock(outage.last_ok_ms)} – ${format.clock(outage.from_ms)}`}{outage.error_ms > 0 && ` ${words.dateError(`${outage.error_ms} ${words.rttAxis}`)}`}</td>
              <td>{outage.to_ms == null ? words.goesOn : format.full(outage.to_ms)}</td>
              <td class="number">{outage.to_ms == null ? <Elapsed since={outage.from_ms} /> : duration(outage.to_ms - outage.from_ms)}</td>
              <td class="number">{outage.unobserved_ms > 0 ? duration(outage.unobserved_ms) : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Transitions({ id, range, statusSince }: { id: string; range: string; statusSince: number | null }) {
  const words = t();
  const path = `/api/v1/devices/${encodeURIComponent(id)}/transitions?time_range=${range}&limit=100`;
  const { value, error, again } = useAnswer<{ transitions: Transition[] }>(path);
  const known = useRef(statusSince);
  useEffect(() => {
    if (known.current !== statusSince && !document.hidden) again();
    known.current = statusSince;
  }, [statusSince]);
  return (
    <section class="panel" aria-label={words.transitions}>
      <h2>{words.transitions}</h2>
      {error && <p class="problem" role="alert">{words.listFailed(error.message)}</p>}
      {value?.transitions.length === 0 && <Note>{words.noTransitions}</Note>}
      {value && value.transitions.length > 0 && (
        <div class="table-scroll" tabIndex={0} role="group" aria-label={words.transitions}>
          <table>
            <thead><tr><th scope="col">{words.when}</th><th scope="col">{words.from}</th><th scope="col">{words.to}</th><th scope="col">{words.evidence}</th></tr></thead>
            <tbody>
              {value.transitions.map((transition) => (
                <tr key={`${transition.onset_ms}-${transition.received_ms}`}>
                  <td>{format.full(transition.onset_ms)}</td>
                  <td>{statusWords({ status: transition.from_status, cause: transition.from_cause })}</td>
                  <td><StatusMark status={statusOf(transition)} /> {statusWords(transition)}</td>
                  <td><p>{reasonWords(transition)}</p>{transition.evidence && <Recorded evidence={transition.evidence} />}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
