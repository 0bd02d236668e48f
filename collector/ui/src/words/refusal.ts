/** Refusals in words. */
import { t } from ".";
import { Refused } from "../api/ask";

/** What a refused change or question is in words. */
export function refusalWords(error: unknown): string {
  if (error instanceof Refused && (error.status === 404 || error.status === 405) && /no such path/.test(error.message)) return t().notOffered;
  if (error instanceof Refused && error.status === 403) return t().forbidden;
  return t().saveFailed(error instanceof Error ? error.message : String(error));
}
