/** Refusals in words. */
import { t } from ".";
import { Refused } from "../api/ask";

export interface Refusal {
  words: string;
  /** The collector's own words, which are English; empty where they say no more. */
  detail: string;
}

/** What a refused change or question is in words. */
export function refusal(error: unknown): Refusal {
  const words = t().refusals;
  // A browser doesn't say why nobody answers, and says that in its own language.
  if (!(error instanceof Refused)) return { words: words.unreachable, detail: error instanceof TypeError ? "" : String(error) };
  const { status, message: detail } = error;
  if ((status === 404 || status === 405) && /no such path/.test(detail)) return { words: words.notOffered, detail: "" };
  switch (status) {
    case 403:
      return { words: words.forbidden, detail: "" };
    case 404:
      return { words: words.notThere, detail };
    case 409:
      return { words: words.contradicts, detail };
    case 413:
      return { words: words.tooLarge, detail };
    case 429:
      return { words: words.tooMany, detail };
    case 503:
      return { words: words.notNow, detail };
    default:
      return { words: status >= 500 ? words.failed : words.refused, detail };
  }
}
