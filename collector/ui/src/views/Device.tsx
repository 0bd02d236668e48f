/** One device: what it is and why, how it answers now, and what it was. */
import { useComputed } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Branch, Device, History, Outage, Transitions } from "../api/types";
import { RttChart } from "../charts/RttChart";
import { type Place, statusOf } from "../feed/board";
import { Days } from "../parts/Days";
import { Diagnose } from "../parts/Diagnose";
import { Recorded, reasonWords } from "../parts/Evidence";
import { Maintenance } from "../parts/Maintenance";
import { Live } from "../parts/Live";
import { TimeAxis, Timeline } from "../parts/Timeline";
import { useAnswer } from "../parts/useAnswer";
import { Elapsed, Note, Problem, StatusMark, flagsOf, observedWords, statusWords } from "../parts/bits";
import { branchPath, devicePath } from "../route";
import { board, drawn, linkState, may, monitorPath, now, route, setParam } from "../state";
import { duration, figure, format, regionWords, roundDuration, t, timeWords, typeWords, zone } from "../words";

const RANGES = ["30m", "1h", "6h", "12h", "24h", "7d", "30d", "90d", "365d"];
const DEFAULT_RANGE = "24h";

export default function DeviceView({ id }: { id: string }) {
  // Drawn anew when this device is told of, and not with each change of another.
  const device = useComputed(() => (drawn.value > 0 ? board.devices.get(id) : undefined)).value;
  const branch = useComputed(() => (drawn.value > 0 ? placeOf(id)?.branch : undefined)).value;
  const named = route.value.params.get("range");
  const range = named && RANGES.includes(named) ? named : DEFAULT_RANGE;
  if (!device) return <Note>{board.about === null ? t().waiting : t().noSuchDevice}</Note>;
  return (
    <article>
      <Subject device={device} branch={branch} />
      <div class="columns">
        <div class="column">
          <Newest id={id} statusSince={device.since} />
          <Live id={id} branch={branch} />
          <HistoryPanel device={device} range={range} />
          <Changes id={id} range={range} statusSince={device.since} />
        </div>
        <div class="column">
          <Facts device={device} branch={branch} />
          {may("diagnose") && <section class="panel"><Diagnose id={id} /></section>}
          <Maintenance scope="device" id={id} />
          <Siblings id={id} />
        </div>
      </div>
    </article>
  );
}

function placeOf(id: string): Place | undefined {
  const device = board.devices.get(id);
  return device && board.placeOf(device);
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
  const facts: [string, string][] = [
    [sinceTerm, format.full(since)],
    [words.lastReplyTerm, status === "up" && linkState.value === "live" ? words.now : format.full(device.last_ok)],
    [words.roundTrip, device.rtt_ms !== null ? `${figure(device.rtt_ms)} ${words.rttAxis}` : status === "up" ? words.notKnown : words.noReplyNoFigure],
    [words.packetLoss, device.packet_loss === null ? words.notKnown : `${figure(device.packet_loss)} %`],
    [words.address, device.ip],
    [words.id, device.id],
    [words.agent, words.contacts[branch?.contact ?? "never"] ?? words.notKnown],
    [words.observedThrough, observedWords(branch)],
  ];
  return (
    <section class="panel">
      <dl class="facts">{facts.map(([term, text]) => <div key={term}><dt>{term}</dt><dd>{text}</dd></div>)}</dl>
    </section>
  );
}

function Siblings({ id }: { id: string }) {
  void useComputed(() => (drawn.value > 0 ? placeOf(id)?.revision : 0)).value;
  const place = placeOf(id);
  if (!place) return null;
  const { counts } = place;
  return (
    <section class="panel">
      <h2>{t().siblings}: <a href={branchPath(place.id)}>{place.branch.name}</a></h2>
      {counts.down > 1 && <p class="n-down">{t().ofBranchDown(counts.down, counts.total)}</p>}
      <div class="siblings">
        {place.devices.filter((other) => other.id !== id).map((other) => (
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
  const shown = useMemo(() => history && <><Charts history={history} /><Outages outages={history.outages} /></>, [history]);
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
      {error && <Problem what={words.historyFailed} error={error} />}
      {!history && isLoading && <Note role="status">{words.readingHistory}</Note>}
      {shown}
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
  // A year has thousands of bars: they are not made anew for each place that somebody points at.
  const bars = useMemo(() => (
    <>
      <h3>{words.statusTimeline}</h3>
      <Timeline intervals={intervals} from={from} to={to} label={words.statusTimeline} />
      <TimeAxis from={from} to={to} />
      {to - from > 2 * 86_400_000 && <><h3>{words.availabilityByDay}</h3><Days intervals={intervals} from={from} to={to} /></>}
    </>
  ), [history, words, zone.value]);
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
      {bars}
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

/** Why the device is what it is, however long ago that began: most of what is down has been so for longer than the chosen range. */
function Newest({ id, statusSince }: { id: string; statusSince: number | null }) {
  const words = t();
  const { value, error } = useTransitions(id, "365d", 1, statusSince);
  const transition = value?.transitions[0];
  return (
    <section class="panel" aria-label={words.newestChange}>
      <h2>{words.newestChange}</h2>
      {error && <Problem what={words.listFailed} error={error} />}
      {value && !transition && <Note>{words.noChangeInYear}</Note>}
      {transition && (
        <>
          <p>{format.full(transition.onset_ms)}: {statusWords({ status: transition.from_status, cause: transition.from_cause })} → <StatusMark status={statusOf(transition)} /> {statusWords(transition)}</p>
          <p>{reasonWords(transition)}</p>
          {transition.evidence && <Recorded evidence={transition.evidence} />}
        </>
      )}
    </section>
  );
}

/** What a device was told to be, asked for anew when its status is another. */
function useTransitions(id: string, range: string, limit: number, statusSince: number | null) {
  const answer = useAnswer<Transitions>(`/api/v1/devices/${encodeURIComponent(id)}/transitions?time_range=${range}&limit=${limit}`);
  const known = useRef(statusSince);
  useEffect(() => {
    if (known.current !== statusSince) answer.again();
    known.current = statusSince;
  }, [statusSince]);
  return answer;
}

/** Changes that are shown at first, and how many more each time that somebody asks for older ones. */
const CHANGES = 100;

function Changes({ id, range, statusSince }: { id: string; range: string; statusSince: number | null }) {
  const words = t();
  const [limit, setLimit] = useState(CHANGES);
  const { value, error } = useTransitions(id, range, limit, statusSince);
  const rows = useMemo(() => value && <ChangeRows transitions={value.transitions} />, [value]);
  return (
    <section class="panel" aria-label={words.transitions}>
      <h2>{words.transitions}</h2>
      {error && <Problem what={words.listFailed} error={error} />}
      {value?.transitions.length === 0 && <Note>{words.noTransitions}</Note>}
      {value && value.transitions.length > 0 && rows}
      {value?.next_cursor && <p><button type="button" class="choice" onClick={() => setLimit(limit + CHANGES)}>{words.olderEntries}</button></p>}
    </section>
  );
}

function ChangeRows({ transitions }: Pick<Transitions, "transitions">) {
  const words = t();
  return (
    <div class="table-scroll" tabIndex={0} role="group" aria-label={words.transitions}>
      <table>
        <thead><tr><th scope="col">{words.when}</th><th scope="col">{words.from}</th><th scope="col">{words.to}</th><th scope="col">{words.evidence}</th></tr></thead>
        <tbody>
          {transitions.map((transition) => (
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
  );
}
