/** The page as an operator uses it: a real browser, a real collector, and the demo's faults. */
import { readFile } from "node:fs/promises";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Collector, Line, eventually, freePort, launch, open, visit } from "./lab";

let browser: Browser;
let collector: Collector;
let line: Line;

beforeAll(async () => {
  collector = new Collector(await freePort());
  await collector.start();
  line = new Line(collector.port);
  await line.start();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  line?.stop();
  await collector?.stop();
});

async function count(page: Page, name: string): Promise<number> {
  return Number((await page.locator(`.count.${name} b`).textContent())?.replace(/\D/g, ""));
}

// What waits for the demo's story waits together.
test.concurrent("the monitor shows what the collector counts, newest failure first, and asks for no lists", async () => {
  const { page, said } = await open(browser, line.port);
  const asked: string[] = [];
  page.on("request", (request) => request.url().includes("/api/") && asked.push(request.url()));
  await eventually("devices are up and down", async () => (await count(page, "up")) > 700 && (await count(page, "down")) > 5);
  await eventually("the page counts what the API counts", async () => {
    const stats = await collector.json("/api/v1/dashboard/stats");
    for (const name of ["up", "down", "unknown", "flapping"]) expect(await count(page, name), name).toBe(stats[name]);
    return true;
  });
  const times = await page.locator(".entry.down .elapsed").allTextContents();
  const seconds = times.map((text) => [...text.matchAll(/(\d+) ([dhms])/g)].reduce((sum, [, number, unit]) => sum + Number(number) * { d: 86_400, h: 3_600, m: 60, s: 1 }[unit as "d"], 0));
  expect(seconds.length).toBeGreaterThan(3);
  expect(seconds).toEqual([...seconds].sort((a, b) => a - b));
  expect(asked.filter((url) => !url.endsWith("/api/v1/me"))).toEqual([]);
  expect(said.filter((text) => !text.includes("404"))).toEqual([]);
  await page.context().close();
});

test.concurrent("a branch that is cut is one grey entry with its devices inside", async () => {
  const { page } = await open(browser, line.port);
  const entry = page.locator(".entry.unseen", { hasText: "Branch Sololaki" });
  await entry.waitFor({ timeout: 60_000 });
  expect(await page.locator(".entry.down", { hasText: "Sololaki" }).count()).toBe(0);
  expect(await page.locator('.cell[data-device^="sololaki-"]').evaluateAll((cells) => cells.filter((cell) => cell.classList.contains("up")).length)).toBe(0);
  await entry.locator(".unfold").click();
  await eventually("its devices are listed", async () => (await page.locator(".inside").count()) >= 5);
  await page.context().close();
});

test.concurrent("a device that comes back glows, and the grid follows without a reload", async () => {
  const { page } = await open(browser, line.port, "/?q=ortachala+atm+1");
  const cell = page.locator('.cards .cell[data-device="ortachala-atm-1"]');
  await eventually("it is down", async () => /\bdown\b/.test((await cell.getAttribute("class")) ?? ""), 45_000);
  await eventually("it is back and glows", async () => /\bglow\b/.test((await cell.getAttribute("class")) ?? ""), 45_000);
  await eventually("the glow ends", async () => !/\bglow\b/.test((await cell.getAttribute("class")) ?? ""), 15_000);
  await page.context().close();
});

test.concurrent("a slow line has a minute for the first picture", async () => {
  // The demo's snapshot takes longer than a line may be silent that has brought one.
  const slow = new Line(collector.port);
  await slow.start();
  const { page } = await open(browser, slow.port);
  slow.slow(20_000);
  slow.feeds.length = 0;
  await page.goto(`http://127.0.0.1:${slow.port}/`);
  const began = Date.now();
  await page.waitForSelector('html[data-link="live"]', { timeout: 60_000 });
  expect(Date.now() - began).toBeGreaterThan(12_000);
  expect(slow.feeds).toHaveLength(1);
  await page.context().close();
  slow.stop();
});

