/** Availability by day: one bar a day, worst colour first. */
import type { Interval } from "../api/types";
import { type Day, days } from "../feed/history";
import { format, midnights, percent, roundDuration, t } from "../words";

/** Less of a day seen than this, and the bar is hatched. */
const WHOLE = 0.95;

export function Days({ intervals, from, to }: { intervals: Interval[]; from: number; to: number }) {
  const number = Math.max(1, Math.min(366, Math.round((to - from) / 86_400_000)));
  const shown = days(intervals, midnights(number, to - 1));
  return (
    <div>
      <div class="days" role="list" aria-label={t().availabilityByDay}>
        {shown.map((day) => {
          const words = dayWords(day);
          return <div key={day.from_ms} role="listitem" class={`day ${dayClass(day, to)}`} title={words}><span class="skip">{words}</span></div>;
        })}
      </div>
      <p class="faint">{shown[0] && `${format.day(shown[0].from_ms)} – ${format.day(to)}`} · {t().dayNote}</p>
    </div>
  );
}

function dayClass(day: Day, to: number): string {
  if (day.availability === null) return "";
  const length = Math.min(day.to_ms, to) - day.from_ms;
  const isPartly = (day.up_ms + day.down_ms) / length < WHOLE;
  const tone = day.down_ms === 0 ? "good" : day.availability > 0.95 ? "some" : "bad";
  return `${tone} ${isPartly ? "partly" : ""}`;
}

function dayWords(day: Day): string {
  const words = t();
  if (day.availability === null) return `${format.day(day.from_ms)}: ${words.notObserved}`;
  const down = day.down_ms > 0 ? `, ${words.status.down} ${roundDuration(day.down_ms)}` : "";
  const unknown = day.unknown_ms > 0 ? `, ${words.status.unknown} ${roundDuration(day.unknown_ms)}` : "";
  return `${format.day(day.from_ms)}: ${percent(day.availability * 100)} %${down}${unknown}`;
}
