/** What came of the config that a branch's agent has tried last, and what somebody should know of it. Pure. */
import { isConfigPending } from "./agents";
import { type Place, statusOf } from "./board";

export interface Trial {
  version: number;
  /** The agent goes on with the config before: devices answer now, and none that this one names does. */
  isHeld: boolean;
  /** Devices that are new in it, or stand elsewhere, and answered when it came. */
  answered: number;
  /** How many of them did not. */
  silentTotal: number;
  /** Those of them that are named. */
  silent: Newcomer[];
}

/** A device that did not answer when its config came. */
export interface Newcomer {
  id: string;
  name: string;
  /** It does now, at the place that the config has for it. */
  answersNow: boolean;
}

/** Null where there is nothing to say: no config was tried, or it brought nothing new. */
export function trialOf({ branch, devices }: Place): Trial | null {
  const tried = branch.config_trial;
  if (!tried) return null;
  // The word that a held config got into force can be lost; the config that the agent has then says so.
  const isHeld = tried.is_held && isConfigPending(branch);
  if (!isHeld && (tried.is_held || tried.answered + tried.silent_total === 0)) return null;
  const known = new Map(devices.map((device) => [device.id, device]));
  const silent = tried.silent.map((id) => {
    const device = known.get(id);
    // Under the config before, a device is asked where it stood: what it answers there says nothing of its new place.
    return { id, name: device?.name ?? id, answersNow: !isHeld && device !== undefined && statusOf(device) === "up" };
  });
  return { version: tried.version, isHeld, answered: tried.answered, silentTotal: tried.silent_total, silent };
}

/** Whether somebody should look: a config is held, or something new in it has not answered yet. */
export function needsSomebody({ isHeld, silentTotal, silent }: Trial): boolean {
  return isHeld || silentTotal > silent.filter(({ answersNow }) => answersNow).length;
}
