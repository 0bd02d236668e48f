/** All agents: silent, behind, badly dated, without a card, old; those with problems first. */
import { computed } from "@preact/signals";
import { AGENT_COLUMNS, type AgentColumn, type AgentOrder, agents, newestVersion, pressed, problemsOf } from "../feed/agents";
import { FilterForm } from "../parts/FilterForm";
import { agentCell } from "../parts/agentCells";
import { branchPath } from "../route";
import { board, drawn, filters, now, route, setParam } from "../state";
import { t } from "../words";

/** Rows: more than anyone reads, and few enough to draw at once. Filters reach the rest. */
const ROWS_LIMIT = 500;
const NUMBERS: readonly AgentColumn[] = ["age", "waiting", "behind", "buffer", "line", "card", "flushes", "missed", "errors", "drops"];

/** The table is made anew each few seconds at most: nothing of it is a matter of frames. */
const tick = computed(() => Math.floor((now.value ?? 0) / 2_000));

export default function Fleet() {
  void drawn.value;
  void tick.value;
  const at = now.peek() ?? 0;
  const order = orderFrom(route.value.params.get("sort"));
  const rows = agents(board, filters.value, order, at);
  const words = t();
  const press = (by: AgentColumn) => {
    const next = pressed(order, by);
    setParam("sort", next.by === "" ? "" : `${next.isDescending ? "-" : ""}${next.by}`);
  };
  return (
    <>
      <div class="section-head">
        <h1>{words.agents}</h1>
        <span class="faint" role="status">{totals(at)}</span>
        <button type="button" class="choice" aria-pressed={order.by === ""} onClick={() => setParam("sort", "")}>{words.problemsFirst}</button>
      </div>
      <FilterForm of="agents" />
      {rows.length === 0 && <p class="none">{board.about === null ? words.waiting : words.noAgentMatches}</p>}
      <div class="table-scroll" tabIndex={0} role="region" aria-label={words.agents}>
        <table class="fleet">
          <thead>
            <tr>
              {AGENT_COLUMNS.map((column) => (
                <th key={column} scope="col" class={NUMBERS.includes(column) ? "number" : ""} aria-sort={order.by === column ? (order.isDescending ? "descending" : "ascending") : "none"}>
                  <button type="button" title={words.agentHints[column]} onClick={() => press(column)}>{words.agentColumns[column]}{order.by === column && <span aria-hidden="true"> {order.isDescending ? "▾" : "▴"}</span>}</button>
                </th>
              ))}
              <th scope="col">{words.problems}</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, ROWS_LIMIT).map(({ branch, problems }) => (
              <tr key={branch.id}>
                {AGENT_COLUMNS.map((column) => {
                  const cell = agentCell(column, branch, at);
                  return (
                    <td key={column} class={`${cell.tone ?? ""} ${NUMBERS.includes(column) ? "number" : ""}`}>
                      {column === "branch" ? <a href={branchPath(branch.id)}>{cell.text}</a> : cell.text} {cell.aside && <span class="faint">{cell.aside}</span>}
                    </td>
                  );
                })}
                <td class={problems.length > 0 ? "warn" : ""}>{problems.map((problem) => words.problemWords[problem]).join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function orderFrom(text: string | null): AgentOrder {
  const by = AGENT_COLUMNS.find((column) => column === text?.replace(/^-/, ""));
  return by ? { by, isDescending: text?.startsWith("-") === true } : { by: "", isDescending: false };
}

function totals(at: number): string {
  const counts: Record<string, number> = { connected: 0, silent: 0, never: 0 };
  const newest = newestVersion(board);
  let troubled = 0;
  for (const { branch } of board.places.values()) {
    const contact = branch.contact ?? "never";
    counts[contact] = (counts[contact] ?? 0) + 1;
    if (problemsOf(branch, at, newest).length > 0) troubled += 1;
  }
  const parts = Object.entries(counts).filter(([, number]) => number > 0).map(([contact, number]) => `${number} ${t().contacts[contact] ?? contact}`);
  return board.places.size === 0 ? "" : t().agentsTotal(board.places.size, parts.join(", "), troubled);
}
