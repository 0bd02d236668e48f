/** What an operator looks for, and how that stands in the address. Pure. */
import type { Branch, Device } from "../api/types";
import { type Board, type Place, byName, statusOf } from "./board";

export const FILTER_KEYS = ["q", "region", "branch", "type", "status"] as const;
export type Filters = Record<(typeof FILTER_KEYS)[number], string>;

export const NO_FILTERS: Filters = { q: "", region: "", branch: "", type: "", status: "" };

export function filtersFrom(params: URLSearchParams): Filters {
  const filters = { ...NO_FILTERS };
  for (const key of FILTER_KEYS) filters[key] = params.get(key) ?? "";
  return filters;
}

/** Writes the filters into the parameters; others are kept. */
export function writeFilters(params: URLSearchParams, filters: Filters): void {
  for (const key of FILTER_KEYS) {
    if (filters[key]) params.set(key, filters[key]);
    else params.delete(key);
  }
}

export function isUnfiltered(filters: Filters): boolean {
  return FILTER_KEYS.every((key) => !filters[key]);
}

/** A test for devices: made once for a look through all of them, since each keystroke takes one. */
export function matcher(filters: Filters): (device: Device, place: Place | undefined) => boolean {
  const words = searched(filters.q);
  const { region, branch, type, status } = filters;
  return (device, place) => {
    if (region && (place?.branch.region ?? device.region) !== region) return false;
    if (branch && device.branch !== branch) return false;
    if (type && device.device_type !== type) return false;
    if (status && !hasStatus(device, status)) return false;
    return words.length === 0 || includesAll(deviceText(device, place), words);
  };
}

function hasStatus(device: Device, status: string): boolean {
  if (status === "flapping") return device.is_flapping;
  if (status === "maintenance") return device.in_maintenance === true;
  return statusOf(device) === status;
}

export function searched(text: string): string[] {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}

export function includesAll(text: string, words: string[]): boolean {
  return words.every((word) => text.includes(word));
}

const texts = new WeakMap<Device, { branch: Branch | undefined; text: string }>();

/** What is searched of a device. What changes is another object, so this is made once for each device and branch. */
function deviceText(device: Device, place: Place | undefined): string {
  const branch = place?.branch;
  const known = texts.get(device);
  if (known && known.branch === branch) return known.text;
  const parts = [device.name, device.id, device.ip, branch?.name, branch?.region_name, device.device_type.replaceAll("_", " ")];
  const text = parts.join(" ").toLowerCase();
  texts.set(device, { branch, text });
  return text;
}

export type Choice = readonly [value: string, words: string];

/** What the filters' menus offer; branches only of the chosen region. */
export function filterChoices(board: Board, filters: Filters): { region: Choice[]; branch: Choice[]; type: string[] } {
  const regions = board.regions();
  const places = regions.filter(({ id }) => !filters.region || id === filters.region).flatMap((region) => region.places);
  const types = new Set<string>();
  for (const device of board.devices.values()) types.add(device.device_type);
  return {
    region: regions.map(({ id, name }) => [id, name] as const),
    branch: places.map(({ id, branch }) => [id, branch.name] as const).sort((a, b) => byName(a[1], b[1])),
    type: [...types].sort(byName),
  };
}
