/** One branch: its devices, its agent, its providers, and what failed together. */
import { useComputed } from "@preact/signals";
import { useCallback, useEffect, useState } from "preact/hooks";
import type { Branch, Cut, Device, Gap, History } from "../api/types";
import { ask, tell } from "../api/ask";
import { type Place, statusOf } from "../feed/board";
import { clipped } from "../feed/history";
import { type AgentColumn, isConfigPending, newestVersion, problemsOf } from "../feed/agents";
import { trialOf } from "../feed/trial";
import { ConfigTrial } from "../parts/ConfigTrial";
import { Maintenance } from "../parts/Maintenance";
import { Lane, TimeAxis, Timeline } from "../parts/Timeline";
import { useAnswer, useRetry } from "../parts/useAnswer";
import { agentCell, clockCell } from "../parts/agentCells";
import { BackupLine, CountBar, Elapsed, Note, Problem, StatusMark, flagsOf, observedWords, statusWords } from "../parts/bits";
import { devicePath } from "../route";
import { board, drawn, may, monitorPath, now, route, setParam } from "../state";
import { figure, format, regionWords, roundDuration, t, timeWords, typeWords } from "../words";

const RANGES = ["1h", "6h", "24h", "7d", "30d"];
const DEFAULT_RANGE = "24h";
/** Histories that are asked for at the same time. */
const AT_ONCE = 4;

export default function BranchView({ id }: { id: string }) {
  // Drawn anew when this branch looks different, and not with each change of another.
  void useComputed(() => (drawn.value > 0 ? board.places.get(id)?.revision : 0)).value;
  const place = board.places.get(id);
  if (!place) return <Note>{board.about === null ? t().waiting : t().noSuchBranch}</Note>;
  const { branch } = place;
  const { down, unknown, total } = place.counts;
  const status = branch.contact !== "connected" || total === 0 ? "unknown" : down > 0 ? "down" : unknown > 0 ? "unknown" : "up";
  const words = t();
  return (
    <article>
      <header class={`subject ${status}`}>
        <h1>{words.branchName(branch.name)}</h1>
        <span class="big">{headWords(place)}</span>
        {branch.contact === "silent" && <span class="elapsed"><Elapsed since={branch.last_contact} /></span>}
        <CutNow branch={branch} />
        <BackupLine branch={branch} />
        {trialOf(place)?.isHeld && <span class="warn">{words.heldConfig}</span>}
        <span><a href={monitorPath({ region: branch.region ?? "" })}>{regionWords(branch.region_name ?? branch.region ?? "")}</a> · {words.devices(total)}</span>
      </header>
      <div class="columns">
        <div class="column">
          <Devices place={place} />
          <Together place={place} />
          <Gaps id={id} />
        </div>
        <div class="column">
          <Agent place={place} />
          <ConfigTrial place={place} />
          <Uplinks branch={branch} />
          <Maintenance scope="branch" id={id} />
          {may("diagnose") && <Discovery id={id} />}
        </div>
      </div>
    </article>
  );
}

/** Whose fault it is that the branch can't be heard: a guess while it lasts. */
function CutNow({ branch: { cut } }: { branch: Branch }) {
  const words = t();
  if (!cut || cut.to_ms !== null || cut.verdict === null) return null;
  return <span class="warn">{words.verdicts[cut.verdict] ?? cut.verdict}{cut.is_provisional && ` (${words.provisional})`}</span>;
}

function headWords({ branch, counts }: Place): string {
  const words = t();
  if (branch.contact === "silent") return words.silent;
  if (branch.contact !== "connected") return words.neverContact;
  if (counts.total === 0) return words.noDevicesShort;
  const parts = [];
  if (counts.down > 0) parts.push(words.nDown(counts.down));
  if (counts.unknown > 0) parts.push(words.nUnknown(counts.unknown));
  return parts.length === 0 ? words.allWell : parts.join(", ");
}

