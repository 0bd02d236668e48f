import { expect, test } from "vitest";
import { csvField, reportForm, reportPath } from "./report";

const form = (query: string) => reportForm(new URLSearchParams(query), "2026-11");

test("a report is of this month unless a month or a range is named", () => {
  expect(reportPath(form(""), null, "Asia/Tbilisi", null)).toBe("/api/v1/availability?by=branch&limit=10000&tz=Asia%2FTbilisi&month=2026-11");
  expect(reportPath(form("by=device&month=2026-10&region=guria"), null, "", "c")).toBe("/api/v1/availability?by=device&limit=10000&month=2026-10&region=guria&cursor=c");
  const range = form("from=2026-11-01&to=2026-11-03");
  expect(reportPath(range, { from: 1, to: 2 }, "", null)).toBe("/api/v1/availability?by=branch&limit=10000&from=1&to=2");
  expect(reportPath(range, { from: 2, to: 2 }, "", null)).toBeNull();
  expect(reportPath(range, null, "", null)).toBeNull();
});

test("a field of a CSV is quoted where it must be, and is no formula", () => {
  const fields = ['a "b", c', "two\nlines", "=1+1", -5, null, "ვაკე"].map(csvField);
  expect(fields).toEqual(['"a ""b"", c"', '"two\nlines"', "'=1+1", "-5", "", "ვაკე"]);
});
