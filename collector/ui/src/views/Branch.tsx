/** One branch: its devices, its agent, its providers, and what failed together. */
import { useEffect, useState } from "preact/hooks";
import type { Branch, Device, Gap, History } from "../api/types";
import { ask, tell } from "../api/ask";
import { type Place, statusOf } from "../feed/board";
import { type AgentColumn, newestVersion, problemsOf } from "../feed/agents";
import { refusalWords } from "../parts/Diagnose";
import { TimeAxis, Timeline } from "../parts/Timeline";
import { useAnswer } from "../parts/useAnswer";
import { agentCell, clockCell } from "../parts/agentCells";
import { CountBar, Elapsed, Note, StatusMark, flagsOf, statusWords } from "../parts/bits";
import { devicePath } from "../route";
import { board, drawn, monitorPath, now, route, setParam } from "../state";
import { figure, format, regionWords, roundDuration, t, timeWords, typeWords } from "../words";

const RANGES = ["1h", "6h", "24h", "7d", "30d"];
const DEFAULT_RANGE = "24h";
/** Histories that are asked for at the same time. */
const AT_ONCE = 4;

export default function BranchView({ id }: { id: string }) {
  void drawn.value;
  const place = board.places.get(id);
  if (!place) return <Note>{board.about === null ? t().waiting : t().noSuchBranch}</Note>;
  const { branch } = place;
  const { down, unknown, total } = place.counts;
  const status = branch.contact !== "connected" ? "unknown" : down > 0 ? "down" : unknown > 0 ? "unknown" : "up";
  const words = t();
  return (
    <article>
      <header class={`subject ${status}`}>
        <h1>{words.branchName(branch.name)}</h1>
        <span class="big">{headWords(place)}</span>
        {branch.contact === "silent" && <span class="elapsed"><Elapsed since={branch.last_contact} /></span>}
        <Cut branch={branch} />
        <span><a href={monitorPath({ region: branch.region ?? "" })}>{regionWords(branch.region_name ?? branch.region ?? "")}</a> · {words.devices(total)}</span>
      </header>
      <div class="columns">
        <div class="column">
          <Devices place={place} />
          <Together place={place} />
          <Gaps id={id} />
        </div>
        <div class="column">
          <Agent branch={branch} />
          <Uplinks branch={branch} />
          <Discovery id={id} />
        </div>
      </div>
    </article>
  );
}

/** Whose fault it is that the branch can't be heard: a guess while it lasts. */
function Cut({ branch: { cut } }: { branch: Branch }) {
  const words = t();
  if (!cut || cut.to_ms !== null || cut.verdict === null) return null;
  return <span class="warn">{words.verdicts[cut.verdict] ?? cut.verdict}{cut.is_provisional && ` (${words.provisional})`}</span>;
}

function headWords({ branch, counts }: Place): string {
  const words = t();
  if (branch.contact === "silent") return words.silent;
  if (branch.contact !== "connected") return words.neverContact;
  const parts = [];
  if (counts.down > 0) parts.push(words.nDown(counts.down));
  if (counts.unknown > 0) parts.push(words.nUnknown(counts.unknown));
  return parts.length === 0 ? words.allWell : parts.join(", ");
}

function Devices({ place }: { place: Place }) {
  void drawn.value;
  const words = t();
  return (
    <section class="panel" aria-label={words.tableLabel}>
      <CountBar counts={place.counts} />
      <div class="table-scroll" tabIndex={0} role="group" aria-label={words.tableLabel}>
        <table>
          <thead><tr><th scope="col">{words.columns.name}</th><th scope="col">{words.columns.status}</th><th scope="col">{words.columns.since}</th><th scope="col" class="number">{words.forTime}</th><th scope="col">{words.columns.type}</th><th scope="col">{words.columns.ip}</th><th scope="col" class="number">{words.columns.rtt}</th><th scope="col" class="number">{words.columns.loss}</th></tr></thead>
          <tbody>{place.devices.map((device) => <DeviceRow key={device.id} device={device} />)}</tbody>
        </table>
      </div>
    </section>
  );
}

