/** The page as an operator uses it: a real browser, a real collector, and the demo's faults. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Collector, Line, type Look, eventually, freePort, launch, open, visit } from "./lab";

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

test("the monitor shows what the collector counts, newest failure first, and asks for no lists", async () => {
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

test("a branch that is cut is one grey entry with its devices inside", async () => {
  const { page } = await open(browser, line.port);
  const entry = page.locator(".entry.unseen", { hasText: "Branch Sololaki" });
  await entry.waitFor({ timeout: 60_000 });
  expect(await page.locator(".entry.down", { hasText: "Sololaki" }).count()).toBe(0);
  expect(await page.locator('.cell[data-device^="sololaki-"]').evaluateAll((cells) => cells.filter((cell) => cell.classList.contains("up")).length)).toBe(0);
  await entry.locator(".unfold").click();
  await eventually("its devices are listed", async () => (await page.locator(".inside").count()) >= 5);
  await page.context().close();
});

test("a device that comes back glows, and the grid follows without a reload", async () => {
  const { page } = await open(browser, line.port, "/?q=ortachala+atm+1");
  const cell = page.locator('.cards .cell[data-device="ortachala-atm-1"]');
  await eventually("it is down", async () => /\bdown\b/.test((await cell.getAttribute("class")) ?? ""), 45_000);
  await eventually("it is back and glows", async () => /\bglow\b/.test((await cell.getAttribute("class")) ?? ""), 45_000);
  await eventually("the glow ends", async () => !/\bglow\b/.test((await cell.getAttribute("class")) ?? ""), 15_000);
  await page.context().close();
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
  await page.getByRole("button", { name: "Probe now" }).click();
  await page.waitForSelector(".probe-results, .problem");
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

test("a slow line has a minute for the first picture", async () => {
  // The demo's snapshot takes some 20 s.
  const { page } = await open(browser, line.port);
  line.slow(16_000);
  line.feeds.length = 0;
  await page.goto(`http://127.0.0.1:${line.port}/`);
  const began = Date.now();
  await page.waitForSelector('html[data-link="live"]', { timeout: 60_000 });
  expect(Date.now() - began).toBeGreaterThan(12_000);
  expect(line.feeds).toHaveLength(1);
  line.slow(Infinity);
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
  await page.context().close();
});

const VIEWS = ["/", "/?show=regions", "/?show=table", "/dashboard", "/map", "/fleet", "/reports", "/inventory", "/users", "/tokens", "/audit", "/devices/avlabari-router-1", "/branches/avlabari"];
const LOOKS: Look[] = [{ language: "en", theme: "light" }, { language: "ka", theme: "dark" }];

test.each(LOOKS)("no view breaks a rule of accessibility, in $language and $theme", async (look) => {
  const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
  const source = await readFile(axe, "utf8");
  const { page } = await open(browser, line.port, "/", look);
  const found: string[] = [];
  for (const view of [...VIEWS, "/login"]) {
    if (view === "/login") await page.goto(`http://127.0.0.1:${line.port}${view}`);
    else await visit(page, view);
    await page.waitForSelector("h1");
    await page.waitForTimeout(400);
    // By the debugger's way, which the page's own policy doesn't reach.
    await page.evaluate(`window.axe ?? (() => { ${source} })()`);
    // What begins or ends to shine while axe looks has the colours of two moments: a fault is one that is there again.
    let broken: string[] = [];
    for (let look = 0; look < 3; look += 1) {
      const result = (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")) as { violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] };
      broken = result.violations.map(({ id, nodes }) => `${view} ${id} ${nodes.length}x: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`);
      if (broken.length === 0) break;
      await page.waitForTimeout(3_000);
    }
    found.push(...broken);
    expect(await page.locator("html").getAttribute("lang")).toBe(look.language);
  }
  expect(found).toEqual([]);
  await page.context().close();
}, 150_000);

/** Latin letters that are no English: names of programs and formats, units of other pages, and the letters of types in the grid's cells. */
const NOT_ENGLISH = /\b(ward|CSV|PDF|NVR|VictoriaMetrics|TLS|TCP|IP|DNS|UTC|Asia\/Tbilisi|English|[A-Z]|[fgrt]|\d+\.\d+\.\d+)\b/g;

