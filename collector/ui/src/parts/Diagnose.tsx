/** Questions to a branch's agent that somebody asks by hand: probes now, and the way to a device. */
import { useEffect, useRef, useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Evidence, Status } from "../api/types";
import { figure, t } from "../words";
import { Recorded, outcomeWords } from "./Evidence";
import { Problem } from "./bits";

/** As many as show whether one lost reply is a habit. */
const PROBES = 5;
/** What stops a box for a moment must not stop all of them. */
const BETWEEN_MS = 300;

type Probed = Omit<Evidence, "probes"> & { status: Status; probes: { sequence: number; outcome: Evidence["probes"][number]["outcome"]; rtt_ms: number | null }[] };
interface Traced {
  hops: { ttl: number; address: string | null; rtt_ms: number | null }[];
  reached: boolean;
}
/** `isWhole` once all probes are answered for: what they mean together is said only then. */
type Result = { probed: Probed; isWhole: boolean } | { traced: Traced } | null;

export function Diagnose({ id }: { id: string }) {
  const [busy, setBusy] = useState(false);
  const [result, setResult] = useState<Result>(null);
  const [error, setError] = useState<unknown>(null);
  const isGone = useRef(false);
  useEffect(() => () => {
    isGone.current = true;
  }, []);
  const words = t();

  async function ask(make: () => Promise<void>) {
    setBusy(true);
    setResult(null);
    setError(null);
    await make().catch(setError);
    setBusy(false);
  }
  const path = `/api/v1/devices/${encodeURIComponent(id)}`;
  const probe = async () => {
    const probes: Probed["probes"] = [];
    // One by one, so that each reply is seen when it comes.
    for (let sequence = 1; sequence <= PROBES && !isGone.current; sequence += 1) {
      const probed = await tell<Probed>("POST", `${path}/probe`, { count: 1 });
      for (const one of probed.probes) probes.push({ ...one, sequence });
      setResult({ probed: { ...probed, probes: [...probes] }, isWhole: sequence === PROBES });
      if (sequence < PROBES) await new Promise((resolve) => setTimeout(resolve, BETWEEN_MS));
    }
  };
  const trace = async () => setResult({ traced: await tell<Traced>("POST", `${path}/traceroute`) });
  return (
    <div>
      <div class="actions">
        <button type="button" class="choice" disabled={busy} onClick={() => void ask(probe)}>{words.probeNow}</button>
        <button type="button" class="choice" disabled={busy} onClick={() => void ask(trace)}>{words.traceroute}</button>
        <span role="status">{busy && words.asking}</span>
      </div>
      {error !== null && <Problem error={error} />}
      {result && <Shown result={result} />}
    </div>
  );
}

function Shown({ result }: { result: NonNullable<Result> }) {
  const words = t();
  if ("probed" in result) {
    return (
      <div class="probe-results" role="status">
        <ol>
          {result.probed.probes.map(({ sequence, outcome, rtt_ms }) => (
            <li key={sequence} class={outcome === "reply" ? "n-up" : "n-down"}>
              {sequence}: {words.probeOutcome[outcome] ?? outcome} {rtt_ms !== null && `${figure(rtt_ms)} ${words.rttAxis}`}
            </li>
          ))}
        </ol>
        {result.isWhole && <p>{outcomeWords(result.probed.status, { ...result.probed, probes: result.probed.probes.map((probe) => ({ ...probe, at_ms: probe.sequence })) })}</p>}
        <Recorded evidence={{ ...result.probed, probes: [] }} />
      </div>
    );
  }
  return (
    <div class="probe-results" role="status">
      <ol>
        {result.traced.hops.map(({ ttl, address, rtt_ms }) => (
          <li key={ttl}>{ttl}: {address ?? words.hopSilent} {rtt_ms !== null && `${figure(rtt_ms)} ${words.rttAxis}`}</li>
        ))}
      </ol>
      <p>{result.traced.reached ? words.reached : words.notReached}</p>
    </div>
  );
}
