import { expect, test } from "vitest";
import { type Right, mayDo } from "./rights";

test("each role may what those below it may, and nobody anything before they are known", () => {
  const rights: Right[] = ["diagnose", "maintenance", "devices", "branches", "import", "regions", "people"];
  const of = (role: "viewer" | "technician" | "regional_manager" | "admin") => rights.filter((right) => mayDo({ role }, right)).join(" ");
  expect(of("viewer")).toBe("");
  expect(of("technician")).toBe("diagnose maintenance devices");
  expect(of("regional_manager")).toBe("diagnose maintenance devices branches import");
  expect(of("admin")).toBe(rights.join(" "));
  expect(rights.some((right) => mayDo(null, right))).toBe(false);
});
