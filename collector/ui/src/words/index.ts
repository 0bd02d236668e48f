/** Words, dates and numbers in the language and the time zone that somebody chose. */
import { computed, signal } from "@preact/signals";
import { duration as inUnits, roundDuration as roundInUnits } from "./duration";
import { type Words, en } from "./en";
import { ka } from "./ka";

const LANGUAGES = { en, ka };
export type Language = keyof typeof LANGUAGES;
export const LANGUAGE_NAMES: Record<Language, string> = { en: "English", ka: "ქართული" };

const DEFAULT_ZONE = "Asia/Tbilisi";

function stored(key: string): string | null {
  // A browser may forbid it; the page then forgets what was chosen.
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // As above.
  }
}

function firstLanguage(): Language {
  const chosen = stored("ward.language");
  if (chosen === "en" || chosen === "ka") return chosen;
  return (globalThis.navigator?.language ?? "").toLowerCase().startsWith("ka") ? "ka" : "en";
}

export const language = signal<Language>(firstLanguage());
/** An IANA name, or empty for the browser's own. */
export const zone = signal(stored("ward.zone") ?? DEFAULT_ZONE);
export const theme = signal(stored("ward.theme") ?? "auto");
/** Failures older than this are folded away. */
export const foldMs = signal(Number(stored("ward.fold") ?? 24 * 3_600_000) || 24 * 3_600_000);

const words = computed<Words>(() => LANGUAGES[language.value]);

/** The words of the language in force. */
export function t(): Words {
  return words.value;
}

/** A moment in the zone in force, field by field. Browsers know few languages' months, and Georgian is not among them. */
interface Fields {
  year: number;
  month: number;
  day: number;
  hour: number;
  minute: number;
  second: number;
}

const fieldsFormat = computed(() => {
  const [hour, minute, second] = ["2-digit", "2-digit", "2-digit"] as const;
  const dates = { year: "numeric", month: "2-digit", day: "2-digit" } as const;
  return new Intl.DateTimeFormat("en-GB", { timeZone: zone.value || undefined, hourCycle: "h23", ...dates, hour, minute, second });
});

/**
 * Zones whose clocks are never changed, by how far they are ahead of UTC in ms: a browser takes 20 ms to load its tables, which the first
 * picture needn't wait for. What the tables say otherwise, once they are loaded, counts.
 */
const steady = signal<Readonly<Record<string, number>>>({ UTC: 0, "Asia/Tbilisi": 4 * 3_600_000 });

/** Holds the steady zones against the browser's own tables, when nothing else is to be done. */
export function checkZones(now: number): void {
  const told = Object.keys(steady.value).filter((name) => tableOffset(name, now) === steady.value[name]);
  if (told.length < Object.keys(steady.value).length) steady.value = Object.fromEntries(told.map((name) => [name, steady.value[name] ?? 0]));
}

function tableOffset(name: string, now: number): number {
  const second = Math.floor(now / 1_000) * 1_000;
  const shown = new Date(second).toLocaleString("sv-SE", { timeZone: name });
  return Date.parse(`${shown.replace(" ", "T")}Z`) - second;
}

function fields(time: number): Fields {
  const ahead = steady.value[zone.value];
  if (ahead !== undefined) {
    const there = new Date(time + ahead);
    return {
      year: there.getUTCFullYear(), month: there.getUTCMonth() + 1, day: there.getUTCDate(), hour: there.getUTCHours(), minute: there.getUTCMinutes(), second: there.getUTCSeconds(),
    };
  }
  const parts = fieldsFormat.value.formatToParts(time).map(({ type, value }) => [type, Number(value)]);
  return Object.fromEntries(parts) as unknown as Fields;
}

const two = (number: number) => String(number).padStart(2, "0");
const clock = ({ hour, minute, second }: Fields) => `${two(hour)}:${two(minute)}:${two(second)}`;
const date = ({ day, month }: Fields) => `${day} ${t().months[month - 1] ?? month}`;

