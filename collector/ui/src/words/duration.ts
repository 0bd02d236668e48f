/** Durations in the units of a language. Pure. */

export interface Units {
  seconds: string;
  minutes: string;
  hours: string;
  days: string;
}

/** The two largest units: `45 s`, `3 m 12 s`, `2 h 05 m`, `3 d 04 h`. */
export function duration(ms: number, units: Units): string {
  return parts(ms).map(([number, unit], at) => `${at === 0 ? number : twoDigits(number)} ${units[unit]}`).join(" ");
}

/** The same without a second unit that is zero: `5 m`, `1 h 30 m`. */
export function roundDuration(ms: number, units: Units): string {
  const [first, second] = parts(ms);
  if (!first) return "";
  const kept = second && second[0] > 0 ? [first, second] : [first];
  return kept.map(([number, unit], at) => `${at === 0 ? number : twoDigits(number)} ${units[unit]}`).join(" ");
}

type Part = [number: number, unit: keyof Units];

function parts(ms: number): Part[] {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  if (minutes === 0) return [[seconds, "seconds"]];
  if (hours === 0) return [[minutes, "minutes"], [seconds % 60, "seconds"]];
  if (days === 0) return [[hours, "hours"], [minutes % 60, "minutes"]];
  return [[days, "days"], [hours % 24, "hours"]];
}

function twoDigits(number: number): string {
  return String(number).padStart(2, "0");
}
