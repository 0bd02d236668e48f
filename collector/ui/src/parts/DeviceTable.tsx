/** All devices as rows, in any order. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Device } from "../api/types";
import { statusOf } from "../feed/board";
import { DEVICE_COLUMNS, type DeviceColumn, deviceOrder, orderText, ordered } from "../feed/order";
import { type Filters, isUnfiltered } from "../feed/filters";
import { branchPath, devicePath } from "../route";
import { board, drawn, filters, now, route, setParam } from "../state";
import { figure, regionWords, t, timeWords, typeWords } from "../words";
import { StatusMark, flagsOf, statusWords } from "./bits";
import { Virtual } from "./Virtual";

const NUMBERS: readonly DeviceColumn[] = ["since", "rtt", "loss"];
/** Rows that change their places more often than this can't be read. */
const REORDER_MS = 1_000;

export function DeviceTable() {
  const order = deviceOrder(route.value.params.get("sort"));
  const chosen = filters.value;
  const rows = useOrder(orderText(order), chosen);
  const words = t();
  const press = (by: DeviceColumn) => setParam("sort", orderText({ by, isDescending: order.by === by ? !order.isDescending : by === "since" || by === "rtt" || by === "loss" }));
  return (
    <>
      <p class="faint grid-head" role="status">{board.about === null ? words.waiting : isUnfiltered(chosen) ? words.devices(rows.length) : words.shownOf(rows.length, board.counts.total)}</p>
      <div class="scroll wide-table" tabIndex={0} role="group" aria-labelledby="estate-title">
        <div class="device-table" role="table" aria-label={words.tableLabel} aria-rowcount={rows.length + 1}>
          <div class="table-head" role="row">
            {DEVICE_COLUMNS.map((column) => (
              <span key={column} class={NUMBERS.includes(column) ? "number" : ""} role="columnheader" aria-sort={order.by === column ? (order.isDescending ? "descending" : "ascending") : "none"}>
                <button type="button" title={words.sortBy(words.columns[column])} onClick={() => press(column)}>{words.columns[column]}{order.by === column && <span aria-hidden="true"> {order.isDescending ? "▾" : "▴"}</span>}</button>
              </span>
            ))}
          </div>
          <Virtual rows={rows} keyOf={(id) => id} heightOf={rowHeight} render={(id, at) => <Row id={id} at={at} />} role="rowgroup" />
        </div>
      </div>
    </>
  );
}

function rowHeight(): number {
  return 2;
}

/** The order is made anew once a second while devices change, and at once when somebody asks for another. */
function useOrder(order: string, chosen: Filters): string[] {
  const [turn, setTurn] = useState(0);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  const version = drawn.value;
  useEffect(() => {
    timer.current ??= setTimeout(() => {
      timer.current = null;
      setTurn((before) => before + 1);
    }, REORDER_MS);
  }, [version]);
  useEffect(() => () => clearTimeout(timer.current ?? undefined), []);
  return useMemo(() => ordered(board, chosen, deviceOrder(order)).map(({ id }) => id), [order, chosen, turn, board.structure]);
}

function Row({ id, at }: { id: string; at: number }) {
  void drawn.value;
  const device = board.devices.get(id);
  if (!device) return null;
  const place = board.placeOf(device);
  const status = statusOf(device);
  return (
    <div class={`table-row ${status} ${board.recoveries.has(id) ? "glow" : ""}`} role="row" aria-rowindex={at + 2}>
      <span role="cell"><StatusMark status={status} /> {[statusWords(device), ...flagsOf(device)].join(", ")}</span>
      <span role="cell"><a href={devicePath(id)}>{device.name}</a></span>
      <span role="cell"><a href={branchPath(device.branch)}>{place?.branch.name ?? device.branch}</a></span>
      <span role="cell">{regionWords(place?.branch.region_name ?? device.region)}</span>
      <span role="cell">{typeWords(device.device_type)}</span>
      <span role="cell">{device.ip}</span>
      <span role="cell" class="number">{sinceOf(device)}</span>
      <span role="cell" class="number">{device.rtt_ms === null ? "–" : `${figure(device.rtt_ms)} ${t().rttAxis}`}</span>
      <span role="cell" class="number">{device.packet_loss === null ? "–" : `${figure(device.packet_loss)} %`}</span>
    </div>
  );
}

function sinceOf(device: Device): string {
  const since = statusOf(device) === "down" ? device.down_since : device.since;
  return since == null ? t().notKnown : timeWords(since, now.peek());
}