test("filters stand in the address, survive a reload, and work by keyboard", async () => {
  const { page } = await open(browser, line.port);
  await page.keyboard.press("/");
  await page.keyboard.type("vake router");
  await page.getByRole("combobox", { name: "Region" }).selectOption("tbilisi");
  await eventually("the address has both", async () => page.url().includes("q=vake+router") && page.url().includes("region=tbilisi"));
  const shown = await page.locator(".cards .cell").count();
  expect(shown).toBeGreaterThan(0);
  await page.reload();
  await page.waitForSelector(".cards .cell");
  expect(await page.locator(".cards .cell").count()).toBe(shown);
  expect(await page.getByRole("combobox", { name: "Branch" }).locator("option", { hasText: "Batumi" }).count()).toBe(0);
  await page.locator(".filters .wide input").blur();
  await page.keyboard.press("t");
  await page.waitForSelector(".device-table");
  await page.keyboard.press("r");
  await page.waitForSelector(".region-card");
  await page.keyboard.press("g");
  await page.locator(".estate .scroll").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/devices\//);
  await page.goBack();
  await page.waitForSelector(".cards .cell");
  expect(page.url()).toContain("region=tbilisi");
  await page.context().close();
});

test("a device tells why, answers live, and draws its history", async () => {
  const { page, said } = await open(browser, line.port, "/devices/avlabari-router-1?range=30m");
  await eventually("live replies", async () => /probes? lost in 10 s/.test((await page.locator(".live-words").textContent()) ?? ""), 45_000);
  await page.waitForSelector(".chart canvas");
  await page.waitForSelector(".timeline .bar.up");
  expect(await page.locator(".siblings a").count()).toBeGreaterThan(0);
  await page.getByRole("button", { name: "7 days" }).click();
  await page.waitForURL(/range=7d/);
  await eventually("a bar a day", async () => (await page.locator(".days .day").count()) === 7);
  // What is down has been so for longer than any range, as often as not: why stands above them all.
  await page.getByRole("region", { name: "Newest change" }).getByText("it answers").waitFor();
  await page.getByRole("button", { name: "Probe now" }).click();
  const replies = page.locator(".probe-results li");
  await replies.first().waitFor();
  expect(await replies.count()).toBeLessThan(5);
  await page.locator(".probe-results", { hasText: "the device answers" }).waitFor();
  expect(await replies.count()).toBe(5);
  await page.getByRole("button", { name: "Trace the way" }).click();
  await page.getByText("The device was reached.").waitFor();
  expect(await replies.last().textContent()).toMatch(/^\d+: 127\.\d+\.\d+\.\d+ /);
  expect(said.filter((text) => !text.includes("404"))).toEqual([]);
  await page.context().close();
});

test("a lost connection shows at once with the age of what is shown, and heals", async () => {
  const { page } = await open(browser, line.port);
  await eventually("the picture is there", async () => (await count(page, "total")) === 875);
  line.cut(true);
  await page.waitForSelector(".lost", { timeout: 5_000 });
  const age = async () => Number(/(\d+) s old/.exec((await page.locator(".lost-age").textContent()) ?? "")?.[1]);
  await eventually("the age grows", async () => (await age()) >= 2);
  expect(await page.title()).toContain("connection lost");
  expect(await page.locator("main").evaluate((main) => getComputedStyle(main).filter)).toContain("grayscale");
  line.cut(false);
  await eventually("it is live again", async () => (await page.locator(".lost").count()) === 0);
  await page.context().close();
});

test("a line that was cut brings what was missed, and no second snapshot", async () => {
  const { page } = await open(browser, line.port);
  line.feeds.length = 0;
  line.cut(true);
  await page.waitForSelector(".lost");
  line.cut(false);
  await eventually("it is live again", async () => (await page.locator(".lost").count()) === 0);
  expect(line.feeds.at(-1)).toMatch(/^\/ws\/updates\?resume=[^.]+\.\d+$/);
  await eventually("the page counts what the API counts", async () => {
    const stats = await collector.json("/api/v1/dashboard/stats");
    for (const name of ["up", "down", "unknown"]) expect(await count(page, name), name).toBe(stats[name]);
    return true;
  });
  await page.context().close();
});

