/** What the collector says, by its own description (`npm run types`). */
import type { components } from "./schema";

type Schemas = components["schemas"];

/** What newer collectors add; a page that meets an older one does without. */
interface DeviceMore {
  in_maintenance?: boolean;
  flags?: string[];
  verdict?: Verdict | null;
  is_provisional?: boolean;
}

export type Verdict = "device_down" | "lan_fault" | "agent_isolated" | "wan_cut" | "power_cut";
export type Device = Schemas["Device"] & DeviceMore;
export type Status = Device["status"];
export type Cause = Device["cause"];

export interface Uplink {
  name: string;
  status: Status;
  since_ms: number | null;
  is_active: boolean;
}

/** A branch as the feed tells it. Before its agent has said how it is, its figures are absent. */
export type BranchTold = Partial<Schemas["Branch"]> & Pick<Schemas["Branch"], "id" | "name"> & {
  uplinks?: Uplink[];
  cut?: { from_ms: number; to_ms: number | null; verdict: Verdict | null; is_provisional: boolean; reason: string | null } | null;
};
/** A branch with the moment at which the collector described it: of a healthy one it may not speak for minutes. */
export type Branch = BranchTold & { told_at: number };

export type Outage = Schemas["Outage"];
export type Interval = Schemas["Interval"];
export type Point = Schemas["Point"];
export type Gap = Schemas["Gap"];

export interface Evidence {
  probes?: { at_ms: number; outcome: string; rtt_ms: number | null }[];
  gateway_rtt_ms?: number | null;
  neighbours?: { up: number; down: number; unknown: number } | null;
  carrier?: boolean | null;
  mac?: string | null;
}
export type Transition = Schemas["Transition"] & { reason?: string | null; evidence?: Evidence | null };

export interface History {
  device_id: string;
  from_ms: number;
  to_ms: number;
  step_ms: number;
  count: number;
  source: string;
  intervals: Interval[];
  outages: Outage[];
  points: Point[];
}

export interface AvailabilityRow {
  key: string;
  name: string;
  devices: number;
  up_ms: number;
  down_ms: number;
  unknown_ms: number;
  maintenance_ms: number;
  outages: number;
  mttr_ms: number | null;
  longest_ms: number | null;
  availability: number | null;
  at_least: number | null;
  at_most: number | null;
  coverage: number | null;
  reason: string | null;
  state: "final" | "provisional";
  revision: number;
}

export interface Availability {
  from_ms: number;
  to_ms: number;
  counted_to_ms: number;
  time_zone: string;
  state: "final" | "provisional";
  total: number;
  next_cursor: string | null;
  rows: AvailabilityRow[];
}

/** How a watched device has answered in the last seconds. */
export interface Watched {
  id: string;
  span_ms: number;
  sent: number;
  lost: number;
  rtt_ms: number | null;
  rtt_min_ms: number | null;
  rtt_max_ms: number | null;
}

/** What is new of a device that is known. */
export type DeviceChange = Partial<Device> & { id: string };

/** One message of `/ws/updates`. */
export type Message =
  | ({ type: "snapshot"; version: string; demo?: boolean; simulated?: boolean; notes?: string[] } & Told)
  | { type: "resumed"; epoch: string; seq: number; now: number }
  | { type: "delta"; epoch: string; seq: number; now: number; devices?: DeviceChange[]; branches?: BranchTold[] }
  | { type: "heartbeat"; epoch: string; seq: number; now: number }
  | { type: "watched"; epoch: string; now: number; devices: Watched[] }
  | { type: "problem"; detail: string; now?: undefined }
  | { type: "closing"; reason: string; now?: undefined };

interface Told {
  epoch: string;
  seq: number;
  now: number;
  devices: Device[];
  branches: BranchTold[];
}