function DeviceRow({ device }: { device: Device }) {
  const status = statusOf(device);
  const since = status === "down" ? device.down_since : device.since;
  return (
    <tr>
      <td><a href={devicePath(device.id)}>{device.name}</a></td>
      <td><StatusMark status={status} /> {[statusWords(device), ...flagsOf(device)].join(", ")}</td>
      <td>{since == null ? t().notKnown : timeWords(since, now.peek())}</td>
      <td class="number"><Elapsed since={since} /></td>
      <td>{typeWords(device.device_type)}</td>
      <td>{device.ip}</td>
      <td class="number">{device.rtt_ms === null ? "–" : `${figure(device.rtt_ms)} ms`}</td>
      <td class="number">{device.packet_loss === null ? "–" : `${figure(device.packet_loss)} %`}</td>
    </tr>
  );
}

/** Every device's history on one axis, exact from the ledger: what failed together is seen together. */
function Together({ place }: { place: Place }) {
  void drawn.value;
  const words = t();
  const named = route.value.params.get("range");
  const range = named && RANGES.includes(named) ? named : DEFAULT_RANGE;
  const [histories, setHistories] = useState<ReadonlyMap<string, History>>(new Map());
  const [error, setError] = useState("");
  const ids = place.devices.map(({ id }) => id).join("\n");
  const changed = place.devices.map(({ since }) => since ?? 0).join(" ");
  useEffect(() => {
    if (document.hidden) return undefined;
    let isGone = false;
    setError("");
    void (async () => {
      const read = new Map<string, History>();
      const wanted = ids.split("\n").filter(Boolean);
      while (wanted.length > 0 && !isGone) {
        const some = wanted.splice(0, AT_ONCE);
        const answers = some.map((id) => ask<History>(`/api/v1/devices/${encodeURIComponent(id)}/history?time_range=${range}&step=24h`));
        for (const history of await Promise.all(answers)) read.set(history.device_id, history);
        if (!isGone) setHistories(new Map(read));
      }
    })().catch((failed: Error) => !isGone && setError(failed.message));
    return () => {
      isGone = true;
    };
  }, [ids, range, changed]);
  const first = [...histories.values()][0];
  return (
    <section class="panel" aria-label={words.together}>
      <div class="section-head">
        <h2>{words.together}</h2>
        <div class="ranges" role="group" aria-label={words.range}>
          {RANGES.map((name) => <button key={name} type="button" class="choice" aria-pressed={name === range} onClick={() => setParam("range", name === DEFAULT_RANGE ? "" : name)}>{words.ranges[name]}</button>)}
        </div>
        <span class="faint">{words.togetherNote}</span>
      </div>
      {error && <p class="problem" role="alert">{words.historyFailed(error)}</p>}
      {!first && !error && <Note role="status">{words.readingHistory}</Note>}
      {first && (
        <div class="lanes">
          {place.devices.map((device) => {
            const history = histories.get(device.id);
            return [
              <a key={`${device.id} name`} href={devicePath(device.id)} title={device.name}>{device.name}</a>,
              history ? <Timeline key={device.id} intervals={history.intervals} from={first.from_ms} to={first.to_ms} label={device.name} /> : <span key={device.id} />,
            ];
          })}
          <span />
          <TimeAxis from={first.from_ms} to={first.to_ms} />
        </div>
      )}
    </section>
  );
}

const KILOBYTES: readonly AgentColumn[] = ["buffer", "line", "card"];

function Agent({ branch }: { branch: Branch }) {
  const words = t();
  const at = now.peek() ?? 0;
  const cell = (column: AgentColumn) => {
    const { text, aside } = agentCell(column, branch, at);
    const amount = text !== "–" && KILOBYTES.includes(column) && !(column === "buffer" && branch.buffer_volatile) ? `${text} kB` : text;
    return aside ? `${amount} (${aside})` : amount;
  };
  const problems = problemsOf(branch, at, newestVersion(board));
  const isConnected = branch.contact === "connected";
  const observed = isConnected && branch.silent_after_ms !== undefined ? words.lessThanAgo(roundDuration(branch.silent_after_ms)) : format.full(branch.observed_through);
  const facts: [string, string][] = [
    [words.contact, words.contacts[branch.contact ?? "never"] ?? ""],
    [words.observedThrough, observed],
    [words.version, cell("version")],
    [words.clock, branch.spent ? clockCell(branch).text : "–"],
    [words.buffer, cell("buffer")],
    [words.agentColumns.waiting, cell("waiting")],
    [words.lineADay, cell("line")],
    [words.cardADay, cell("card")],
    [words.config, branch.config_version ? words.configInForce(format.full(branch.config_version)) : words.configNone],
    [words.agentColumns.missed, cell("missed")],
    [words.agentColumns.errors, cell("errors")],
    [words.agentColumns.drops, cell("drops")],
  ];
  return (
    <section class="panel">
      <h2>{words.agentTitle}</h2>
      {problems.length > 0 && <p class="warn">{problems.map((problem) => words.problemWords[problem]).join(", ")}</p>}
      <dl class="facts">{facts.map(([term, text]) => <div key={term}><dt>{term}</dt><dd>{text}</dd></div>)}</dl>
    </section>
  );
}

