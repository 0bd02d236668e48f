import { afterEach, expect, test } from "vitest";
import { language } from ".";
import { Refused } from "../api/ask";
import { refusal } from "./refusal";

afterEach(() => {
  language.value = "en";
});

test("a refusal is told in the page's language, and what the collector says of it stands apart", () => {
  language.value = "ka";
  const told = [400, 403, 404, 409, 413, 429, 500, 503].map((status) => refusal(new Refused(status, "in English")));
  for (const { words } of told) expect(words).not.toMatch(/[A-Za-z]/);
  expect(new Set(told.map(({ words }) => words)).size).toBe(told.length);
  expect(told.map(({ detail }) => detail)).toEqual(["in English", "", ...Array(6).fill("in English")]);
  // A browser's own words for a line that is dead are in whichever language it has.
  expect(refusal(new TypeError("Failed to fetch"))).toEqual({ words: "კოლექტორთან დაკავშირება ვერ ხერხდება.", detail: "" });
  language.value = "en";
  expect(refusal(new Refused(404, "no such path")).words).toBe("This collector doesn't offer this yet.");
});
