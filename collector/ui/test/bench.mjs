// What the page costs: node test/bench.mjs PROGRAM ESTATE_CSV MINUTES [--json]. tests/bench ui runs it.
//
// One browser, one collector at a time: the demo's estate, then a large one with 200 changes a second.

import { spawn } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

const [program, estate, minutes, form] = process.argv.slice(2);
const TOKEN = "bench-token-for-the-page";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-dev-shm-usage", "--enable-precise-memory-info", "--js-flags=--expose-gc",
];
/** Loads of a page, each in a browser profile of its own: nothing is cached. */
const LOADS = 5;
const CHURN = 200;
const results = [];

/** What others show, as they or their users say. */
const ANCHORS = {
  ui_paint_875: { "Uptime Kuma, 882 monitors": 15_000 },
  ui_change_to_pixel_p99: { "the old system's poll": 30_000 },
};

function row(figure, value, unit, goal, note = "") {
  const rounded = Number(value.toFixed(value < 10 ? 2 : 0));
  results.push(value <= goal);
  if (form === "--json") console.log(JSON.stringify({ figure, value: rounded, unit, goal, better: "lower", holds: value <= goal, anchors: ANCHORS[figure] ?? {} }));
  else console.log(`${figure.padEnd(34)} ${String(rounded).padStart(10)} ${unit.padEnd(6)} goal <= ${String(goal).padEnd(6)} ${value <= goal ? "holds" : "DOES NOT HOLD"} ${note}`);
}
const say = (words) => console.error(words);
const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? NaN;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function collector(more) {
  const port = await freePort();
  const child = spawn(program, ["demo", "--listen", `127.0.0.1:${port}`, "--token", TOKEN, ...more], { stdio: ["ignore", "ignore", "inherit"] });
  const stats = async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/dashboard/stats`, { headers: { authorization: `Bearer ${TOKEN}` } });
    return answer.json();
  };
  for (let tries = 0; ; tries += 1) {
    const counts = await stats().catch(() => null);
    if (counts && counts.total_devices > 0 && (counts.up + counts.down) / counts.total_devices > 0.9) break;
    if (child.exitCode !== null || tries > 600) throw new Error(`the collector didn't begin: ${JSON.stringify(counts && { ...counts, by_region: 0, by_type: 0 })}`);
    await sleep(500);
  }
  return { base: `http://127.0.0.1:${port}`, stop: () => new Promise((resolve) => (child.once("exit", resolve), child.kill("SIGINT"))) };
}

/** Runs in the page before anything of it: notes when the first failures and cells are painted. */
function notePaint() {
  const look = () => {
    if (!document.querySelector(".entries .entry") || !document.querySelector(".cards .cell")) return requestAnimationFrame(look);
    return requestAnimationFrame(() => (window.painted = performance.now()));
  };
  requestAnimationFrame(look);
}

/** Runs in the page: notes how long each change takes until its frame is out, and what blocks the page. */
function noteChanges() {
  window.delays = [];
  window.blocks = [];
  const native = window.WebSocket;
  window.WebSocket = class extends native {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", (event) => {
        const told = /^\{"(?:[^[]*)"now":(\d+)[^[]*"type":"delta"|"type":"delta"[^[]*"now":(\d+)/.exec(event.data.slice(0, 300));
        if (!told) return;
        const made = Number(told[1] ?? told[2]);
        // The first frame is the one that draws it, the second begins when that one is out.
        requestAnimationFrame(() => requestAnimationFrame(() => window.delays.push(Date.now() - made)));
      });
    }
  };
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.blocks.push(entry.duration))).observe({ type: "longtask" });
}

async function signedIn(browser, base, init) {
  const context = await browser.newContext({ viewport: { width: 1920, height: 1080 } });
  await context.addCookies([{ name: "ward_token", value: TOKEN, url: base }]);
  if (init) await context.addInitScript(init);
  return context.newPage();
}

async function firstPaint(browser, base) {
  const times = [];
  for (let load = 0; load < LOADS; load += 1) {
    const page = await signedIn(browser, base, notePaint);
    await page.goto(base);
    await page.waitForFunction(() => window.painted, null, { timeout: 60_000 });
    times.push(await page.evaluate(() => window.painted));
    await page.context().close();
  }
  return quantile(times, 0.5);
}