function Uplinks({ branch }: { branch: Branch }) {
  const words = t();
  const uplinks = branch.uplinks ?? [];
  return (
    <section class="panel">
      <h2>{words.providers}</h2>
      {uplinks.length === 0 && <p class="faint">{words.noProviders}</p>}
      <div class="siblings">
        {uplinks.map((uplink) => (
          <p key={uplink.name}>
            <StatusMark status={statusOf(uplink)} /> {uplink.name} · {words.status[statusOf(uplink)]} <Elapsed since={uplink.since_ms} /> · {uplink.is_active ? words.activeUplink : words.standbyUplink}
          </p>
        ))}
      </div>
    </section>
  );
}

interface Coverage {
  gaps: Gap[];
}

function Gaps({ id }: { id: string }) {
  const words = t();
  const { value, error } = useAnswer<Coverage>(`/api/v1/branches/${encodeURIComponent(id)}/coverage`);
  return (
    <section class="panel" aria-label={words.gaps}>
      <h2>{words.gaps}</h2>
      {error && <p class="problem" role="alert">{words.listFailed(error.message)}</p>}
      {value?.gaps.length === 0 && <p class="faint">{words.noGaps}</p>}
      {value && value.gaps.length > 0 && (
        <div class="table-scroll" tabIndex={0} role="group" aria-label={words.gaps}>
          <table>
            <thead><tr><th scope="col">{words.from}</th><th scope="col">{words.to}</th><th scope="col">{words.gapReasons}</th><th scope="col" class="number">{words.lostEntries}</th></tr></thead>
            <tbody>
              {value.gaps.toReversed().slice(0, 100).map((gap) => (
                <tr key={`${gap.from_ms}-${gap.first_seq}`}>
                  <td>{format.full(gap.from_ms)}</td><td>{format.full(gap.to_ms)}</td><td>{gap.reason.replaceAll("_", " ")}</td>
                  <td class="number">{gap.transitions + gap.minutes + gap.unreadable}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

interface Discovered {
  answered_unknown: { ip: string; mac: string | null }[];
  /** Null while the agent has another config than the newest. */
  never_answered: string[] | null;
}

function Discovery({ id }: { id: string }) {
  const words = t();
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<Discovered | null>(null);
  const [error, setError] = useState("");
  const look = async () => {
    setBusy(true);
    setError("");
    await tell<Discovered>("POST", `/api/v1/branches/${encodeURIComponent(id)}/discovery`)
      .then(setFound)
      .catch((failed: unknown) => setError(refusalWords(failed)));
    setBusy(false);
  };
  return (
    <section class="panel">
      <div class="actions"><button type="button" class="choice" disabled={busy} onClick={() => void look()}>{words.discovery}</button><span role="status">{busy && words.asking}</span></div>
      {error && <p class="problem" role="alert">{error}</p>}
      {found && (
        <div role="status">
          <h3>{words.discoveryUnknown}</h3>
          {found.answered_unknown.length === 0 ? <p class="faint">{words.discoveryNone}</p> : <ul>{found.answered_unknown.map(({ ip, mac }) => <li key={ip}>{ip} {mac}</li>)}</ul>}
          <h3>{words.discoveryNever}</h3>
          {found.never_answered === null ? <p class="faint">{words.discoveryNotYet}</p> : found.never_answered.length === 0 ? <p class="faint">{words.discoveryNone}</p> : <ul>{found.never_answered.map((device) => <li key={device}><a href={devicePath(device)}>{board.devices.get(device)?.name ?? device}</a></li>)}</ul>}
        </div>
      )}
    </section>
  );
}
