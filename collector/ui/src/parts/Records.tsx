/** A list of records that somebody with the right role may change: the pages of administration share it. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Refused } from "../api/ask";
import { t } from "../words";
import { Problem } from "./bits";
import type { Answer } from "./useAnswer";

/** Shows an answer or why there is none. */
export function Answered<T>({ answer, children }: { answer: Answer<T>; children: (value: T) => ComponentChildren }) {
  const { value, error, isLoading } = answer;
  if (error) {
    const isRefused = error instanceof Refused && [403, 404].includes(error.status);
    return isRefused ? <Problem error={error} /> : <Problem what={t().listFailed} error={error} />;
  }
  if (value === null) return isLoading ? <p class="none" role="status">{t().readingList}</p> : null;
  return <>{children(value)}</>;
}

interface Change {
  /** Does it, and tells what came of it. */
  run: (work: () => Promise<unknown>) => Promise<boolean>;
  busy: boolean;
  said: ComponentChildren;
}

/** One change at a time, with the refusal in words where there is one. */
export function useChange(after: () => void = () => undefined): Change {
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
      setSaid(<Problem error={error} />);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, said };
}

type Choices = readonly (readonly [value: string, words: string])[];

export interface Field {
  name: string;
  label: string;
  kind?: "text" | "password" | "number" | "datetime-local";
  /** One of these. */
  choices?: Choices;
  /** Some of these; their values come with commas between them. */
  several?: Choices;
  /** These or anything else. */
  suggestions?: Choices;
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

function RecordForm({ fields, values = {}, isNew, busy, submit, cancel }: FormProps) {
  const words = t();
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const told = ({ name, several, fixed }: Field) => (fixed && !isNew ? (values[name] ?? "") : several ? form.getAll(name).join(",") : String(form.get(name) ?? "").trim());
    submit(Object.fromEntries(fields.map((field) => [field.name, told(field)])));
  };
  return (
    <form class="form" onSubmit={send}>
      {fields.map((field) => field.several ? <Several key={field.name} field={field} chosen={values[field.name] ?? ""} /> : (
        <label key={field.name}>
          <span>{field.label}</span>
          <Input field={field} value={values[field.name]} isNew={isNew} />
        </label>
      ))}
      <span class="actions">
        <button class="choice" disabled={busy}>{isNew ? words.add : words.save}</button>
        {cancel && <button type="button" class="choice" onClick={cancel}>{words.cancel}</button>}
      </span>
    </form>
  );
}

function Input({ field: { name, kind = "text", choices, suggestions, optional, fixed }, value, isNew }: { field: Field; value: string | undefined; isNew: boolean }) {
  const list = useId();
  if (choices) {
    return <select name={name} required>{choices.map(([one, label]) => <option key={one} value={one} selected={one === value}>{label}</option>)}</select>;
  }
  return (
    <>
      <input
        name={name}
        type={kind}
        min={kind === "number" ? 1 : undefined}
        defaultValue={value ?? ""}
        required={!optional}
        disabled={fixed === true && !isNew}
        autocomplete={kind === "password" ? "new-password" : "off"}
        spellcheck={false}
        list={suggestions && list}
      />
      {suggestions && <datalist id={list}>{suggestions.map(([one, label]) => <option key={one} value={one}>{label}</option>)}</datalist>}
    </>
  );
}

function Several({ field: { name, label, several = [] }, chosen }: { field: Field; chosen: string }) {
  const values = idList(chosen) ?? [];
  return (
    <fieldset class="several">
      <legend>{label}</legend>
      {several.map(([value, words]) => <label key={value}><input type="checkbox" name={name} value={value} defaultChecked={values.includes(value)} /> {words}</label>)}
    </fieldset>
  );
}

/** The form of one record, above its list: whoever opens it can type at once, and Escape leaves it. */
export function Editor({ heading, cancel, ...form }: FormProps & { heading: string; cancel: () => void }) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current?.querySelector<HTMLElement>("input:enabled, select")?.focus();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <section ref={box} class="editor" aria-label={heading} onKeyDown={(event) => event.key === "Escape" && cancel()}>
      <h2>{heading}</h2>
      <RecordForm {...form} cancel={cancel} />
    </section>
  );
}

/** Changing and removing one record; removing asks once more, in place. */
export function RecordButtons({ name, busy, edit, remove }: { name: string; busy: boolean; edit?: () => void; remove: () => void }) {
  const [isAsked, setAsked] = useState(false);
  const words = t();
  if (isAsked) {
    return (
      <span class="actions">
        <button type="button" class="choice danger" disabled={busy} aria-label={`${words.removeSure} ${name}`} onClick={() => (setAsked(false), remove())}>{words.removeSure}</button>
        <button type="button" class="choice" onClick={() => setAsked(false)}>{words.cancel}</button>
      </span>
    );
  }
  return (
    <span class="actions">
      {edit && <button type="button" class="choice" aria-label={`${words.edit}: ${name}`} onClick={edit}>{words.edit}</button>}
      <button type="button" class="choice" disabled={busy} aria-label={`${words.remove}: ${name}`} onClick={() => setAsked(true)}>{words.remove}</button>
    </span>
  );
}

/** Ids with commas between them; none stands for all. */
export function idList(text: string): string[] | null {
  const ids = text.split(",").map((id) => id.trim()).filter(Boolean);
  return ids.length === 0 ? null : ids;
}