async function keystrokes(page) {
  const times = [];
  for (const text of ["router", "atm 1", "switch", "10.2"]) {
    for (const letter of text) {
      await page.focus("input[type=search]");
      await page.evaluate(() => {
        window.stroke = new Promise((resolve) => {
          document.querySelector("input[type=search]").addEventListener("input", (event) => {
            requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - event.timeStamp)));
          }, { once: true, capture: true });
        });
      });
      await page.keyboard.type(letter);
      times.push(await page.evaluate(() => window.stroke));
    }
    await page.evaluate(() => document.querySelector(".filters button").click());
    await sleep(200);
  }
  return times;
}

/** The other views under the same changes, each for a while: what somebody looks at all day must not block either. */
const VIEWS = { table: "/?show=table", regions: "/?show=regions", dashboard: "/dashboard", map: "/map", fleet: "/fleet", inventory: "/inventory" };
const VIEW_MS = 20_000;

/** The longest block of each view, its heap's growth, and what breaks a rule of accessibility in any. */
async function otherViews(page, base, device, heap, violations) {
  const longest = {};
  let broken = 0;
  const { branch } = await page.evaluate(async (id) => (await fetch(`/api/v1/devices/${id}`)).json(), device);
  for (const [name, path] of Object.entries({ ...VIEWS, device: `/devices/${device}?range=365d`, branch: `/branches/${branch}` })) {
    await page.goto(base + path);
    await page.waitForSelector("h1");
    await sleep(5_000);
    await page.evaluate(() => (window.blocks = []));
    const before = await heap();
    await sleep(VIEW_MS);
    longest[name] = Math.max(0, ...(await page.evaluate(() => window.blocks)));
    say(`${name}: longest block ${longest[name]} ms, heap ${before.toFixed(1)} to ${(await heap()).toFixed(1)} MB`);
    broken += await violations();
  }
  return { longest, broken };
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
try {
  const dist = new URL("../dist/", import.meta.url);
  const html = readFileSync(new URL("index.html", dist), "utf8");
  const files = readdirSync(new URL("assets/", dist)).filter((file) => html.includes(file));
  const bytes = files.reduce((sum, file) => sum + gzipSync(readFileSync(new URL(`assets/${file}`, dist)), { level: 9 }).length, 0);
  row("ui_first_load", bytes / 1000, "kB", 120);

  say("the demo's estate");
  const small = await collector([]);
  row("ui_paint_875", await firstPaint(browser, small.base), "ms", 300);
  await small.stop();

  say(`a large estate with ${CHURN} changes a second`);
  const large = await collector(["--estate", estate, "--churn", String(CHURN)]);
  row("ui_paint_10000", await firstPaint(browser, large.base), "ms", 1_000);
  const page = await signedIn(browser, large.base, noteChanges);
  await page.goto(large.base);
  await page.waitForSelector(".cards .cell");
  await sleep(5_000);
  const heap = () => page.evaluate(() => (window.gc(), window.gc(), performance.memory.usedJSHeapSize / 1e6));
  await page.evaluate(() => ((window.delays = []), (window.blocks = [])));
  const before = await heap();
  say(`${minutes} minutes of changes`);
  await sleep(minutes * 60_000);
  const after = await heap();
  const { delays, blocks } = await page.evaluate(() => ({ delays: window.delays, blocks: window.blocks }));
  row("ui_change_to_pixel_p99", quantile(delays, 0.99), "ms", 150, `p50 ${quantile(delays, 0.5)} ms of ${delays.length} messages`);
  row("ui_longest_block", Math.max(0, ...blocks), "ms", 50, `${blocks.length} over 50 ms`);
  row("ui_heap_growth", after - before, "MB", 5, `${before.toFixed(1)} to ${after.toFixed(1)} MB`);
  const strokes = await keystrokes(page);
  row("ui_keystroke_p99", quantile(strokes, 0.99), "ms", 50, `p50 ${quantile(strokes, 0.5).toFixed(0)} ms`);
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  const violations = async () => {
    await page.evaluate(`window.axe ?? (() => { ${axe} })()`);
    return (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")).violations.length;
  };
  const monitor = await violations();
  const device = await page.locator(".cell[data-device]").first().getAttribute("data-device");
  const { longest, broken } = await otherViews(page, large.base, device, heap, violations);
  for (const [name, ms] of Object.entries(longest)) row(`ui_longest_block_${name}`, ms, "ms", 50);
  row("ui_axe_violations", monitor + broken, "", 0);
  await large.stop();
} finally {
  await browser.close();
}
process.exitCode = results.every(Boolean) ? 0 : 1;
