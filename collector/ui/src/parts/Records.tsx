/** A list of records that somebody with the right role may change: the pages of administration share it. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Refused } from "../api/ask";
import { t } from "../words";
import { refusalWords } from "./Diagnose";
import type { Answer } from "./useAnswer";

/** Shows an answer or why there is none. */
export function Answered<T>({ answer, children }: { answer: Answer<T>; children: (value: T) => ComponentChildren }) {
  const { value, error, isLoading } = answer;
  if (error) {
    const words = error instanceof Refused && [403, 404].includes(error.status) ? refusalWords(error) : t().listFailed(error.message);
    return <p class="problem" role="alert">{words}</p>;
  }
  if (value === null) return isLoading ? <p class="none" role="status">{t().readingList}</p> : null;
  return <>{children(value)}</>;
}

export interface Change {
  /** Does it, and tells what came of it. */
  run: (work: () => Promise<unknown>) => Promise<boolean>;
  busy: boolean;
  said: ComponentChildren;
}

/** One change at a time, with the refusal in words where there is one. */
export function useChange(after: () => void): Change {
  const [busy, setBusy] = useState(false);
  const [said, setSaid] = useState<ComponentChildren>(null);
  const run = async (work: () => Promise<unknown>) => {
    setBusy(true);
    setSaid(null);
    try {
      await work();
      setSaid(<p class="good-news" role="status">{t().saved}</p>);
      after();
      return true;
    } catch (error) {
      setSaid(<p class="problem" role="alert">{refusalWords(error)}</p>);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, said };
}

export interface Field {
  name: string;
  label: string;
  kind?: "text" | "password" | "number";
  choices?: readonly (readonly [value: string, words: string])[];
  optional?: boolean;
  /** It names the record: it can't be changed afterwards. */
  fixed?: boolean;
}

interface FormProps {
  fields: Field[];
  values?: Record<string, string>;
  isNew: boolean;
  busy: boolean;
  submit: (values: Record<string, string>) => void;
  cancel?: () => void;
}

export function RecordForm({ fields, values = {}, isNew, busy, submit, cancel }: FormProps) {
  const words = t();
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    submit(Object.fromEntries(fields.map(({ name }) => [name, String(form.get(name) ?? values[name] ?? "").trim()])));
  };
  return (
    <form class="form" onSubmit={send}>
      {fields.map((field) => (
        <label key={field.name}>
          <span>{field.label}</span>
          {field.choices ? (
            <select name={field.name} defaultValue={values[field.name] ?? field.choices[0]?.[0]}>{field.choices.map(([value, label]) => <option key={value} value={value} selected={value === values[field.name]}>{label}</option>)}</select>
          ) : (
            <input
              name={field.name}
              type={field.kind ?? "text"}
              defaultValue={values[field.name] ?? ""}
              required={!field.optional}
              disabled={field.fixed === true && !isNew}
              autocomplete={field.kind === "password" ? "new-password" : "off"}
              spellcheck={false}
            />
          )}
        </label>
      ))}
      <button class="choice" disabled={busy}>{isNew ? words.add : words.save}</button>
      {cancel && <button type="button" class="choice" onClick={cancel}>{words.cancel}</button>}
    </form>
  );
}

/** Removing asks once more, in place. */
export function RemoveButton({ busy, remove }: { busy: boolean; remove: () => void }) {
  const [isAsked, setAsked] = useState(false);
  const words = t();
  if (!isAsked) return <button type="button" class="choice" disabled={busy} onClick={() => setAsked(true)}>{words.remove}</button>;
  return (
    <span class="actions">
      <button type="button" class="choice danger" disabled={busy} onClick={remove}>{words.removeSure}</button>
      <button type="button" class="choice" onClick={() => setAsked(false)}>{words.cancel}</button>
    </span>
  );
}

/** Ids with commas, as people write lists; empty is all of them. */
export function idList(text: string): string[] | null {
  const ids = text.split(",").map((id) => id.trim()).filter(Boolean);
  return ids.length === 0 ? null : ids;
}
