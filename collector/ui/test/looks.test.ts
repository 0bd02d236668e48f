/** How the page looks and reads: by the rules of accessibility, in Georgian, on paper, on a phone and on the wall. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Collector, eventually, freePort, launch, open, visit } from "./lab";

let browser: Browser;
let collector: Collector;

beforeAll(async () => {
  collector = new Collector(await freePort());
  await collector.start();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await collector?.stop();
});

const VIEWS = ["/", "/?show=regions", "/?show=table", "/dashboard", "/map", "/fleet", "/reports", "/inventory", "/users", "/tokens", "/audit", "/devices/avlabari-router-1", "/branches/avlabari"];
const LANGUAGES = ["en", "ka"] as const;
const THEMES = ["light", "dark"] as const;

test.each(LANGUAGES)("no view breaks a rule of accessibility, in %s, light and dark", async (language) => {
  const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
  const source = await readFile(axe, "utf8");
  const { page } = await open(browser, collector.port, "/", { language });
  const found: string[] = [];
  for (const view of [...VIEWS, "/login"]) {
    if (view === "/login") await page.goto(`http://127.0.0.1:${collector.port}${view}`);
    else await visit(page, view);
    await page.waitForSelector("h1");
    await page.waitForTimeout(400);
    // By the debugger's way, which the page's own policy doesn't reach.
    await page.evaluate(`window.axe ?? (() => { ${source} })()`);
    for (const theme of THEMES) {
      // All colours follow this one word, so that a view needn't be visited again for the other ones.
      await page.evaluate((chosen) => (document.documentElement.dataset["theme"] = chosen), theme);
      found.push(...(await brokenRules(page)).map((rule) => `${view} ${theme} ${rule}`));
    }
    expect(await page.locator("html").getAttribute("lang")).toBe(language);
  }
  expect(found).toEqual([]);
  await page.context().close();
}, 150_000);

/** What axe finds. What begins or ends to shine while it looks has the colours of two moments: a fault is one that is there again. */
async function brokenRules(page: Page): Promise<string[]> {
  let broken: string[] = [];
  for (let look = 0; look < 3; look += 1) {
    const result = (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")) as { violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] };
    broken = result.violations.map(({ id, nodes }) => `${id} ${nodes.length}x: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`);
    if (broken.length === 0) break;
    await page.waitForTimeout(3_000);
  }
  return broken;
}

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

/** Presses what these buttons are of, once for each word on them: a list of records has the same ones in each row. */
async function pressEach(page: Page, selector: string): Promise<void> {
  const words = await page.locator(selector).allTextContents();
  const firsts = words.map((text, at) => ({ text, at })).filter(({ text, at }) => words.indexOf(text) === at);
  for (const { text } of firsts) await page.locator(selector, { hasText: text }).first().click({ timeout: 500 }).catch(() => null);
}

test("no English is left on the Georgian page", async () => {
  const { page } = await open(browser, collector.port, "/", { language: "ka" });
  const { devices } = (await collector.json("/api/v1/devices?limit=10000")) as { devices: { id: string; name: string }[] };
  const { branches } = (await collector.json("/api/v1/branches")) as { branches: { id: string; name: string }[] };
  const { regions } = (await collector.json("/api/v1/regions")) as { regions: { id: string; name: string }[] };
  const names = [...devices, ...branches, ...regions.map(({ id }) => ({ id, name: "" }))].flatMap(({ id, name }) => [id, name]).concat("device_id, device_name, branch, branch_name, region, region_name, device_type, ip", "api-token");
  const left: string[] = [];
  for (const view of [...VIEWS, "/inventory?kind=branches", "/inventory?kind=regions", "/devices/nothing", "/?q=nothing"]) {
    await visit(page, view);
    await page.waitForSelector("h1, .none");
    await page.waitForTimeout(700);
    for (const button of ["summary", ".actions .choice"]) await pressEach(page, `main ${button}`);
    await page.waitForTimeout(500);
    const texts = await page.evaluate(textsOf, names);
    left.push(...texts.filter((text) => /[A-Za-z]/.test(text.replaceAll(NOT_ENGLISH, ""))).map((text) => `${view}: ${text}`));
  }
  expect([...new Set(left)]).toEqual([]);
  await page.context().close();
});

test("a report on paper has its table and its dates, and none of the screen's controls", async () => {
  const { page } = await open(browser, collector.port, "/reports?by=region");
  await page.waitForSelector(".report tbody tr");
  await page.emulateMedia({ media: "print" });
  for (const [part, isShown] of [[".top", false], [".report .form", false], [".report table", true], [".report h1", true]] as const) expect(await page.locator(part).isVisible(), part).toBe(isShown);
  // A4 across: nothing of the table is cut off.
  await page.setViewportSize({ width: 1_050, height: 740 });
  expect(await page.locator(".report .table-scroll").evaluate((box) => box.scrollWidth - box.clientWidth)).toBeLessThanOrEqual(1);
  expect((await page.pdf({ format: "A4", landscape: true })).length).toBeGreaterThan(10_000);
  await page.context().close();
});

test.each([[1920, 1080], [3840, 2160]])("in full screen the whole estate is on a wall of %i x %i at once", async (width, height) => {
  const { page } = await open(browser, collector.port, "/", { width, height, theme: "dark" });
  await page.waitForSelector(".cards .cell");
  await page.keyboard.press("f");
  await page.waitForSelector(".page.wall .region-tile");
  await eventually("each device has its cell", async () => (await page.locator(".cards .cell").count()) === 875);
  const pane = page.locator(".estate .scroll");
  expect(await pane.evaluate((box) => box.scrollHeight - box.clientHeight)).toBeLessThanOrEqual(0);
  // No cell is cut off by its branch's frame.
  const cut = await page.locator(".card").evaluateAll((cards) => cards.filter((card) => card.scrollHeight > card.clientHeight + 1 || card.getBoundingClientRect().bottom > innerHeight).length);
  expect(cut).toBe(0);
  // Larger screens hang further away.
  const letters = await page.locator(".cell").first().evaluate((cell) => Number.parseFloat(getComputedStyle(cell).fontSize));
  expect(letters).toBeGreaterThan(width / 300);
  await page.keyboard.press("f");
  await page.waitForSelector(".region-head");
  await page.context().close();
});

test("on a phone nothing is wider than the screen", async () => {
  const { page } = await open(browser, collector.port, "/", { width: 390, height: 844, language: "ka" });
  for (const view of VIEWS) {
    await visit(page, view);
    await page.waitForSelector("h1");
    await page.waitForTimeout(300);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(wide, view).toBeLessThanOrEqual(390);
  }
  await page.context().close();
});
