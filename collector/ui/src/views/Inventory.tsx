/** What there is: added, changed, taken away, imported with a dry run, exported. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Device } from "../api/types";
import { ordered } from "../feed/order";
import { refusalWords } from "../parts/Diagnose";
import { FilterForm } from "../parts/FilterForm";
import { type Change, type Field, RecordForm, RemoveButton, useChange } from "../parts/Records";
import { Virtual } from "../parts/Virtual";
import { Note } from "../parts/bits";
import { branchPath, devicePath } from "../route";
import { board, drawn, filters, route, setParam } from "../state";
import { regionWords, t, typeWords } from "../words";

type Kind = "devices" | "branches" | "regions";
const KINDS: Kind[] = ["devices", "branches", "regions"];

export default function Inventory() {
  void drawn.value;
  const words = t();
  const named = route.value.params.get("kind");
  const kind = KINDS.find((one) => one === named) ?? "devices";
  if (board.about === null) return <Note>{words.waiting}</Note>;
  const newest = Math.max(0, ...[...board.places.values()].map(({ branch }) => branch.config_version ?? 0));
  return (
    <section class="panel">
      <div class="section-head">
        <h1>{words.views.inventory}</h1>
        <span class="faint">{words.inventoryCounts(words.devices(board.counts.total), words.branches(board.places.size), board.regions().length)}</span>
        <a class="choice" href="/api/v1/inventory.csv" download="inventory.csv" data-outside="">{words.exportCsv}</a>
      </div>
      {newest > 0 && <Pending />}
      <Import />
      <div class="shows" role="group" aria-label={words.views.inventory}>
        {KINDS.map((one) => <button key={one} type="button" class="choice" aria-pressed={one === kind} onClick={() => setParam("kind", one === "devices" ? "" : one)}>{words.kinds[one]}</button>)}
      </div>
      {kind === "devices" ? <Devices /> : <Groups key={kind} kind={kind} />}
    </section>
  );
}

/** Agents that don't have the config that they were sent. */
function Pending() {
  void drawn.value;
  const words = t();
  const pending = [...board.places.values()].filter(({ branch }) => branch.config_wanted != null && branch.config_wanted !== branch.config_version);
  if (pending.length === 0) return null;
  return (
    <details>
      <summary class="warn">{words.pendingConfigs(pending.length)}</summary>
      <ul class="chips">{pending.slice(0, 200).map(({ id, branch }) => <li key={id}><a class="chip" href={branchPath(id)}>{branch.name}</a></li>)}</ul>
    </details>
  );
}

const CREATED = { devices: "/api/v1/devices", branches: "/api/v1/branches", regions: "/api/v1/regions" };

function onePath(kind: Kind, id: string): string {
  return `${CREATED[kind]}/${encodeURIComponent(id)}`;
}

function Devices() {
  void drawn.value;
  const words = t();
  const change = useChange(() => undefined);
  const [edited, setEdited] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  const rows = ordered(board, filters.value, { by: "name", isDescending: false });
  const fields: Field[] = [
    { name: "id", label: words.id, fixed: true },
    { name: "name", label: words.name },
    { name: "branch", label: words.branch },
    { name: "device_type", label: words.type },
    { name: "ip", label: words.address },
  ];
  const add = (values: Record<string, string>) => void change.run(() => tell("POST", CREATED.devices, values)).then((done) => done && setTurn(turn + 1));
  const heightOf = (device: Device) => (device.id === edited ? 9 : 2.4);
  return (
    <>
      {change.said}
      <RecordForm key={turn} fields={fields} isNew busy={change.busy} submit={add} />
      <FilterForm />
      <Virtual
        rows={rows}
        keyOf={({ id }) => id}
        heightOf={heightOf}
        label={words.kinds.devices}
        render={(device) => edited === device.id
          ? <RecordForm fields={fields} values={{ id: device.id, name: device.name, branch: device.branch, device_type: device.device_type, ip: device.ip }} isNew={false} busy={change.busy} submit={({ id: _, ...values }) => void change.run(() => tell("PATCH", onePath("devices", device.id), values)).then((done) => done && setEdited(null))} cancel={() => setEdited(null)} />
          : <DeviceRow device={device} change={change} edit={() => setEdited(device.id)} />}
      />
    </>
  );
}

function DeviceRow({ device, change, edit }: { device: Device; change: Change; edit: () => void }) {
  const words = t();
  return (
    <div class="record">
      <a href={devicePath(device.id)}>{device.name}</a>
      <span>{board.placeOf(device)?.branch.name ?? device.branch}</span>
      <span>{typeWords(device.device_type)}</span>
      <span>{device.ip}</span>
      <span class="faint">{device.id}</span>
      <span class="actions">
        <button type="button" class="choice" aria-label={`${words.edit}: ${device.name}`} onClick={edit}>{words.edit}</button>
        <RemoveButton busy={change.busy} remove={() => void change.run(() => tell("DELETE", onePath("devices", device.id)))} />
      </span>
    </div>
  );
}

