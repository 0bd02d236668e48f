/** What there is: added, changed, taken away, imported with a dry run, exported. Who may not change it sees it. */
import { useComputed } from "@preact/signals";
import { useCallback, useMemo, useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Device } from "../api/types";
import { isConfigPending } from "../feed/agents";
import { type Filters, filterChoices, includesAll, searched } from "../feed/filters";
import { ordered } from "../feed/order";
import { FilterForm } from "../parts/FilterForm";
import { Import } from "../parts/Import";
import { Editor, type Field, RecordButtons, useChange } from "../parts/Records";
import { Virtual, useNarrow } from "../parts/Virtual";
import { useAnswer } from "../parts/useAnswer";
import { Note } from "../parts/bits";
import { branchPath, devicePath } from "../route";
import { board, drawn, filters, may, monitorPath, now, route, setParam, structure } from "../state";
import { regionWords, t, typeWords } from "../words";

type Kind = "devices" | "branches" | "regions";
const KINDS: Kind[] = ["devices", "branches", "regions"];

export default function Inventory() {
  void structure.value;
  const words = t();
  const named = route.value.params.get("kind");
  const kind = KINDS.find((one) => one === named) ?? "devices";
  const regions = useAnswer<{ regions: RegionRow[] }>("/api/v1/regions");
  if (board.about === null) return <Note>{words.waiting}</Note>;
  // A region without branches is in no message of the feed.
  const known = regions.value?.regions ?? [];
  return (
    <section class="panel">
      <div class="section-head">
        <h1>{words.views.inventory}</h1>
        <span class="faint">{words.inventoryCounts(words.devices(board.counts.total), words.branches(board.places.size), known.length)}</span>
        {may("devices") && <a class="choice" href="/api/v1/inventory.csv" download="inventory.csv" data-outside="">{words.exportCsv}</a>}
      </div>
      <Pending />
      {may("import") && <Import after={regions.again} />}
      <div class="shows" role="group" aria-label={words.views.inventory}>
        {KINDS.map((one) => <button key={one} type="button" class="choice" aria-pressed={one === kind} onClick={() => setParam("kind", one === "devices" ? "" : one)}>{words.kinds[one]}</button>)}
      </div>
      {kind === "devices" && <Devices />}
      {kind === "branches" && <Branches regions={known} />}
      {kind === "regions" && <Regions regions={known} again={regions.again} />}
    </section>
  );
}

/** Agents that don't have the config that they were sent. */
function Pending() {
  const words = t();
  const ids = useComputed(() => (drawn.value > 0 ? [...board.places.values()].filter(({ branch }) => isConfigPending(branch)).map(({ id }) => id).join("\n") : "")).value;
  if (ids === "") return null;
  const pending = ids.split("\n");
  return (
    <details class="pending">
      <summary class="warn">{words.pendingConfigs(pending.length)}</summary>
      <ul class="chips">{pending.slice(0, 200).map((id) => <li key={id}><a class="chip" href={branchPath(id)}>{board.places.get(id)?.branch.name ?? id}</a></li>)}</ul>
    </details>
  );
}

/** A record as its list shows it. */
interface Entry {
  id: string;
  name: string;
  path: string;
  facts: string[];
  /** What its form begins with. */
  values: { [field: string]: string };
}

interface ListProps {
  kind: Kind;
  mayEdit: boolean;
  fields: Field[];
  records: Entry[];
  addWords: string;
  /** After a change that the feed doesn't tell of. */
  after?: () => void;
}

