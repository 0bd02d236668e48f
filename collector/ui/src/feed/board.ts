/**
 * What the page knows of the fleet: a snapshot, kept current by numbered deltas. No DOM, no clock, no network.
 *
 * The server alone decides a status; nothing here derives one. What is asked for often (counts, the devices of a
 * branch) is kept up to date with each message, so that a change costs what it touches and not what there is.
 */
import type { Branch, BranchTold, Device, DeviceChange, Message, Status } from "../api/types";

export const GLOW_MS = 5_000;

/** What came back longer ago than this while nobody could tell the page of it is no news. */
const NEWS_MS = 60_000;

const TYPE_ORDER = ["router", "switch", "access_point", "nvr", "paybox", "atm", "biostar"];
const collator = new Intl.Collator("en", { numeric: true });

export interface Counts {
  total: number;
  up: number;
  down: number;
  unknown: number;
  flapping: number;
  maintenance: number;
}

/** A branch with its devices, in the order in which people look for them. */
export interface Place {
  readonly id: string;
  branch: Branch;
  devices: Device[];
  counts: Counts;
  /** Grows when anything of it looks different. */
  revision: number;
}

export interface Region {
  readonly id: string;
  readonly name: string;
  readonly places: Place[];
}

/** What the snapshot says about the server. */
export interface About {
  version: string;
  simulated: boolean;
  demo: boolean;
  notes: string[];
}

export interface Recovery {
  /** When it began to glow. */
  at: number;
  downSince: number | null;
  /** When it came back, which is before anybody heard of it. */
  upSince: number;
}

/** What a message means: `gap` (reconnect for a snapshot), `closing`, `shown` (something to draw) or `alive`. */
export type Effect = { effect: "shown" | "alive" | "gap" } | { effect: "closing"; reason: string };

export class Board {
  epoch: string | null = null;
  seq = 0;
  about: About | null = null;
  readonly devices = new Map<string, Device>();
  readonly places = new Map<string, Place>();
  /** Devices that came back, for as long as they glow. */
  readonly recoveries = new Map<string, Recovery>();
  counts: Counts = none();
  /** Grows when devices or branches come, go, move, or have another name or address: orders are then made anew. */
  structure = 0;

  #regions: { structure: number; list: Region[] } | null = null;
  #ranks: { structure: number; ranks: Map<string, number> } | null = null;

  apply(message: Message): Effect {
    switch (message.type) {
      case "snapshot":
        return this.#replaceAll(message);
      case "delta":
        return this.#change(message);
      case "resumed":
        return { effect: message.epoch === this.epoch && message.seq === this.seq ? "alive" : "gap" };
      case "heartbeat":
        return { effect: message.epoch !== this.epoch || message.seq > this.seq ? "gap" : "alive" };
      case "closing":
        return { effect: "closing", reason: message.reason };
      default:
        // What has no number leaves the board alone, and a newer server may send kinds that this page doesn't know.
        return { effect: "alive" };
    }
  }

  /** Forgets recoveries that have glowed long enough; whether there were any. */
  endGlow(now: number): boolean {
    let ended = false;
    for (const [id, { at }] of this.recoveries) {
      if (now - at < GLOW_MS) continue;
      this.#forgetRecovery(id);
      ended = true;
    }
    return ended;
  }

  /** Regions by name, each with its branches by name. */
  regions(): Region[] {
    if (this.#regions?.structure !== this.structure) this.#regions = { structure: this.structure, list: this.#sorted() };
    return this.#regions.list;
  }

  /** Each device's place in the order of names: comparing 10,000 names by the rules of a language takes too long for a frame. */
  ranks(): Map<string, number> {
    if (this.#ranks?.structure !== this.structure) {
      const sorted = [...this.devices.values()].sort((a, b) => collator.compare(a.name, b.name) || compared(a.id, b.id));
      this.#ranks = { structure: this.structure, ranks: new Map(sorted.map(({ id }, rank) => [id, rank])) };
    }
    return this.#ranks.ranks;
  }

  placeOf(device: Device): Place | undefined {
    return this.places.get(device.branch);
  }

  #replaceAll(message: Extract<Message, { type: "snapshot" }>): Effect {
    const before = new Map(this.devices);
    const revisions = new Map([...this.places].map(([id, { revision }]) => [id, revision]));
    this.devices.clear();
    this.places.clear();
    this.counts = none();
    for (const branch of message.branches) this.places.set(branch.id, emptyPlace({ ...branch, told_at: message.now }));
    for (const device of message.devices) {
      this.devices.set(device.id, device);
      const isNews = device.since === null || message.now - device.since < NEWS_MS;
      this.#noteRecovery(device, isNews ? before.get(device.id) : undefined, message.now);
      this.#placeFor(device, message.now).devices.push(device);
    }
    for (const id of this.recoveries.keys()) if (!this.devices.has(id)) this.recoveries.delete(id);
    for (const place of this.places.values()) {
      place.devices.sort(byTypeThenName);
      place.counts = tally(place.devices);
      place.revision = (revisions.get(place.id) ?? 0) + 1;
      addCounts(this.counts, place.counts, 1);
    }
    this.epoch = message.epoch;
    this.seq = message.seq;
    this.structure += 1;
    const { version, simulated, demo, notes } = message;
    this.about = { version, simulated, demo, notes };
    return { effect: "shown" };
  }