test("downtime is counted by the collector's clock, with the browser's two hours off", async () => {
  const { page } = await open(browser, line.port, "/", {}, () => {
    const real = Date.now.bind(Date);
    Date.now = () => real() + 7_200_000;
  });
  const entry = page.locator(".entry.down").first();
  await entry.waitFor();
  const device = (await entry.getAttribute("href"))?.split("/").at(-1) ?? "";
  await eventually("the page's seconds are the collector's", async () => {
    const { down_since, now } = (await collector.json(`/api/v1/devices/${device}`)) as { down_since: number; now: number };
    const text = (await page.locator(`.entry[href="/devices/${device}"] .elapsed`).textContent()) ?? "";
    const seconds = [...text.matchAll(/(\d+) ([dhms])/g)].reduce((sum, [, number, unit]) => sum + Number(number) * { d: 86_400, h: 3_600, m: 60, s: 1 }[unit as "d"], 0);
    return Math.abs(seconds - (now - down_since) / 1000) < 3;
  });
  await page.context().close();
});

test("a report is saved as a CSV", async () => {
  const { page } = await open(browser, line.port, "/reports?by=region");
  await page.waitForSelector(".report tbody tr");
  expect(await page.locator(".report tbody tr").count()).toBe(10);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "CSV" }).click()]);
  const text = await readFile(await download.path(), "utf8");
  expect(text).toMatch(/^\ufeffkey,name,devices,availability/);
  expect(text.trim().split("\r\n")).toHaveLength(11);
  await page.context().close();
});

test("a report counts and shows the rows of all its pages, the worst first", async () => {
  const { page } = await open(browser, line.port);
  const asked: URL[] = [];
  const row = (number: number) => ({
    key: `d${number}`, name: `Device ${number}`, devices: 1, availability: number % 100 === 99 ? 90 + number / 1000 : 100, at_least: 90, at_most: 100, coverage: 100, reason: null,
    up_ms: 1, down_ms: 0, unknown_ms: 0, maintenance_ms: 0, off_hours_ms: 0, outages: 0, changes: 0, mttr_ms: null, mtbf_ms: null, longest_ms: null, state: "final", revision: 1,
    observed_through_ms: 0,
  });
  await page.route("**/api/v1/availability?*", async (route) => {
    const url = new URL(route.request().url());
    asked.push(url);
    const from = Number(url.searchParams.get("cursor") ?? 0);
    const rows = Array.from({ length: 600 }, (_, at) => row(from + at));
    await route.fulfill({ json: { from_ms: 0, to_ms: 86_400_000, counted_to_ms: 86_400_000, time_zone: "Asia/Tbilisi", state: "final", total: 1_200, next_cursor: from === 0 ? "600" : null, rows } });
  });
  await visit(page, "/reports?by=device&type=atm&branch=vake&month=2026-10");
  await page.getByText("12 below 99.9 %").waitFor();
  expect(await page.locator(".report tbody th").first().textContent()).toBe("Device 99");
  expect(await page.locator(".report tbody tr").count()).toBe(500);
  expect(asked[0]?.search).toContain("branch=vake&device_type=atm");
  // Paper has all of them.
  await page.evaluate(() => {
    window.print = () => (document.body.dataset["printed"] = String(document.querySelectorAll(".report tbody tr").length));
  });
  await page.getByRole("button", { name: "Print or PDF" }).click();
  await page.waitForSelector('body[data-printed="1200"]');
  await page.context().close();
});

