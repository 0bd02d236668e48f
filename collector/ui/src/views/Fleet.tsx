/** All agents: silent, behind, badly dated, without a card, old; those with problems first. */
import { computed } from "@preact/signals";
import { AGENT_COLUMNS, type AgentColumn, type AgentOrder, type AgentRow, agents, newestVersion, pressed, problemsOf } from "../feed/agents";
import { FilterForm } from "../parts/FilterForm";
import { Virtual } from "../parts/Virtual";
import { agentCell } from "../parts/agentCells";
import { branchPath } from "../route";
import { board, filters, now, route, setParam, shownAge } from "../state";
import { t } from "../words";

const NUMBERS: readonly AgentColumn[] = ["age", "waiting", "behind", "buffer", "line", "card", "flushes", "missed", "errors", "drops"];

/** The table is made anew each few seconds at most: nothing of it is a matter of frames. */
const tick = computed(() => Math.floor(((now.value ?? 0) + shownAge.value) / 2_000));

export default function Fleet() {
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
      <div class="table-scroll" tabIndex={0} role="group" aria-label={words.agents}>
        <div class="fleet" role="table" aria-label={words.agents} aria-rowcount={rows.length + 1}>
          <div class="table-head" role="row">
            {AGENT_COLUMNS.flatMap((column) => [
              <span key={column} class={NUMBERS.includes(column) ? "number" : ""} role="columnheader" aria-sort={order.by === column ? (order.isDescending ? "descending" : "ascending") : "none"}>
                <button type="button" title={words.agentHints[column]} onClick={() => press(column)}>{words.agentColumns[column]}{order.by === column && <span aria-hidden="true"> {order.isDescending ? "▾" : "▴"}</span>}</button>
              </span>,
              column === "branch" && <span key="problems" role="columnheader">{words.problems}</span>,
            ])}
          </div>
          <Virtual rows={rows} keyOf={keyOf} heightOf={rowHeight} render={renderRow} role="rowgroup" />
        </div>
      </div>
    </>
  );
}

function keyOf({ branch }: AgentRow): string {
  return branch.id;
}

function rowHeight(): number {
  return 2;
}

function renderRow({ branch, problems }: AgentRow, at: number) {
  const wrong = problems.map((problem) => t().problemWords[problem]).join(", ");
  return (
    <div class="table-row" role="row" aria-rowindex={at + 2}>
      {AGENT_COLUMNS.flatMap((column) => {
        const { text, tone, aside } = agentCell(column, branch, now.peek() ?? 0, shownAge.peek());
        return [
          <span key={column} class={`${tone ?? ""} ${NUMBERS.includes(column) ? "number" : ""}`} role="cell" title={text}>
            {column === "branch" ? <a href={branchPath(branch.id)}>{text}</a> : text} {aside && <span class="faint">{aside}</span>}
          </span>,
          // What is wrong stands beside the name: a screen seldom has room for all columns.
          column === "branch" && <span key="problems" class={wrong && "warn"} role="cell" title={wrong}>{wrong}</span>,
        ];
      })}
    </div>
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
