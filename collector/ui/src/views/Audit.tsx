/** Who did what, newest first. */
import { useEffect, useState } from "preact/hooks";
import { Answered } from "../parts/Records";
import { useAnswer } from "../parts/useAnswer";
import { format, t } from "../words";

interface Entry {
  id: number | string;
  at_ms: number;
  actor: string;
  action: string;
  target: string | null;
  detail: unknown;
}
interface Page {
  entries: Entry[];
  next_cursor: string | null;
}

export default function Audit() {
  const words = t();
  const [cursor, setCursor] = useState<string | null>(null);
  const [older, setOlder] = useState<Entry[]>([]);
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
        {({ next_cursor }) => (
          <>
            <div class="table-scroll" tabIndex={0} role="region" aria-label={words.views.audit}>
              <table>
                <thead><tr><th scope="col">{words.when}</th><th scope="col">{words.actor}</th><th scope="col">{words.action}</th><th scope="col">{words.target}</th><th scope="col">{words.detail}</th></tr></thead>
                <tbody>
                  {older.map((entry) => (
                    <tr key={entry.id}>
                      <td class="number">{format.full(entry.at_ms)}</td><th scope="row">{entry.actor}</th><td>{entry.action.replaceAll("_", " ")}</td><td>{entry.target}</td>
                      <td class="detail">{typeof entry.detail === "string" || entry.detail == null ? entry.detail : JSON.stringify(entry.detail)}</td>
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
