/** What the collector says, by its own description (`npm run types`). */
import type { components, paths } from "./schema";

type Schemas = components["schemas"];

export type Device = Schemas["Device"];
export type Status = Device["status"];
export type Verdict = NonNullable<Device["verdict"]>;

/** A branch as the feed tells it. Before its agent has said how it is, its figures are absent. */
export type BranchTold = Partial<Schemas["Branch"]> & Pick<Schemas["Branch"], "id" | "name">;
/** A branch with the moment at which the collector described it: of a healthy one it may not speak for minutes. */
export type Branch = BranchTold & { told_at: number };

export type Outage = Schemas["Outage"];
export type Interval = Schemas["Interval"];
export type Point = Schemas["Point"];
export type Gap = Schemas["Gap"];
export type Transition = Schemas["Transition"];
export type Evidence = NonNullable<Transition["evidence"]>;
export type Cut = Answered<"/api/v1/branches/{id}/cuts">["cuts"][number];

export type Me = Schemas["Me"];
export type Role = Me["role"];
export type User = Schemas["User"];
export type Token = Schemas["Token"];
export type Change = Schemas["Change"];
export type Imported = Schemas["Imported"];
export type Window = Schemas["Window"];

type Answered<P extends keyof paths> = paths[P] extends { get: { responses: { 200: { content: { "application/json": infer T } } } } } ? T : never;
export type History = Answered<"/api/v1/devices/{id}/history">;
export type AvailabilityRow = Schemas["Availability"];
export type Availability = Answered<"/api/v1/availability">;
export type Transitions = Answered<"/api/v1/devices/{id}/transitions">;

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
