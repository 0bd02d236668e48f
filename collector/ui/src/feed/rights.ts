/** Which role may change what, as in the collector's table of rules. The collector decides: the page only leaves out what would be refused. */
import type { Me, Role } from "../api/types";

const RANKS: Record<Role, number> = { viewer: 0, technician: 1, regional_manager: 2, admin: 3 };

const LEAST = {
  /** Ask agents, and accept boxes. */
  diagnose: "technician",
  maintenance: "technician",
  devices: "technician",
  branches: "regional_manager",
  import: "regional_manager",
  regions: "admin",
  /** Users, tokens, and what everybody did. */
  people: "admin",
} as const satisfies Record<string, Role>;
export type Right = keyof typeof LEAST;

/** Nobody may anything before it is known who they are. */
export function mayDo(me: Pick<Me, "role"> | null, right: Right): boolean {
  return me !== null && RANKS[me.role] >= RANKS[LEAST[right]];
}
