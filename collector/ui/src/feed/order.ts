/** The order of the table of devices. Pure. */
import type { Device } from "../api/types";
import { type Board, type Place, byName, statusOf } from "./board";
import { type Filters, chooser } from "./filters";

export const DEVICE_COLUMNS = ["status", "name", "branch", "region", "type", "ip", "since", "rtt", "loss"] as const;
export type DeviceColumn = (typeof DEVICE_COLUMNS)[number];

export interface DeviceOrder {
  by: DeviceColumn;
  isDescending: boolean;
}

/** Worst first: down, unknown, up, and the newest of each. */
const WORST_FIRST: DeviceOrder = { by: "status", isDescending: false };
const STATUS_RANK = { down: 0, unknown: 1, up: 2 };

export function deviceOrder(text: string | null): DeviceOrder {
  const by = DEVICE_COLUMNS.find((column) => column === text?.replace(/^-/, ""));
  return by ? { by, isDescending: text?.startsWith("-") === true } : WORST_FIRST;
}

export function orderText({ by, isDescending }: DeviceOrder): string {
  return by === "status" && !isDescending ? "" : `${isDescending ? "-" : ""}${by}`;
}

/** Devices that pass the filters, in order; what isn't known comes last in either direction. */
export function ordered(board: Board, filters: Filters, { by, isDescending }: DeviceOrder): Device[] {
  const chosenOf = chooser(filters);
  const ranks = board.ranks();
  const places = placeRanks(board);
  const keyed: { device: Device; key: number | null; rank: number }[] = [];
  const texts = by === "type" || by === "ip" ? textRanks(board, by) : null;
  for (const place of board.places.values()) {
    for (const device of chosenOf(place)) {
      const rank = ranks.get(device.id) ?? 0;
      keyed.push({ device, key: keyOf(by, device, place, rank, places, texts), rank });
    }
  }
  const sign = isDescending ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.key !== b.key) {
      if (a.key === null) return 1;
      if (b.key === null) return -1;
      return sign * (a.key - b.key);
    }
    return by === "status" ? (b.device.since ?? 0) - (a.device.since ?? 0) || a.rank - b.rank : a.rank - b.rank;
  });
  return keyed.map(({ device }) => device);
}

type Ranks = ReadonlyMap<unknown, number>;

function keyOf(by: DeviceColumn, device: Device, place: Place, rank: number, places: Ranks, texts: Ranks | null): number | null {
  switch (by) {
    case "status":
      return STATUS_RANK[statusOf(device)];
    case "name":
      return rank;
    case "branch":
      return places.get(place.id) ?? 0;
    case "region":
      return places.get(place.branch.region) ?? 0;
    case "type":
    case "ip":
      return texts?.get(by === "ip" ? device.ip : device.device_type) ?? 0;
    case "since":
      return device.since;
    case "rtt":
      return device.rtt_ms;
    case "loss":
      return device.packet_loss;
  }
}

/** Places of branches and regions in the order of their names. */
function placeRanks(board: Board): Ranks {
  const ranks = new Map<unknown, number>();
  let at = 0;
  for (const region of board.regions()) {
    ranks.set(region.id, (at += 1));
    for (const place of region.places) ranks.set(place.id, (at += 1));
  }
  return ranks;
}

function textRanks(board: Board, by: "type" | "ip"): Ranks {
  const texts = new Set<string>();
  for (const device of board.devices.values()) texts.add(by === "ip" ? device.ip : device.device_type);
  // Addresses by their numbers, which is what a collation by numbers does as well, only slower.
  const sorted = by === "ip" ? [...texts].sort((a, b) => (ipKey(a) < ipKey(b) ? -1 : 1)) : [...texts].sort(byName);
  return new Map(sorted.map((text, rank) => [text, rank]));
}

function ipKey(ip: string): string {
  return ip.split(".").map((part) => part.padStart(3, "0")).join(".");
}