test("figures of the dashboard lead to what they are made of", async () => {
  const { page } = await open(browser, line.port, "/dashboard");
  const guria = page.getByRole("row", { name: /^Guria/ });
  await guria.getByRole("link", { name: "%" }).first().click();
  await page.waitForURL(/\/reports\?by=branch&region=guria&from=.*&to=/);
  await eventually("its branches", async () => (await page.locator(".report tbody tr").count()) === 3);
  await page.goBack();
  await guria.getByRole("link", { name: "28", exact: true }).click();
  await page.waitForURL(/\/\?region=guria$/);
  await page.context().close();
});

test("agents are sorted by a press on a head, and each of them can be scrolled to", async () => {
  const { page } = await open(browser, line.port, "/fleet");
  const names = () => page.locator(".fleet .table-row > :first-child").allTextContents();
  await eventually("the table is there", async () => (await names()).length > 10);
  await page.getByRole("columnheader", { name: "Branch" }).getByRole("button").click();
  await eventually("by name", async () => (await names())[0]?.trim() === "Akhalkalaki");
  await page.getByRole("columnheader", { name: "Branch" }).getByRole("button").click();
  expect(await page.getByRole("columnheader", { name: "Branch" }).getAttribute("aria-sort")).toBe("descending");
  await eventually("the other way", async () => (await names())[0]?.trim().startsWith("Z"));
  await page.waitForURL(/sort=-branch/);
  expect(await page.locator(".fleet").getAttribute("aria-rowcount")).toBe("129");
  await page.locator(".view-fleet .table-scroll").evaluate((box) => box.scrollTo(0, box.scrollHeight));
  await eventually("the last one is there", async () => (await names()).at(-1)?.trim() === "Akhalkalaki");
  expect((await names()).length).toBeLessThan(100);
  await page.context().close();
});

test("a branch that is opened in a hidden tab has its lanes, and nothing hidden or busy with a form asks for more", async () => {
  const { page } = await open(browser, line.port, "/", {}, () => {
    Object.defineProperty(document, "hidden", { get: () => true });
    Object.defineProperty(document, "visibilityState", { get: () => "hidden" });
  });
  await visit(page, "/branches/vake");
  await eventually("a lane for each device", async () => {
    const devices = await page.locator(".named tbody tr").count();
    return devices > 0 && (await page.locator(".lanes a").count()) === devices && (await page.locator(".lanes .timeline").count()) === devices + 1;
  });
  await page.getByRole("button", { name: "Plan maintenance" }).click();
  const asked: string[] = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.waitForTimeout(3_000);
  expect(asked).toEqual([]);
  await page.context().close();
});

test("a new view has its own title and the focus, and the policy lets nothing in from outside", async () => {
  const { page, said } = await open(browser, line.port);
  expect(await page.title()).toMatch(/^\d+ down · ward$/);
  await page.getByRole("link", { name: "Agents" }).click();
  await eventually("the title", async () => /^\d+ down · Agents · ward$/.test(await page.title()));
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("content");
  await visit(page, "/devices/avlabari-router-1");
  await eventually("the title", async () => /· Avlabari Router 1 · ward$/.test(await page.title()));
  const policy = (await page.request.get(`http://127.0.0.1:${line.port}/`)).headers()["content-security-policy"] ?? "";
  expect(policy).toMatch(/default-src '(none|self)'/);
  expect(policy).not.toMatch(/unsafe|https?:|\*/);
  expect(said.filter((text) => text.includes("Content Security Policy"))).toEqual([]);
  await page.context().close();
});

test("a network that is gone is said at once", async () => {
  const { page } = await open(browser, line.port);
  await page.context().setOffline(true);
  await page.waitForSelector(".lost", { timeout: 1_500 });
  await page.context().setOffline(false);
  await eventually("it is live again", async () => (await page.locator(".lost").count()) === 0);
  await page.context().close();
});