/** Runs in the page: each text that people read or hear, but for what is marked as another language or is somebody's own name. */
function textsOf(names: string[]): string[] {
  const known = new Set(names);
  const texts: string[] = [];
  const walk = (node: Node) => {
    if (node instanceof HTMLElement && (node.lang === "en" || node.localName === "noscript")) return;
    if (node.nodeType === Node.TEXT_NODE) texts.push(node.textContent ?? "");
    if (node instanceof Element) for (const name of ["aria-label", "title", "placeholder", "alt"]) texts.push(node.getAttribute(name) ?? "");
    node.childNodes.forEach(walk);
  };
  walk(document.body);
  texts.push(document.title);
  const longestFirst = [...known].sort((a, b) => b.length - a.length).filter(Boolean);
  return texts.filter((text) => /[A-Za-z]/.test(text)).map((text) => longestFirst.reduce((left, name) => left.replaceAll(name, ""), text));
}

test("no English is left on the Georgian page", async () => {
  const { page } = await open(browser, line.port, "/", { language: "ka" });
  const { devices } = (await collector.json("/api/v1/devices?limit=10000")) as { devices: { id: string; name: string }[] };
  const { branches } = (await collector.json("/api/v1/branches")) as { branches: { id: string; name: string }[] };
  const { regions } = (await collector.json("/api/v1/regions")) as { regions: { id: string; name: string }[] };
  const names = [...devices, ...branches, ...regions.map(({ id }) => ({ id, name: "" }))].flatMap(({ id, name }) => [id, name]).concat("device_id, device_name, branch, branch_name, region, region_name, device_type, ip", "api-token");
  const left: string[] = [];
  for (const view of [...VIEWS, "/inventory?kind=branches", "/inventory?kind=regions", "/devices/nothing", "/?q=nothing"]) {
    await visit(page, view);
    await page.waitForSelector("h1, .none");
    await page.waitForTimeout(700);
    for (const button of ["summary", ".actions .choice"]) for (const one of await page.locator(`main ${button}`).all()) await one.click({ timeout: 1_000 }).catch(() => null);
    await page.waitForTimeout(500);
    const texts = await page.evaluate(textsOf, names);
    left.push(...texts.filter((text) => /[A-Za-z]/.test(text.replaceAll(NOT_ENGLISH, ""))).map((text) => `${view}: ${text}`));
  }
  expect([...new Set(left)]).toEqual([]);
  await page.context().close();
});

test("a report on paper has its table and its dates, and none of the screen's controls", async () => {
  const { page } = await open(browser, line.port, "/reports?by=region");
  await page.waitForSelector(".report tbody tr");
  await page.emulateMedia({ media: "print" });
  for (const [part, isShown] of [[".top", false], [".report .form", false], [".report table", true], [".report h1", true]] as const) expect(await page.locator(part).isVisible(), part).toBe(isShown);
  // A4 across: nothing of the table is cut off.
  await page.setViewportSize({ width: 1_050, height: 740 });
  expect(await page.locator(".report .table-scroll").evaluate((box) => box.scrollWidth - box.clientWidth)).toBeLessThanOrEqual(1);
  expect((await page.pdf({ format: "A4", landscape: true })).length).toBeGreaterThan(10_000);
  await page.context().close();
});

test("in full screen the whole estate is on the wall at once", async () => {
  const { page } = await open(browser, line.port, "/", { width: 1920, height: 1080, theme: "dark" });
  await page.waitForSelector(".cards .cell");
  await page.keyboard.press("f");
  await page.waitForSelector(".page.wall .region-tile");
  await eventually("each device has its cell", async () => (await page.locator(".cards .cell").count()) === 875);
  const pane = page.locator(".estate .scroll");
  expect(await pane.evaluate((box) => box.scrollHeight - box.clientHeight)).toBeLessThanOrEqual(0);
  // No cell is cut off by its branch's frame.
  const cut = await page.locator(".card").evaluateAll((cards) => cards.filter((card) => card.scrollHeight > card.clientHeight + 1 || card.getBoundingClientRect().bottom > innerHeight).length);
  expect(cut).toBe(0);
  await page.keyboard.press("f");
  await page.waitForSelector(".region-head");
  await page.context().close();
});

test("on a phone nothing is wider than the screen", async () => {
  const { page } = await open(browser, line.port, "/", { width: 390, height: 844, language: "ka" });
  for (const view of VIEWS) {
    await visit(page, view);
    await page.waitForSelector("h1");
    await page.waitForTimeout(300);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(wide, view).toBeLessThanOrEqual(390);
  }
  await page.context().close();
});

test("a collector that is restarted under an open page is followed", async () => {
  const { page } = await open(browser, collector.port);
  await eventually("the picture is there", async () => (await count(page, "total")) === 875);
  await collector.stop();
  await page.waitForSelector(".lost");
  await collector.start();
  await eventually("it is live again", async () => (await page.locator(".lost").count()) === 0);
  await eventually("devices are up again", async () => (await count(page, "up")) > 0, 45_000);
  await page.context().close();
});