function Devices({ place }: { place: Place }) {
  const words = t();
  return (
    <section class="panel" aria-label={words.tableLabel}>
      <CountBar counts={place.counts} />
      <div class="table-scroll" tabIndex={0} role="group" aria-label={words.tableLabel}>
        <table class="named">
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
      <td class="number">{device.rtt_ms === null ? "–" : `${figure(device.rtt_ms)} ${t().rttAxis}`}</td>
      <td class="number">{device.packet_loss === null ? "–" : `${figure(device.packet_loss)} %`}</td>
    </tr>
  );
}

/** Providers, the line to the centre and every device on one axis, exact from the ledger: what failed together is seen together. */
function Together({ place }: { place: Place }) {
  const words = t();
  const named = route.value.params.get("range");
  const range = named && RANGES.includes(named) ? named : DEFAULT_RANGE;
  const [histories, setHistories] = useState<ReadonlyMap<string, History>>(new Map());
  const [error, setError] = useState<Error | null>(null);
  const [turn, setTurn] = useState(0);
  useRetry(error, useCallback(() => setTurn((before) => before + 1), []));
  const ids = place.devices.map(({ id }) => id).join("\n");
  const changed = place.devices.map(({ since }) => since ?? 0).join(" ");
  useEffect(() => {
    let isGone = false;
    void (async () => {
      const read = new Map<string, History>();
      const wanted = ids.split("\n").filter(Boolean);
      while (wanted.length > 0 && !isGone) {
        const some = wanted.splice(0, AT_ONCE);
        const answers = some.map((id) => ask<History>(`/api/v1/devices/${encodeURIComponent(id)}/history?time_range=${range}&step=24h`));
        for (const history of await Promise.all(answers)) read.set(history.device_id, history);
        if (!isGone) setHistories(new Map(read));
      }
      if (!isGone) setError(null);
    })().catch((failed: Error) => !isGone && setError(failed));
    return () => {
      isGone = true;
    };
  }, [ids, range, changed, turn]);
  const first = ids === "" ? undefined : [...histories.values()][0];
  const { branch, devices } = place;
  const providers = (branch.uplinks ?? []).map(({ device_id, name }) => ({ id: device_id, name: words.lineOf(name) }));
  const others = devices.filter(({ id }) => !providers.some((provider) => provider.id === id));
  return (
    <section class="panel" aria-label={words.together}>
      <div class="section-head">
        <h2>{words.together}</h2>
        <div class="ranges" role="group" aria-label={words.range}>
          {RANGES.map((name) => <button key={name} type="button" class="choice" aria-pressed={name === range} onClick={() => setParam("range", name === DEFAULT_RANGE ? "" : name)}>{words.ranges[name]}</button>)}
        </div>
        <span class="faint">{words.togetherNote}</span>
      </div>
      {error && <Problem what={words.historyFailed} error={error} />}
      {ids === "" ? <Note>{words.noDevicesShort}</Note> : !first && !error && <Note role="status">{words.readingHistory}</Note>}
      {first && (
        <div class="lanes">
          <span>{words.toTheCentre}</span>
          <Cuts branch={branch} from={first.from_ms} to={first.to_ms} />
          {[...providers, ...others].map(({ id, name }) => {
            const history = histories.get(id);
            return [
              <a key={`${id} name`} href={devicePath(id)} title={name}>{name}</a>,
              history ? <Timeline key={id} intervals={history.intervals} from={first.from_ms} to={first.to_ms} label={name} /> : <span key={id} />,
            ];
          })}
          <span />
          <TimeAxis from={first.from_ms} to={first.to_ms} />
        </div>
      )}
    </section>
  );
}

