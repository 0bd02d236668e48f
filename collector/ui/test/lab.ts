/** A browser, a collector under its demo, and a line between them that can be cut. */
import { type ChildProcess, spawn } from "node:child_process";
import { type Server, type Socket, connect, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContextOptions, type Page, chromium } from "playwright-core";

export const TOKEN = "browser-test-token";
const PROGRAM = process.env["WARD_COLLECTOR_BIN"] ?? fileURLToPath(new URL("../../../target/debug/ward-collector", import.meta.url));
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-dev-shm-usage",
];

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}

/** Waits until something holds; tells what was last wrong if it never does. */
export async function eventually<T>(what: string, check: () => Promise<T | null | undefined | false>, limitMs = 30_000): Promise<T> {
  const end = Date.now() + limitMs;
  let last: unknown = "it never held";
  for (;;) {
    try {
      const value = await check();
      if (value !== null && value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}: ${String(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class Collector {
  readonly port: number;
  #process: ChildProcess | null = null;

  constructor(port: number) {
    this.port = port;
  }

  async start(more: string[] = []): Promise<void> {
    this.#process = spawn(PROGRAM, ["demo", "--listen", `127.0.0.1:${this.port}`, "--token", TOKEN, ...more], { stdio: "ignore" });
    await eventually("the collector answers", async () => (await fetch(`http://127.0.0.1:${this.port}/version`)).ok);
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async json(path: string): Promise<Record<string, unknown>> {
    const answer = await fetch(`http://127.0.0.1:${this.port}${path}`, { headers: { authorization: `Bearer ${TOKEN}` } });
    return (await answer.json()) as Record<string, unknown>;
  }

  async stop(): Promise<void> {
    const running = this.#process;
    if (!running) return;
    this.#process = null;
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGINT");
    const timer = setTimeout(() => running.kill("SIGKILL"), 15_000);
    await ended;
    clearTimeout(timer);
  }
}

/** A TCP relay: cut, it drops what is connected and takes nothing; slow, it passes the live feed on at so many bytes a second. */
export class Line {
  readonly #to: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;
  #feedRate = Infinity;
  /** Addresses of the live feed that were opened through it. */
  readonly feeds: string[] = [];
  port = 0;

  constructor(to: number) {
    this.#to = to;
    this.#server = createServer((socket) => this.#relay(socket));
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.port = (this.#server.address() as { port: number }).port;
  }

  cut(isCut: boolean): void {
    this.#isCut = isCut;
    if (isCut) for (const socket of this.#sockets) socket.destroy();
  }

  slow(bytesPerSecond: number): void {
    this.#feedRate = bytesPerSecond;
  }

  stop(): void {
    this.cut(true);
    this.#server.close();
  }

  #relay(socket: Socket): void {
    if (this.#isCut) {
      socket.destroy();
      return;
    }
    const other = connect(this.#to, "127.0.0.1");
    let isFeed = false;
    socket.once("data", (first) => {
      const feed = /^GET (\/ws\/updates\S*)/.exec(first.toString("latin1"))?.[1];
      isFeed = feed !== undefined;
      if (feed) this.feeds.push(feed);
    });
    other.on("data", (chunk) => {
      if (!isFeed || this.#feedRate === Infinity) return;
      other.pause();
      setTimeout(() => other.resume(), (chunk.length / this.#feedRate) * 1_000);
    });
    for (const [one, two] of [[socket, other], [other, socket]] as const) {
      this.#sockets.add(one);
      one.pipe(two);
      one.on("error", () => two.destroy());
      one.on("close", () => {
        this.#sockets.delete(one);
        two.destroy();
      });
    }
  }
}

export interface Look {
  language?: "en" | "ka";
  theme?: "light" | "dark";
  width?: number;
  height?: number;
}

/** A page, and what it says on its console. */
async function blank(browser: Browser, look: Look, init?: () => void): Promise<{ page: Page; said: string[] }> {
  const options: BrowserContextOptions = { viewport: { width: look.width ?? 1440, height: look.height ?? 900 }, acceptDownloads: true };
  const context = await browser.newContext(options);
  await context.addInitScript(([language, theme]) => {
    localStorage.setItem("ward.language", language ?? "en");
    localStorage.setItem("ward.theme", theme ?? "light");
  }, [look.language ?? "en", look.theme ?? "light"]);
  if (init) await context.addInitScript(init);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const said: string[] = [];
  page.on("console", (message) => message.type() === "error" && said.push(message.text()));
  page.on("pageerror", (error) => said.push(error.message));
  return { page, said };
}

/** A page that is signed in by the token, which is an administrator's. */
export async function open(browser: Browser, port: number, path = "/", look: Look = {}, init?: () => void): Promise<{ page: Page; said: string[] }> {
  const { page, said } = await blank(browser, look, init);
  await page.goto(`http://127.0.0.1:${port}/login?token=${TOKEN}`);
  if (path !== "/") await page.goto(`http://127.0.0.1:${port}${path}`);
  await page.waitForSelector('html[data-link="live"]');
  return { page, said };
}

/** A page that is signed in by name and password, at the form. */
export async function signIn(browser: Browser, port: number, name: string, password: string, look: Look = {}): Promise<{ page: Page; said: string[] }> {
  const { page, said } = await blank(browser, look);
  await page.goto(`http://127.0.0.1:${port}/login`);
  await page.locator("#name").fill(name);
  await page.locator("#password").fill(password);
  await page.locator("#password").press("Enter");
  await page.waitForSelector('html[data-link="live"]');
  return { page, said };
}

/** Goes to a view within the page, as a link does. */
export async function visit(page: Page, view: string): Promise<void> {
  await page.evaluate((path) => {
    history.pushState(null, "", path);
    dispatchEvent(new PopStateEvent("popstate"));
  }, view);
}
