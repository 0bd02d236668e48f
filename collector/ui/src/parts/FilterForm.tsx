/** Search and filters: region, then branch, then type, then status. They stand in the address. */
import type { Choice } from "../feed/filters";
import { filterChoices, isUnfiltered, prepareSearch } from "../feed/filters";
import { board, clearFilters, filters, setFilters, structure } from "../state";
import { useMemo } from "preact/hooks";
import { regionWords, t, typeWords } from "../words";

export function FilterForm({ of = "devices" }: { of?: "devices" | "branches" | "agents" }) {
  // The menus change with the estate and the region.
  void structure.value;
  const chosen = filters.value;
  const menus = filterChoices(board, chosen);
  const words = t();
  return (
    <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
      <label class="wide">
        <span>{words.search}</span>
        <input
          type="search"
          value={chosen.q}
          placeholder={{ devices: words.searchHint, branches: words.branchSearchHint, agents: words.agentSearchHint }[of]}
          autocomplete="off"
          spellcheck={false}
          onFocus={() => prepareSearch(board)}
          onInput={(event) => setFilters({ q: event.currentTarget.value })}
        />
      </label>
      <Menu label={words.region} all={words.allRegions} value={chosen.region} choices={menus.region.map(([id, name]) => [id, regionWords(name)] as const)} onPick={(region) => setFilters({ region })} />
      <Menu label={words.branch} all={words.allBranches} value={chosen.branch} choices={menus.branch} onPick={(branch) => setFilters({ branch })} />
      {of === "devices" && (
        <>
          <Menu label={words.type} all={words.allTypes} value={chosen.type} choices={menus.type.map((type) => [type, typeWords(type)] as const)} onPick={(type) => setFilters({ type })} />
          <Menu
            label={words.statusFilter}
            all={words.anyStatus}
            value={chosen.status}
            choices={(["up", "down", "unknown", "flapping", "maintenance"] as const).map((name) => [name, words.statuses[name]] as const)}
            onPick={(status) => setFilters({ status })}
          />
        </>
      )}
      <button type="button" class="choice" disabled={isUnfiltered(chosen)} onClick={clearFilters}>{words.clear}</button>
    </form>
  );
}

interface MenuProps {
  label: string;
  all: string;
  value: string;
  choices: readonly Choice[];
  onPick: (value: string) => void;
}

function Menu({ label, all, value, choices, onPick }: MenuProps) {
  // An address may name a branch that is gone; the menu must still show what is being filtered by.
  const isKnown = value === "" || choices.some(([id]) => id === value);
  const options = isKnown ? choices : [...choices, [value, value] as const];
  // Hundreds of options are the same ones with each letter that somebody types.
  return useMemo(() => (
    <label>
      <span>{label}</span>
      <select value={value} onChange={(event) => onPick(event.currentTarget.value)}>
        <option value="">{all}</option>
        {options.map(([id, words]) => <option key={id} value={id}>{words}</option>)}
      </select>
    </label>
  ), [label, all, value, choices]);
}
