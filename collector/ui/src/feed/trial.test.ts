import { expect, test } from "vitest";
import type { BranchTold } from "../api/types";
import type { Place } from "./board";
import { agent, boardOf, delta } from "./estate";
import { needsSomebody, trialOf } from "./trial";

type Tried = NonNullable<BranchTold["config_trial"]>;

/** The branch b1 with these devices, whose agent has config 1 in force and has tried config 2. */
function placeOf(words: string[], tried: Partial<Tried> | null, more: Partial<BranchTold> = {}): Place {
  const board = boardOf(words);
  const config_trial = tried && { version: 2, is_held: false, answered: 0, silent_total: tried.silent?.length ?? 0, silent: [], ...tried };
  board.apply(delta(1, [], { branches: [agent("b1", { config_version: 1, config_wanted: 2, config_trial, ...more })] }));
  return board.places.get("b1") as Place;
}

const IN_FORCE = { config_version: 2 };

test("a held config is told with its version, and so is what of it doesn't answer", () => {
  const trial = trialOf(placeOf(["a up"], { is_held: true, silent: ["a", "b"] }));
  expect(trial).toMatchObject({ version: 2, isHeld: true, answered: 0, silentTotal: 2 });
  // a answers where it stood before: that says nothing of where it is to stand.
  expect(trial?.silent).toEqual([{ id: "a", name: "a", answersNow: false }, { id: "b", name: "b", answersNow: false }]);
  expect(trial && needsSomebody(trial)).toBe(true);
});

test("a config that is held though it brings nothing new is still told", () => {
  expect(trialOf(placeOf(["a up"], { is_held: true }))).toMatchObject({ isHeld: true, silentTotal: 0 });
});

test("a held one stays held while a newer one is on its way, and isn't once the agent has what it is to have", () => {
  expect(trialOf(placeOf([], { is_held: true }, { config_wanted: 3 }))?.isHeld).toBe(true);
  expect(trialOf(placeOf([], { is_held: true, silent: ["a"] }, IN_FORCE))).toBeNull();
  expect(trialOf(placeOf([], { is_held: true }, { config_wanted: 3, config_version: 3 }))).toBeNull();
});

test("of a config in force it is told what is new and answered, what didn't, and which of that answers now", () => {
  const trial = trialOf(placeOf(["a up", "b down", "c unknown"], { answered: 6, silent: ["a", "b", "c"] }, IN_FORCE));
  expect(trial).toMatchObject({ version: 2, isHeld: false, answered: 6, silentTotal: 3 });
  expect(trial?.silent.map(({ id, answersNow }) => `${id} ${answersNow}`)).toEqual(["a true", "b false", "c false"]);
  expect(trial && needsSomebody(trial)).toBe(true);
});

test("nobody is needed where all that is new has answered by now, but what isn't named may still be silent", () => {
  const needs = (tried: Partial<Tried>) => {
    const trial = trialOf(placeOf(["a up"], tried, IN_FORCE));
    return trial && needsSomebody(trial);
  };
  expect([needs({ answered: 2 }), needs({ silent: ["a"] }), needs({ silent: ["a"], silent_total: 101 })]).toEqual([false, false, true]);
});

test("where no config was tried, or one that brought nothing new, nothing is said", () => {
  expect([trialOf(placeOf(["a up"], null)), trialOf(placeOf(["a up"], {}, IN_FORCE))]).toEqual([null, null]);
});
