/** An inventory from a file: tried first, with each mistake by its line, then taken as a whole. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Imported } from "../api/types";
import { t } from "../words";
import { Problem } from "./bits";

/** What is listed of a file: whoever has more mistakes has the wrong one. */
const LISTED = 200;

/** `after` a change that the feed doesn't tell of: a region that has no branch yet. */
export function Import({ after }: { after: () => void }) {
  const words = t();
  const [text, setText] = useState<string | null>(null);
  const [removes, setRemoves] = useState(false);
  const [result, setResult] = useState<Imported | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const forget = () => {
    setResult(null);
    setError(null);
  };
  const send = async (isDry: boolean) => {
    if (text === null) return;
    setBusy(true);
    setError(null);
    await tell<Imported>("POST", `/api/v1/inventory/import?dry_run=${isDry}&remove=${removes}`, text)
      .then((told) => {
        setResult(told);
        if (told.applied) after();
      })
      .catch((failed: unknown) => {
        setResult(null);
        setError(failed);
      });
    setBusy(false);
  };
  const isTried = result !== null && result.dry_run && result.total_errors === 0;
  return (
    <details class="import">
      <summary>{words.importCsv}</summary>
      <div class="form">
        <label><span>{words.chooseFile}</span><input type="file" accept=".csv,text/csv" onChange={(event) => {
          forget();
          setText(null);
          void event.currentTarget.files?.[0]?.text().then(setText);
        }} /></label>
        <label class="check"><input type="checkbox" checked={removes} onChange={(event) => {
          forget();
          setRemoves(event.currentTarget.checked);
        }} /> {words.removeMissing}</label>
        <span class="actions">
          <button type="button" class="choice" disabled={busy || text === null} onClick={() => void send(true)}>{words.dryRun}</button>
          <button type="button" class="choice" disabled={busy || !isTried} onClick={() => void send(false)}>{words.applyImport}</button>
        </span>
      </div>
      <p class="faint">{words.importColumns}</p>
      {error !== null && <Problem error={error} />}
      {result && <Outcome result={result} />}
    </details>
  );
}

function Outcome({ result }: { result: Imported }) {
  const words = t();
  const { rows, added, changed, removed, errors, total_errors, applied } = result;
  return (
    <div class="import-outcome">
      <div role="status">
        <p>{words.importResult(rows, added.length, changed.length, removed.length)}</p>
        {total_errors > 0 && <p class="problem">{words.importErrors(total_errors)}</p>}
        {total_errors === 0 && <p class="good-news">{applied ? words.importApplied : words.importDry}</p>}
      </div>
      {(["removed", "changed", "added"] as const).map((kind) => result[kind].length > 0 && (
        <details key={kind} open={kind === "removed"}>
          <summary class={kind === "removed" ? "n-down" : ""}>{words.importNames[kind]}: {result[kind].length}</summary>
          <p class="faint">{result[kind].slice(0, LISTED).join(", ")}{result[kind].length > LISTED && ` ${words.more(result[kind].length - LISTED)}`}</p>
        </details>
      ))}
      {errors.length > 0 && (
        <div class="table-scroll" tabIndex={0} role="group" aria-label={words.importErrors(total_errors)}>
          <table>
            <thead><tr><th scope="col" class="number">{words.line}</th><th scope="col">{words.column}</th><th scope="col">{words.mistake}</th></tr></thead>
            <tbody>{errors.slice(0, LISTED).map(({ line, column, message }) => <tr key={`${line} ${column} ${message}`}><td class="number">{line}</td><td>{column}</td><td lang="en">{message}</td></tr>)}</tbody>
          </table>
        </div>
      )}
    </div>
  );
}
