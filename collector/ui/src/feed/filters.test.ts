import { expect, test } from "vitest";
import { agent, boardOf, delta, device, filters } from "./estate";
import { filterChoices, filtersFrom, isUnfiltered, matcher, writeFilters } from "./filters";
import { boardWith } from "./estate";
import { deviceOrder, orderText, ordered } from "./order";

test("each filter and each searched word must match", () => {
  const board = boardWith(device("x", "down", { name: "Vake Router 1", ip: "10.0.0.7", is_flapping: true, in_maintenance: true }));
  const router = board.devices.get("x");
  const pass = (query: string) => router && matcher(filtersFrom(new URLSearchParams(query)))(router, board.placeOf(router));
  for (const query of ["", "q=vake+10.0.0", "q=TBILISI", "q=თბილისი+როუტერი", "region=r1&branch=b1", "type=router&status=down", "status=flapping", "status=maintenance"]) {
    expect(pass(query), query).toBe(true);
  }
  for (const query of ["q=vake+gori", "region=r2", "branch=b2", "type=atm", "status=up", "status=unknown"]) {
    expect(pass(query), query).toBe(false);
  }
});

test("filters go into the address and come back, beside what else is there", () => {
  const chosen = filters({ q: "a&b=ვაკე", region: "r1" });
  const params = new URLSearchParams("show=table&status=down");
  writeFilters(params, chosen);
  expect(params.get("show")).toBe("table");
  expect(filtersFrom(new URLSearchParams(params.toString()))).toEqual(chosen);
  writeFilters(params, filters());
  expect(params.toString()).toBe("show=table");
  expect(isUnfiltered(filters())).toBe(true);
});

test("the branch menu offers only branches of the chosen region", () => {
  const board = boardOf(["a up"]);
  board.apply(delta(1, [], { branches: [agent("b2", { name: "Gori", region: "r2", region_name: "Shida Kartli" })] }));
  expect(filterChoices(board, filters()).region).toEqual([["r2", "Shida Kartli"], ["r1", "Tbilisi"]]);
  expect(filterChoices(board, filters({ region: "r2" })).branch).toEqual([["b2", "Gori"]]);
});

test("the table puts the worst first, turns round, and what isn't known last either way", () => {
  const board = boardWith(
    device("well", "up", { rtt_ms: 5 }), device("dead", "down"), device("grey", "unknown"), device("slow", "up", { rtt_ms: 90 }),
  );
  const order = (text: string) => ordered(board, filters(), deviceOrder(text)).map(({ id }) => id).join(" ");
  expect(order("")).toBe("dead grey slow well");
  expect(order("rtt")).toBe("well slow dead grey");
  expect(order("-rtt")).toBe("slow well dead grey");
  expect(order("-name")).toBe("well slow grey dead");
  expect(["", "-rtt", "rtt", "nonsense"].map((text) => orderText(deviceOrder(text)))).toEqual(["", "-rtt", "rtt", ""]);
});

test("addresses are ordered by their numbers", () => {
  const at = (id: string, ip: string) => device(id, "up", { ip });
  const board = boardWith(at("a", "10.0.0.10"), at("b", "10.0.0.9"), at("c", "9.255.0.1"));
  expect(ordered(board, filters(), deviceOrder("ip")).map(({ id }) => id).join("")).toBe("cba");
});