export const format = {
  clock: (time: number) => clock(fields(time)),
  minute: (time: number) => clock(fields(time)).slice(0, 5),
  day: (time: number) => date(fields(time)),
  dayYear: (time: number) => `${date(fields(time))} ${fields(time).year}`,
  dayMinute: (time: number) => `${date(fields(time))} ${clock(fields(time)).slice(0, 5)}`,
  full: (time: number | null | undefined) => (time == null ? t().notKnown : `${format.dayYear(time)} ${format.clock(time)}`),
  /** Of `2026-11`. */
  month: (month: string) => `${t().months[Number(month.slice(5)) - 1] ?? month} ${month.slice(0, 4)}`,
  /** In groups of three, as the language has them. */
  number: (number: number) => String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, t().groups),
  /** `2026-11-24` in the zone in force. */
  dayKey: (time: number) => {
    const { year, month, day } = fields(time);
    return `${year}-${two(month)}-${two(day)}`;
  },
};

const MINUTE_MS = 60_000;

/** By how much the clocks of the zone in force are ahead of UTC, in ms. */
export function zoneOffset(time: number): number {
  const { year, month, day, hour, minute } = fields(time);
  return Date.UTC(year, month - 1, day, hour, minute) - Math.floor(time / MINUTE_MS) * MINUTE_MS;
}

/** The moment at which clocks of the zone in force show `2026-11-24T18:00`; NaN for what is no time. */
export function momentOf(text: string): number {
  const guess = Date.parse(`${text}Z`);
  if (Number.isNaN(guess)) return NaN;
  const near = guess - zoneOffset(guess);
  // Where clocks were changed between the two, the offset there counts.
  return guess - zoneOffset(near);
}

/** A time of day, with its date unless that is today's. */
export function timeWords(time: number, now: number | null): string {
  if (now !== null && format.dayKey(time) === format.dayKey(now)) return format.clock(time);
  return now !== null && Math.abs(now - time) > 300 * 86_400_000 ? format.dayYear(time) : format.dayMinute(time);
}

/** The beginnings of the last `days` days of the zone in force, and the end of the last one. */
export function midnights(days: number, now: number): number[] {
  const result: number[] = [];
  for (let back = days - 1; back >= -1; back -= 1) result.push(midnight(now - back * 86_400_000));
  return [...new Set(result)];
}

/** The midnight with which the day of `time` began in the zone in force. */
export function midnight(time: number): number {
  const guess = time - sinceMidnight(time);
  // On a day on which clocks are changed the first guess may be an hour off.
  const off = sinceMidnight(guess);
  return off === 0 ? guess : off > 43_200_000 ? guess + (86_400_000 - off) : guess - off;
}

function sinceMidnight(time: number): number {
  const { hour, minute, second } = fields(time);
  return (hour * 3600 + minute * 60 + second) * 1000 + (time % 1000);
}

export function duration(ms: number): string {
  return inUnits(ms, t());
}

export function roundDuration(ms: number): string {
  return roundInUnits(ms, t());
}

/** Three digits are as many as a round trip deserves. */
export function figure(number: number | null | undefined): string {
  return number == null ? "–" : String(Number(number.toPrecision(3)));
}

/** As the collector rounds: down, so that 100 is never said of what was ever down. */
export function percent(value: number | null | undefined): string {
  if (value == null) return "–";
  const cut = Math.floor(value * 100) / 100;
  return cut === 100 ? "100" : cut.toFixed(2);
}

export function kilobytes(bytes: number): string {
  const kB = bytes / 1000;
  if (kB > 0 && kB < 0.1) return "< 0.1";
  return kB > 0 && kB < 9.95 ? kB.toFixed(1) : format.number(kB);
}

export function typeWords(type: string): string {
  const known = t().types[type.replaceAll("-", "_")];
  if (known) return known;
  const words = type.replaceAll(/[_-]/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A region's name: the inventory's, or the language's own for it. */
export function regionWords(name: string): string {
  return t().regions[name] ?? name;
}

/** A region and a type in each language: somebody may look for either. */
export function searchWords(region: string | null | undefined, type: string): string {
  return Object.values(LANGUAGES).map(({ regions, types }) => [regions[region ?? ""], types[type.replaceAll("-", "_")]].join(" ")).join(" ");
}

/** What is wrong with an agent, in each language. */
export function agentSearchWords(region: string | null | undefined, contact: string, problems: readonly string[]): string {
  return Object.values(LANGUAGES).map(({ regions, contacts, problemWords }) => [regions[region ?? ""], contacts[contact], ...problems.map((problem) => problemWords[problem])].join(" ")).join(" ");
}

export function causeWords(cause: string | null | undefined): string {
  return cause == null ? t().noCause : (t().causes[cause] ?? cause.replaceAll("_", " "));
}
