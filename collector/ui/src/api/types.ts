/** What the collector says, by its own description (`npm run types`). */
import type { components, paths } from "./schema";

type Schemas = components["schemas"];

export type Device = Schemas["Device"];
export type Status = Device["status"];
export type Verdict = NonNullable<Device["verdict"]>;

export type BranchTold = Schemas["Branch"];
/**
 * A branch with the moment at which the collector described it: of a healthy one it may not speak for minutes. Of one that only its
 * devices have named so far, nothing else is known.
 */
export type Branch = Partial<BranchTold> & Pick<BranchTold, "id" | "name"> & { told_at: number };

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
export type Watched = Schemas["WatchedDevice"];
/** What is new of a device that is known. */
export type DeviceChange = Schemas["DeviceChange"];
/** One message of `/ws/updates`, and what the page says there. */
export type Message = Schemas["FeedMessage"];
export type Watch = Schemas["FeedWatch"];
