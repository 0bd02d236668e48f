/** Times agreed on for work at a device or a branch: availability leaves them out. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Window } from "../api/types";
import { may, now } from "../state";
import { format, momentOf, roundDuration, t, timeWords } from "../words";
import { Editor, type Field, RecordButtons, useChange } from "./Records";
import { useAnswer } from "./useAnswer";

const PATH = "/api/v1/maintenance";
const HOUR_MS = 3_600_000;
/** How long work usually takes. */
const LENGTHS = [0.5, 1, 2, 4, 8, 24, 72].map((hours) => hours * HOUR_MS);

export function Maintenance({ scope, id }: { scope: "device" | "branch"; id: string }) {
  const words = t();
  const answer = useAnswer<{ windows: Window[] }>(`${PATH}?scope=${scope}&key=${encodeURIComponent(id)}`);
  const change = useChange(answer.again);
  const [isOpen, setOpen] = useState(false);
  const at = now.peek() ?? 0;
  const coming = (answer.value?.windows ?? []).filter(({ to_ms }) => to_ms > at);
  const mayPlan = may("maintenance");
  if (coming.length === 0 && !mayPlan) return null;
  const fields: Field[] = [
    { name: "from", label: words.workBegins, kind: "datetime-local" },
    { name: "lasts", label: words.workLasts, choices: LENGTHS.map((ms) => [String(ms), roundDuration(ms)] as const) },
    { name: "reason", label: words.workReason, optional: true },
  ];
  const add = (values: Record<string, string>) => {
    const from = momentOf(values["from"] ?? "");
    void change.run(() => tell("POST", PATH, { scope, key: id, from, to: from + Number(values["lasts"]), reason: values["reason"] })).then((done) => done && setOpen(false));
  };
  return (
    <section class="panel" aria-label={words.maintenance}>
      <h2>{words.maintenance}</h2>
      {coming.length === 0 && <p class="faint">{words.noMaintenance}</p>}
      <ul class="windows">
        {coming.map((window) => (
          <li key={window.id}>
            <span>{timeWords(window.from_ms, at)} – {timeWords(window.to_ms, at)}{window.reason && ` · ${window.reason}`}</span>
            {mayPlan && <RecordButtons name={`${words.maintenance} ${timeWords(window.from_ms, at)}`} busy={change.busy} remove={() => void change.run(() => tell("DELETE", `${PATH}/${window.id}`))} />}
          </li>
        ))}
      </ul>
      {mayPlan && !isOpen && <p class="actions"><button type="button" class="choice" onClick={() => setOpen(true)}>{words.planMaintenance}</button></p>}
      {isOpen && <Editor heading={words.planMaintenance} fields={fields} values={{ from: `${format.dayKey(at)}T${format.minute(at)}`, lasts: String(2 * HOUR_MS), reason: "" }} isNew busy={change.busy} submit={add} cancel={() => setOpen(false)} />}
      {change.said}
    </section>
  );
}
