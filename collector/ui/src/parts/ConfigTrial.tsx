/** What came of the config that a branch's agent has tried last: one that is held, or which of what is new in it answers. */
import type { Place } from "../feed/board";
import { needsSomebody, trialOf } from "../feed/trial";
import { devicePath } from "../route";
import { format, t } from "../words";

export function ConfigTrial({ place }: { place: Place }) {
  const words = t();
  const trial = trialOf(place);
  if (!trial) return null;
  const { isHeld, answered, silentTotal, silent } = trial;
  const date = format.full(trial.version);
  const unnamed = silentTotal - silent.length;
  return (
    <section class="panel">
      <h2>{isHeld ? words.heldConfig : words.newInConfig(date)}</h2>
      {isHeld && <p class="warn">{words.configHeldWhy(date)}</p>}
      {answered > 0 && <p>{words.newAnswered(answered)}</p>}
      {silentTotal > 0 && <p class={needsSomebody(trial) ? "warn" : ""}>{isHeld ? words.newSilentHeld(silentTotal) : words.newSilent(silentTotal)}</p>}
      {silentTotal > 0 && (
        <ul class="newcomers">
          {silent.map(({ id, name, answersNow }) => <li key={id}><a href={devicePath(id)}>{name}</a>{answersNow && ` (${words.answersByNow})`}</li>)}
          {unnamed > 0 && <li>{words.more(unnamed)}</li>}
        </ul>
      )}
    </section>
  );
}
