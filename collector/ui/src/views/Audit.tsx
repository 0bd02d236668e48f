/** Who did what, newest first. */
import { useEffect, useState } from "preact/hooks";
import type { Change } from "../api/types";
import { Answered } from "../parts/Records";
import { useAnswer } from "../parts/useAnswer";
import { Note, regionNames } from "../parts/bits";
import { format, t, typeWords } from "../words";

interface Page {
  entries: Change[];
  next_cursor: string | null;
}

export default function Audit() {
  const words = t();
  const [cursor, setCursor] = useState<string | null>(null);
  const [older, setOlder] = useState<Change[]>([]);
  const answer = useAnswer<Page>(`/api/v1/audit?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  const { value } = answer;
  useEffect(() => {
    if (!value) return;
    // A page may come twice; an entry is shown once.
    setOlder((before) => [...before, ...value.entries.filter(({ id }) => !before.some((entry) => entry.id === id))]);
  }, [value]);
  return (
    <section class="panel">
      <h1>{words.views.audit}</h1>
      <Answered answer={answer}>
        {({ next_cursor, entries }) => entries.length + older.length === 0 ? <Note>{words.noAudit}</Note> : (
          <>
            <div class="table-scroll" tabIndex={0} role="group" aria-label={words.views.audit}>
              <table>
                <thead><tr><th scope="col">{words.when}</th><th scope="col">{words.actor}</th><th scope="col">{words.action}</th><th scope="col">{words.target}</th><th scope="col">{words.detail}</th></tr></thead>
                <tbody>
                  {older.map((entry) => (
                    <tr key={entry.id}>
                      <td class="moment">{format.full(entry.at_ms)}</td><th scope="row">{entry.actor}</th><td>{words.auditActions[entry.action] ?? entry.action}</td><td>{entry.target}</td>
                      <td>{detailWords(entry.detail)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            {next_cursor && <p><button type="button" class="choice" onClick={() => setCursor(next_cursor)}>{words.olderEntries}</button></p>}
          </>
        )}
      </Answered>
    </section>
  );
}

/** `name: Vake ATM 1 · branch: vake` */
function detailWords(detail: Readonly<Record<string, unknown>>): string {
  const { auditFields } = t();
  return Object.entries(detail).filter(([, value]) => value !== null || "regions" in detail).map(([key, value]) => `${auditFields[key] ?? key}: ${valueWords(key, value)}`).join(" · ");
}

function valueWords(key: string, value: unknown): string {
  const words = t();
  switch (key) {
    case "role":
      return words.roles[String(value)] ?? String(value);
    case "regions":
      return regionNames(value as string[] | null);
    case "device_type":
      return typeWords(String(value));
    case "from":
    case "to":
    case "expires":
      return value === null ? words.never : format.full(Date.parse(String(value)));
    default:
      return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
}