test("a page follows a newer collector, but not while somebody fills in a form", async () => {
  const { page } = await open(browser, line.port);
  let version = "1.0.0";
  let say: (text: string) => void = () => undefined;
  await page.routeWebSocket(/\/ws\/updates/, (socket) => {
    socket.connectToServer().onMessage((text) => socket.send(String(text).replace(/"version":"[^"]*"/, `"version":"${version}"`)));
    say = (text) => socket.send(text);
  });
  await page.goto(`http://127.0.0.1:${line.port}/inventory`);
  await page.waitForSelector('html[data-link="live"]');
  await page.getByRole("button", { name: "Add a device" }).click();
  await page.evaluate(() => Object.assign(window, { isSame: true }));
  // Another collector counts anew: the page asks for all of it.
  version = "1.0.1";
  say(JSON.stringify({ type: "heartbeat", epoch: "another", seq: 0, now: Date.now() }));
  await page.waitForSelector(".lost");
  await page.waitForSelector('html[data-link="live"]');
  await page.waitForTimeout(2_500);
  expect(await page.evaluate(() => "isSame" in window)).toBe(true);
  await page.keyboard.press("Escape");
  await eventually("it has come anew", async () => !(await page.evaluate(() => "isSame" in window)));
  await page.context().close();
});

test("the map has every branch, and green is only what is wholly up", async () => {
  const { page } = await open(browser, line.port, "/map");
  await eventually("a circle a branch", async () => (await page.locator(".map a circle").count()) === 128);
  await eventually("circles agree with the collector", async () => {
    const { branches } = (await collector.json("/api/v1/branches")) as { branches: { name: string; counts: { up: number; total_devices: number } }[] };
    const green = await page.locator(".map a:has(circle.up)").evaluateAll((links) => links.map((link) => link.getAttribute("aria-label")?.split(",")[0]));
    const up = branches.filter(({ counts }) => counts.up === counts.total_devices).map(({ name }) => name);
    expect(green.sort()).toEqual(up.sort());
    return true;
  });
  // By keys, and without loading the page anew.
  await page.evaluate(() => Object.assign(window, { isSame: true }));
  await page.locator(".map").getByRole("link", { name: /^Guria, 28 devices/ }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/\?region=guria$/);
  await page.goBack();
  await page.locator(".map").getByRole("link", { name: /^Ozurgeti,/ }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/branches\/ozurgeti$/);
  expect(await page.evaluate(() => "isSame" in window)).toBe(true);
  await page.context().close();
});

test("a collector that is restarted under open pages is followed, and what they couldn't read meanwhile is read", async () => {
  const { page } = await open(browser, collector.port);
  const [device, branch, dashboard] = await Promise.all(["/devices/vake-router-1", "/branches/gldani", "/fleet"].map(async (path) => (await open(browser, collector.port, path)).page));
  if (!device || !branch || !dashboard) throw new Error("three pages were opened");
  await eventually("the picture is there", async () => (await count(page, "total")) === 875);
  await device.waitForSelector(".chart canvas");
  // The dashboard's own code, so that only its figures are missing.
  await visit(dashboard, "/dashboard");
  await dashboard.getByRole("row", { name: /^Guria.*%/ }).waitFor();
  await visit(dashboard, "/fleet");
  await branch.waitForSelector(".lanes");
  await collector.stop();
  await page.waitForSelector(".lost");
  for (const [one, path] of [[device, "/devices/vake-router-1?range=7d"], [branch, "/branches/vake"], [dashboard, "/dashboard"]] as const) {
    await visit(one, path);
    await one.locator(".problem", { hasText: "The collector can't be reached." }).first().waitFor();
  }
  // How fresh things are isn't claimed while nobody can tell.
  expect(await device.locator(".facts").textContent()).not.toContain("ago");
  await collector.start();
  await eventually("it is live again", async () => (await page.locator(".lost").count()) === 0);
  for (const one of [device, branch, dashboard]) await eventually("what failed is read", async () => (await one.locator(".problem").count()) === 0);
  await device.waitForSelector(".days .day");
  await branch.waitForSelector(".lanes .timeline");
  await dashboard.getByRole("row", { name: /^Guria.*(%|observed)/ }).waitFor();
  await eventually("devices are up again", async () => (await count(page, "up")) > 0, 45_000);
  for (const one of [page, device, branch, dashboard]) await one.context().close();
});
