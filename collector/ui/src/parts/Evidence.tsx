/** What an agent saw around a change or a question, in the page's own language. */
import type { Evidence, Status, Transition } from "../api/types";
import { causeWords, figure, format, t } from "../words";

/** Why a change was told: whose fault it looks like, and how many probes in a row say so. */
export function reasonWords({ status, cause, verdict, evidence }: Pick<Transition, "status" | "cause" | "verdict" | "evidence">): string {
  const words = t();
  const parts = [status === "up" ? words.answers : verdict ? (words.verdictReasons[verdict] ?? verdict) : status === "down" ? words.answersNot : causeWords(cause)];
  const lost = evidence && status !== "up" ? lostInARow(evidence.probes) : 0;
  if (lost > 0) parts.push(words.lostInARow(lost));
  return parts.join("; ");
}

/** What probes that somebody has asked for mean, beside what the device is shown as. */
export function outcomeWords(shown: Status, { probes, carrier, gateway, mac }: Evidence): string {
  const words = t();
  const replies = probes.filter(({ outcome }) => outcome === "reply").length;
  const parts = [];
  if (replies > 0) parts.push(replies === probes.length ? words.answersAll : words.answersSome(replies, probes.length));
  else if (probes.every(({ outcome }) => outcome === "send_error")) parts.push(words.nothingSent);
  else parts.push(words.answersNot);
  if (replies === 0) {
    if (carrier === false) parts.push(words.carrier(false));
    else if (gateway !== null) parts.push(gateway === "reply" ? words.notTheAgent : words.gatewaySilent);
    if (mac !== null) parts.push(words.boxIsThere);
  }
  if (shown === "down" && replies > 0) parts.push(words.stillDown);
  if (shown === "up" && replies === 0) parts.push(words.stillUp);
  return parts.join("; ");
}

function lostInARow(probes: Evidence["probes"]): number {
  return probes.length - 1 - probes.findLastIndex(({ outcome }) => outcome === "reply");
}

/** The recorder's probes, oldest first, and what else the agent knew. */
export function Recorded({ evidence: { probes, gateway, gateway_rtt_ms, neighbours, carrier, mac } }: { evidence: Evidence }) {
  const words = t();
  const { up, down, unknown } = neighbours;
  return (
    <>
      {probes.length > 0 && (
        <p class="probes" role="img" aria-label={`${words.evidenceProbes}: ${probes.map(({ outcome }) => words.probeOutcome[outcome] ?? outcome).join(", ")}`}>
          {probes.map(({ at_ms, outcome, rtt_ms }) => (
            <span key={at_ms} class={`probe ${outcome === "reply" ? "n-up" : "n-down"}`} title={`${format.clock(at_ms)} ${words.probeOutcome[outcome] ?? outcome} ${rtt_ms === null ? "" : `${figure(rtt_ms)} ${words.rttAxis}`}`}>
              {outcome === "reply" ? "✓" : "✕"}
            </span>
          ))}
        </p>
      )}
      <p class="evidence faint">
        {gateway !== null && <span>{gateway_rtt_ms === null ? words.gatewaySilent : words.gateway(figure(gateway_rtt_ms))}</span>}
        {up + down + unknown > 0 && <span>{words.neighbours(up, down, unknown)}</span>}
        {carrier !== null && <span>{words.carrier(carrier)}</span>}
        {mac !== null && <span>{mac}</span>}
      </p>
    </>
  );
}