function Groups({ kind }: { kind: "branches" | "regions" }) {
  void drawn.value;
  const words = t();
  const change = useChange(() => undefined);
  const [edited, setEdited] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  const fields: Field[] = [{ name: "id", label: words.id, fixed: true }, { name: "name", label: words.name }];
  if (kind === "branches") fields.push({ name: "region", label: words.region, choices: board.regions().map(({ id, name }) => [id, regionWords(name)] as const) });
  const rows = kind === "regions"
    ? board.regions().map(({ id, name, places }) => ({ id, name, region: "", size: words.branches(places.length) }))
    : board.regions().flatMap(({ places }) => places.map(({ id, branch, devices }) => ({ id, name: branch.name, region: branch.region ?? "", size: words.devices(devices.length) })));
  const add = (values: Record<string, string>) => void change.run(() => tell("POST", CREATED[kind], values)).then((done) => done && setTurn(turn + 1));
  return (
    <>
      {change.said}
      <RecordForm key={turn} fields={fields} isNew busy={change.busy} submit={add} />
      <Virtual
        rows={rows}
        keyOf={({ id }) => id}
        heightOf={(row) => (row.id === edited ? 6 : 2.4)}
        label={words.kinds[kind]}
        render={(row) => edited === row.id
          ? <RecordForm fields={fields} values={row} isNew={false} busy={change.busy} submit={({ id: _, ...values }) => void change.run(() => tell("PATCH", onePath(kind, row.id), values)).then((done) => done && setEdited(null))} cancel={() => setEdited(null)} />
          : (
            <div class="record">
              <span>{row.name}</span><span class="faint">{row.id}</span><span>{row.size}</span>
              <span class="actions">
                <button type="button" class="choice" aria-label={`${words.edit}: ${row.name}`} onClick={() => setEdited(row.id)}>{words.edit}</button>
                <RemoveButton busy={change.busy} remove={() => void change.run(() => tell("DELETE", onePath(kind, row.id)))} />
              </span>
            </div>
          )}
      />
    </>
  );
}

interface Imported {
  dry_run: boolean;
  applied: boolean;
  rows: number;
  added: unknown[];
  changed: unknown[];
  removed: unknown[];
  errors: { line: number; column: string | null; message: string }[];
}

/** Mistakes that are listed: whoever has more has the wrong file. */
const MISTAKES = 200;

function Import() {
  const words = t();
  const [text, setText] = useState<string | null>(null);
  const [result, setResult] = useState<Imported | null>(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async (isDry: boolean) => {
    if (text === null) return;
    setBusy(true);
    setError("");
    await tell<Imported>("POST", `/api/v1/inventory/import?dry_run=${isDry}`, text).then(setResult).catch((failed: unknown) => setError(refusalWords(failed)));
    setBusy(false);
  };
  const isTried = result !== null && result.dry_run && result.errors.length === 0;
  return (
    <details class="import">
      <summary>{words.importCsv}</summary>
      <div class="form">
        <label><span>{words.chooseFile}</span><input type="file" accept=".csv,text/csv" onChange={(event) => {
          setResult(null);
          void event.currentTarget.files?.[0]?.text().then(setText);
        }} /></label>
        <button type="button" class="choice" disabled={busy || text === null} onClick={() => void send(true)}>{words.dryRun}</button>
        <button type="button" class="choice" disabled={busy || !isTried} onClick={() => void send(false)}>{words.applyImport}</button>
      </div>
      {error && <p class="problem" role="alert">{error}</p>}
      {result && (
        <div role="status">
          <p>{words.importResult(result.rows, result.added.length, result.changed.length, result.removed.length)}</p>
          {result.errors.length > 0 && <p class="problem">{words.importErrors(result.errors.length)}</p>}
          {result.errors.length === 0 && <p class="good-news">{result.applied ? words.importApplied : words.importDry}</p>}
          {result.errors.length > 0 && (
            <table>
              <thead><tr><th scope="col" class="number">{words.line}</th><th scope="col">{words.column}</th><th scope="col">{words.mistake}</th></tr></thead>
              <tbody>{result.errors.slice(0, MISTAKES).map((mistake) => <tr key={`${mistake.line} ${mistake.column} ${mistake.message}`}><td class="number">{mistake.line}</td><td>{mistake.column}</td><td>{mistake.message}</td></tr>)}</tbody>
            </table>
          )}
        </div>
      )}
    </details>
  );
}
