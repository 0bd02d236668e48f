/** An estate for tests, from words: `"a up"` is the device a, which is up, in the branch b1. */
import type { BranchTold, Device, DeviceChange, Message } from "../api/types";
import { Board } from "./board";
import { type Filters, NO_FILTERS } from "./filters";

export const NOW = Date.UTC(2025, 10, 23, 12);
export const HOUR = 3_600_000;

export function device(id: string, status: string, more: Partial<Device> = {}): Device {
  return {
    id, name: id, branch: "b1", region: "r1", device_type: "router", ip: "10.0.0.1", status: status as Device["status"], cause: null,
    since: NOW - HOUR, down_since: null, last_ok: null, is_flapping: false, rtt_ms: null, packet_loss: null, in_maintenance: false,
    flags: [], verdict: null, is_provisional: false, ...more,
  };
}

export function agent(id: string, more: Partial<BranchTold> = {}): BranchTold {
  return {
    id, name: id, region: "r1", region_name: "Tbilisi", contact: "connected", last_contact: NOW, observed_through: NOW, logged_through: NOW,
    silent_after_ms: 30_000, devices: 1, agent_version: "0.1.0", config_version: 1, config_wanted: 1, config_trial: null, cut: null, uplinks: [], waiting: 0, buffer_bytes: 0, buffer_volatile: false,
    ticks_missed: 0, send_errors: 0, receive_drops: 0, stray_replies: 0, probe_age_ms: 0, clock_synchronised: true, clock_ahead_ms: 0,
    spent: { over_ms: 24 * HOUR, disk_bytes: 24_000, flushes: 24, sent_bytes: 60_000, received_bytes: 40_000 }, ...more,
  };
}

function devicesOf(words: string[]): Device[] {
  return words.map((pair) => device(...(pair.split(" ") as [string, string])));
}

const PLACE = agent("b1", { name: "Vake" });

export function snapshot(seq: number, words: string[], more: { devices?: Device[]; branches?: BranchTold[] } = {}): Message {
  const devices = [...devicesOf(words), ...(more.devices ?? [])];
  return { type: "snapshot", epoch: "e", seq, now: NOW, version: "0.1.0", demo: false, simulated: false, notes: [], devices, branches: more.branches ?? [PLACE] };
}

export function delta(seq: number, words: string[], more: { devices?: DeviceChange[]; branches?: BranchTold[]; now?: number } = {}): Message & { type: "delta" } {
  return { type: "delta", epoch: "e", seq, now: more.now ?? NOW, devices: [...devicesOf(words), ...(more.devices ?? [])], branches: more.branches ?? [] };
}

export function boardOf(words: string[], seq = 0): Board {
  const board = new Board();
  board.apply(snapshot(seq, words));
  return board;
}

export function boardWith(...devices: Device[]): Board {
  const board = boardOf([]);
  board.apply(delta(1, [], { devices }));
  return board;
}

export function filters(chosen: Partial<Filters> = {}): Filters {
  return { ...NO_FILTERS, ...chosen };
}