/** When the branch could not be heard, and whose fault that was. */
function Cuts({ branch, from, to }: { branch: Branch; from: number; to: number }) {
  const words = t();
  // What is over has its final verdict in the list, and that is asked for again when a cut begins or ends.
  const turn = `${branch.cut?.from_ms ?? ""} ${branch.cut?.to_ms ?? ""}`;
  const { value, again } = useAnswer<{ cuts: Cut[] }>(`/api/v1/branches/${encodeURIComponent(branch.id)}/cuts`);
  useEffect(again, [turn]);
  const listed = value?.cuts ?? [];
  const newest = branch.cut;
  const cuts = newest && !listed.some(({ from_ms }) => from_ms === newest.from_ms) ? [...listed, newest] : listed;
  const shown = clipped(cuts, from, to);
  const lasted = shown.reduce((sum, cut) => sum + cut.to_ms - cut.from_ms, 0);
  return (
    <Lane label={`${words.toTheCentre}: ${words.status.down} ${roundDuration(lasted)}`} from={from} to={to} bars={shown.map((cut) => ({
      ...cut, kind: "cut", words: `${cut.verdict ? (words.verdicts[cut.verdict] ?? cut.verdict) : words.silent}, ${format.full(cut.from_ms)} – ${format.full(cut.to_ms)}`,
    }))} />
  );
}

const KILOBYTES: readonly AgentColumn[] = ["buffer", "line", "card"];

function Agent({ place }: { place: Place }) {
  const words = t();
  const { branch } = place;
  const at = now.peek() ?? 0;
  const cell = (column: AgentColumn) => {
    const { text, aside } = agentCell(column, branch, at);
    const amount = text !== "–" && KILOBYTES.includes(column) && !(column === "buffer" && branch.buffer_volatile) ? `${text} ${words.kB}` : text;
    return aside ? `${amount} (${aside})` : amount;
  };
  const problems = problemsOf(branch, at, newestVersion(board));
  const facts: [string, string][] = [
    [words.contact, words.contacts[branch.contact ?? "never"] ?? ""],
    [words.observedThrough, observedWords(branch)],
    [words.version, cell("version")],
    [words.clock, branch.spent ? clockCell(branch).text : "–"],
    [words.buffer, cell("buffer")],
    [words.agentColumns.waiting, cell("waiting")],
    [words.lineADay, cell("line")],
    [words.cardADay, cell("card")],
    [words.config, configWords(place)],
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

function configWords(place: Place): string {
  const words = t();
  const { branch } = place;
  const inForce = branch.config_version ? words.configInForce(format.full(branch.config_version)) : words.configNone;
  if (!isConfigPending(branch)) return inForce;
  const trial = trialOf(place);
  const wanted = trial?.isHeld && trial.version === branch.config_wanted ? words.configHeld : words.configWanted;
  return `${inForce}; ${wanted(format.full(branch.config_wanted))}`;
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
            <StatusMark status={statusOf(uplink)} /> <a href={devicePath(uplink.device_id)}>{uplink.name}</a> · {words.status[statusOf(uplink)]} <Elapsed since={uplink.since_ms} /> · {uplink.is_active ? words.activeUplink : words.standbyUplink}
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
      {error && <Problem what={words.listFailed} error={error} />}
      {value?.gaps.length === 0 && <p class="faint">{words.noGaps}</p>}
      {value && value.gaps.length > 0 && (
        <div class="table-scroll" tabIndex={0} role="group" aria-label={words.gaps}>
          <table>
            <thead><tr><th scope="col">{words.from}</th><th scope="col">{words.to}</th><th scope="col">{words.gapReasons}</th><th scope="col" class="number">{words.lostEntries}</th></tr></thead>
            <tbody>
              {value.gaps.toReversed().slice(0, 100).map((gap) => (
                <tr key={`${gap.from_ms}-${gap.first_seq}`}>
                  <td>{format.full(gap.from_ms)}</td><td>{format.full(gap.to_ms)}</td><td>{words.gapReasonWords[gap.reason] ?? gap.reason.replaceAll("_", " ")}</td>
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
  const [error, setError] = useState<unknown>(null);
  const look = async () => {
    setBusy(true);
    setError(null);
    await tell<Discovered>("POST", `/api/v1/branches/${encodeURIComponent(id)}/discovery`)
      .then(setFound)
      .catch(setError);
    setBusy(false);
  };
  return (
    <section class="panel">
      <div class="actions"><button type="button" class="choice" disabled={busy} onClick={() => void look()}>{words.discovery}</button><span role="status">{busy && words.asking}</span></div>
      {error !== null && <Problem error={error} />}
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