function List({ kind, mayEdit, fields, records, addWords, after }: ListProps) {
  const words = t();
  const change = useChange(after);
  const [open, setOpen] = useState<Entry | "new" | null>(null);
  const [turn, setTurn] = useState(0);
  const isNarrow = useNarrow();
  const height = useCallback(() => (isNarrow ? 4.4 : 2.4), [isNarrow]);
  const path = `/api/v1/${kind}`;
  const onePath = (id: string) => `${path}/${encodeURIComponent(id)}`;
  // The form stays for the next one, emptied.
  const add = (values: { [field: string]: string }) => void change.run(() => tell("POST", path, values)).then((done) => done && setTurn(turn + 1));
  const save = (record: Entry, { id: _, ...values }: { [field: string]: string }) =>
    void change.run(() => tell("PATCH", onePath(record.id), values)).then((done) => done && setOpen(null));
  return (
    <>
      {mayEdit && open === null && <p class="actions"><button type="button" class="choice" onClick={() => setOpen("new")}>{addWords}</button></p>}
      {open === "new" && <Editor key={turn} heading={addWords} fields={fields} values={{ branch: filters.value.branch, region: filters.value.region }} isNew busy={change.busy} submit={add} cancel={() => setOpen(null)} />}
      {open !== null && open !== "new" && <Editor key={open.id} heading={words.editOf(open.name)} fields={fields} values={open.values} isNew={false} busy={change.busy} submit={(values) => save(open, values)} cancel={() => setOpen(null)} />}
      {change.said}
      {kind !== "regions" && <FilterForm of={kind} />}
      {records.length === 0 && <Note>{words.nothingToShow}</Note>}
      <Virtual
        rows={records}
        keyOf={({ id }) => id}
        heightOf={height}
        label={words.kinds[kind]}
        render={(record) => (
          <div class={`record of-${kind}`}>
            <a class="record-name" href={record.path} title={record.name}>{record.name}</a>
            <span class="record-facts">{record.facts.map((fact, at) => <span key={at} title={fact}>{fact}</span>)}<span class="faint" title={record.id}>{record.id}</span></span>
            {mayEdit && <RecordButtons name={record.name} busy={change.busy} edit={() => setOpen(record)} remove={() => void change.run(() => tell("DELETE", onePath(record.id)))} />}
          </div>
        )}
      />
    </>
  );
}

function Devices() {
  void structure.value;
  const words = t();
  const { branch: branches, type } = filterChoices(board, { region: "" });
  const types = type.map((one) => [one, typeWords(one)] as const);
  const fields: Field[] = [
    { name: "id", label: words.id, fixed: true },
    { name: "name", label: words.name },
    { name: "branch", label: words.branch, choices: branches },
    { name: "device_type", label: words.type, suggestions: types },
    { name: "ip", label: words.address },
  ];
  const chosen = filters.value;
  // Which devices there are is a matter of seconds only where somebody looks for those of a status.
  const second = chosen.status === "" ? 0 : now.value;
  const records = useMemo(() => ordered(board, chosen, { by: "name", isDescending: false }).map(deviceRecord), [structure.value, chosen, second, words]);
  return <List kind="devices" mayEdit={may("devices")} fields={fields} records={records} addWords={words.addDevice} />;
}

function deviceRecord({ id, name, branch, device_type, ip, ...device }: Device): Entry {
  const place = board.places.get(branch);
  const facts = [place?.branch.name ?? branch, regionWords(place?.branch.region_name ?? device.region), typeWords(device_type), ip];
  return { id, name, path: devicePath(id), facts, values: { id, name, branch, device_type, ip } };
}

interface RegionRow {
  id: string;
  name: string;
  branches: number;
  counts: { total_devices: number };
}

function Branches({ regions }: { regions: RegionRow[] }) {
  void structure.value;
  const words = t();
  const fields: Field[] = [
    { name: "id", label: words.id, fixed: true },
    { name: "name", label: words.name },
    { name: "region", label: words.region, choices: regions.map(({ id, name }) => [id, regionWords(name)] as const) },
  ];
  const records = board.regions().flatMap((region) => region.places.filter(({ id, branch }) => isWanted(filters.value, id, branch.name, region.id)).map((place): Entry => {
    const { id, branch, devices } = place;
    return { id, name: branch.name, path: branchPath(id), facts: [regionWords(region.name), words.devices(devices.length)], values: { id, name: branch.name, region: region.id } };
  }));
  return <List kind="branches" mayEdit={may("branches")} fields={fields} records={records} addWords={words.addBranch} />;
}

function isWanted(chosen: Filters, id: string, name: string, region: string): boolean {
  if ((chosen.region && chosen.region !== region) || (chosen.branch && chosen.branch !== id)) return false;
  return includesAll(`${name} ${id}`.toLowerCase(), searched(chosen.q));
}

function Regions({ regions, again }: { regions: RegionRow[]; again: () => void }) {
  const words = t();
  const fields: Field[] = [{ name: "id", label: words.id, fixed: true }, { name: "name", label: words.name }];
  const records = regions.map(({ id, name, branches, counts }): Entry => ({
    id, name: regionWords(name), path: monitorPath({ region: id }), facts: [words.branches(branches), words.devices(counts.total_devices)], values: { id, name },
  }));
  return <List kind="regions" mayEdit={may("regions")} fields={fields} records={records} addWords={words.addRegion} after={again} />;
}
