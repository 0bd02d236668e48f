/** Questions to a branch's agent that somebody asks by hand: probes now, and the way to a device. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Evidence, Status } from "../api/types";
import { figure, t } from "../words";
import { refusalWords } from "../words/refusal";
import { Recorded, outcomeWords } from "./Evidence";

/** As many as show whether one lost reply is a habit. */
const PROBES = 5;

type Probed = Omit<Evidence, "probes"> & { status: Status; probes: { sequence: number; outcome: Evidence["probes"][number]["outcome"]; rtt_ms: number | null }[] };
interface Traced {
  hops: { ttl: number; address: string | null; rtt_ms: number | null }[];
  reached: boolean;
}
type Result = { probed: Probed } | { traced: Traced } | { error: string } | null;

export function Diagnose({ id }: { id: string }) {
  const [busy, setBusy] = useState(false);
  const [result, setResult] = useState<Result>(null);
  const words = t();

  async function ask(make: () => Promise<Result>) {
    setBusy(true);
    setResult(null);
    setResult(await make().catch((error: unknown) => ({ error: refusalWords(error) })));
    setBusy(false);
  }
  const path = `/api/v1/devices/${encodeURIComponent(id)}`;
  return (
    <div>
      <div class="actions">
        <button type="button" class="choice" disabled={busy} onClick={() => void ask(async () => ({ probed: await tell<Probed>("POST", `${path}/probe`, { count: PROBES }) }))}>{words.probeNow}</button>
        <button type="button" class="choice" disabled={busy} onClick={() => void ask(async () => ({ traced: await tell<Traced>("POST", `${path}/traceroute`) }))}>{words.traceroute}</button>
        <span role="status">{busy && words.asking}</span>
      </div>
      {result && <Shown result={result} />}
    </div>
  );
}

function Shown({ result }: { result: NonNullable<Result> }) {
  const words = t();
  if ("error" in result) return <p class="problem" role="alert">{result.error}</p>;
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
        <p>{outcomeWords(result.probed.status, { ...result.probed, probes: result.probed.probes.map((probe) => ({ ...probe, at_ms: probe.sequence })) })}</p>
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