  #change(message: Extract<Message, { type: "delta" }>): Effect {
    if (message.epoch !== this.epoch) return { effect: "gap" };
    if (message.seq <= this.seq) return { effect: "alive" };
    if (message.seq !== this.seq + 1) return { effect: "gap" };
    const changes = message.devices ?? [];
    // Of a device that isn't known the news alone say too little.
    if (!changes.every((change) => this.devices.has(change.id) || isWhole(change))) return { effect: "gap" };
    this.seq = message.seq;
    const touched = new Set<Place>();
    for (const branch of message.branches ?? []) touched.add(this.#putBranch(branch, message.now));
    for (const change of changes) this.#putDevice(change, message.now, touched);
    for (const place of touched) {
      addCounts(this.counts, place.counts, -1);
      place.counts = tally(place.devices);
      addCounts(this.counts, place.counts, 1);
      place.revision += 1;
    }
    return { effect: "shown" };
  }

  #putBranch(told: BranchTold, now: number): Place {
    const branch = { ...told, told_at: now };
    const known = this.places.get(told.id);
    if (!known) {
      const place = emptyPlace(branch);
      this.places.set(told.id, place);
      this.structure += 1;
      return place;
    }
    const { branch: before } = known;
    if (before.name !== told.name || before.region !== told.region || before.region_name !== told.region_name) this.structure += 1;
    known.branch = branch;
    return known;
  }

  #putDevice(change: DeviceChange, now: number, touched: Set<Place>): void {
    const before = this.devices.get(change.id);
    const device = { ...before, ...change } as Device;
    this.devices.set(device.id, device);
    this.#noteRecovery(device, before, now);
    const place = this.#placeFor(device, now);
    touched.add(place);
    const at = before?.branch === device.branch ? place.devices.indexOf(before) : -1;
    if (before && before.branch !== device.branch) {
      const left = this.places.get(before.branch);
      if (left) {
        left.devices = left.devices.filter(({ id }) => id !== device.id);
        touched.add(left);
      }
    }
    if (at >= 0) place.devices[at] = device;
    else place.devices.push(device);
    if (!before || before.name !== device.name || before.device_type !== device.device_type || before.ip !== device.ip || before.branch !== device.branch) {
      place.devices.sort(byTypeThenName);
      this.structure += 1;
    }
  }

  /** The place of a device, also where nobody has described its branch. */
  #placeFor(device: Device, now: number): Place {
    const known = this.places.get(device.branch);
    if (known) return known;
    const place = emptyPlace({ id: device.branch, name: device.branch, region: device.region, told_at: now });
    this.places.set(device.branch, place);
    this.structure += 1;
    return place;
  }

  #noteRecovery(device: Device, before: Device | undefined, now: number): void {
    if (statusOf(device) !== "up") this.recoveries.delete(device.id);
    else if (before && statusOf(before) === "down") {
      this.recoveries.set(device.id, { at: now, downSince: before.down_since, upSince: device.since ?? now });
    }
  }

  #forgetRecovery(id: string): void {
    this.recoveries.delete(id);
    const device = this.devices.get(id);
    const place = device && this.placeOf(device);
    if (place) place.revision += 1;
  }

  #sorted(): Region[] {
    const regions = new Map<string, Region>();
    for (const place of this.places.values()) {
      const id = place.branch.region ?? "";
      const region = regions.get(id) ?? { id, name: place.branch.region_name ?? id, places: [] };
      region.places.push(place);
      regions.set(id, region);
    }
    const list = [...regions.values()].sort((a, b) => collator.compare(a.name, b.name));
    for (const { places } of list) places.sort((a, b) => collator.compare(a.branch.name, b.branch.name));
    return list;
  }
}

function isWhole(change: DeviceChange): boolean {
  return change.name !== undefined && change.branch !== undefined && change.status !== undefined;
}

/** Anything that isn't plainly up or down is unknown. */
export function statusOf(thing: { status?: unknown }): Status {
  return thing.status === "up" || thing.status === "down" ? thing.status : "unknown";
}

export function tally(devices: Iterable<Device>): Counts {
  const counts = none();
  for (const device of devices) {
    counts.total += 1;
    counts[statusOf(device)] += 1;
    if (device.is_flapping) counts.flapping += 1;
    if (device.in_maintenance) counts.maintenance += 1;
  }
  return counts;
}

export function none(): Counts {
  return { total: 0, up: 0, down: 0, unknown: 0, flapping: 0, maintenance: 0 };
}

export function addCounts(sum: Counts, counts: Counts, sign: 1 | -1): void {
  sum.total += sign * counts.total;
  sum.up += sign * counts.up;
  sum.down += sign * counts.down;
  sum.unknown += sign * counts.unknown;
  sum.flapping += sign * counts.flapping;
  sum.maintenance += sign * counts.maintenance;
}

/** Names with numbers as people order them. */
export function byName(a: string, b: string): number {
  return collator.compare(a, b);
}

function emptyPlace(branch: Branch): Place {
  return { id: branch.id, branch, devices: [], counts: none(), revision: 1 };
}

function byTypeThenName(a: Device, b: Device): number {
  return typeRank(a) - typeRank(b) || collator.compare(a.name, b.name);
}

function typeRank(device: Device): number {
  const rank = TYPE_ORDER.indexOf(String(device.device_type).replaceAll("-", "_"));
  return rank === -1 ? TYPE_ORDER.length : rank;
}

function compared(a: string, b: string): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
