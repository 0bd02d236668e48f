/** What an operator looks for, and how that stands in the address. Pure. */
import type { Device } from "../api/types";
import { searchWords } from "../words";
import { type Board, type Place, byName, statusOf } from "./board";

const FILTER_KEYS = ["q", "region", "branch", "type", "status"] as const;
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

interface Wanted {
  revision: number;
  filters: string;
  devices: Device[];
}
const wanted = new WeakMap<Place, Wanted>();

/** What the filters say in a word: the same for filters that let the same devices pass. */
export function filterKey(filters: Filters): string {
  return FILTER_KEYS.map((key) => filters[key]).join("\n");
}

/** A branch's devices that pass the filters. Whoever asks meanwhile gets the same list: it is made anew when the branch looks different. */
export function chooser(filters: Filters): (place: Place) => Device[] {
  if (isUnfiltered(filters)) return ({ devices }) => devices;
  const key = filterKey(filters);
  const wants = matcher(filters);
  return (place) => {
    const known = wanted.get(place);
    if (known && known.revision === place.revision && known.filters === key) return known.devices;
    const devices = place.devices.filter((device) => wants(device, place));
    wanted.set(place, { revision: place.revision, filters: key, devices });
    return devices;
  };
}

/** A test for devices: made once for a look through all of them. */
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

/** Makes what is searched before somebody types, so that the first letter takes no longer than the others. */
export function prepareSearch(board: Board): void {
  for (const place of board.places.values()) for (const device of place.devices) deviceText(device, place);
}

interface Text {
  name: string;
  ip: string;
  type: string;
  branch: string | undefined;
  region: string | null | undefined;
  text: string;
}
const texts = new Map<string, Text>();

/** What is searched of a device: made anew when its names change, and not with its status. */
function deviceText({ id, name, ip, device_type: type }: Device, place: Place | undefined): string {
  const branch = place?.branch.name;
  const region = place?.branch.region_name;
  const known = texts.get(id);
  if (known && known.name === name && known.ip === ip && known.type === type && known.branch === branch && known.region === region) return known.text;
  const text = [name, id, ip, branch, region, type.replaceAll("_", " "), searchWords(region, type)].join(" ").toLowerCase();
  texts.set(id, { name, ip, type, branch, region, text });
  return text;
}

export type Choice = readonly [value: string, words: string];

interface Choices {
  region: Choice[];
  branch: Choice[];
  type: string[];
}
let offered: { board: Board; structure: number; region: string; choices: Choices } | null = null;

/** What the filters' menus offer; branches only of the chosen region. They are the same lists until the estate or the region is another. */
export function filterChoices(board: Board, { region }: Pick<Filters, "region">): Choices {
  const { structure } = board;
  if (offered?.board !== board || offered.structure !== structure || offered.region !== region) offered = { board, structure, region, choices: choicesOf(board, region) };
  return offered.choices;
}

function choicesOf(board: Board, chosen: string): Choices {
  const regions = board.regions();
  const places = regions.filter(({ id }) => !chosen || id === chosen).flatMap((region) => region.places);
  const types = new Set<string>();
  for (const device of board.devices.values()) types.add(device.device_type);
  return {
    region: regions.map(({ id, name }) => [id, name] as const),
    branch: places.map(({ id, branch }) => [id, branch.name] as const).sort((a, b) => byName(a[1], b[1])),
    type: [...types].sort(byName),
  };
}
