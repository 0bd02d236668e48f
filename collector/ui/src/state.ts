/** What the page knows and what somebody chose, as signals: views read them and are drawn anew when they change. */
import { batch, computed, effect, signal } from "@preact/signals";
import type { Message, Watch, Watched } from "./api/types";
import { me, whoAmI } from "./api/ask";
import { Board, type Effect, GLOW_MS } from "./feed/board";
import { Clock, type Reading, elapsed } from "./feed/clock";
import { type Filters, NO_FILTERS, filtersFrom, writeFilters } from "./feed/filters";
import { type Right, mayDo } from "./feed/rights";
import { Link, type Listener, type Reason } from "./feed/link";
import { troubles } from "./feed/troubles";
import { type Route, parseRoute, viewPath } from "./route";
import { checkZones, foldMs, language, store, t, theme, zone } from "./words";

const TICK_MS = 1_000;
/** Browsers limit how often the address may be rewritten; typing would reach that limit. */
const ADDRESS_DELAY_MS = 250;

export { me };
export const board = new Board();
const clock = new Clock();

/** Grows when the board looks different, once a frame at most. Who reads it is drawn again. */
export const drawn = signal(0);
export const linkState = signal<"connecting" | "live" | "lost">("connecting");
export const lostReason = signal<Reason>("");
/** The server's time. While the connection is lost it stands still, as what happens since is unknown. */
export const now = signal<number | null>(null);
/** How old what is shown is while the connection is lost, in ms. */
export const shownAge = signal(0);
export const route = signal<Route>(parseRoute(location.pathname, location.search));
export const filters = signal<Filters>(filtersFrom(route.value.params));
export const wall = signal(false);
/** The newest word of a watched device, and the server's refusals: for whoever watches. */
export const watched = signal<{ devices: Watched[]; now: number } | null>(null);
export const refusal = signal<{ detail: string } | null>(null);

export type Show = "grid" | "regions" | "table";
export const show = computed<Show>(() => {
  const named = route.value.params.get("show");
  return named === "regions" || named === "table" ? named : "grid";
});

/** Local readings at the last message: how old the picture is. */
let shownAt: Reading | null = null;
let frame: number | null = null;
let glowTimer: ReturnType<typeof setTimeout> | null = null;

const listener: Listener = {
  take(message: Message, local: number): Effect {
    if ("now" in message) clock.observe(message.now, local);
    const outcome = board.apply(message);
    if (outcome.effect === "gap" || outcome.effect === "closing") return outcome;
    // Until this connection's snapshot has come, the picture is still the one from before it was lost.
    if (linkState.value === "live" || message.type === "snapshot") shownAt = { local, wall: Date.now() };
    if (outcome.effect === "shown") askFrame();
    if (message.type === "snapshot") noteVersion();
    if (message.type === "watched") watched.value = { devices: message.devices, now: message.now };
    if (message.type === "problem") refusal.value = { detail: message.detail };
    return outcome;
  },
  known: () => (board.epoch === null ? null : `${board.epoch}.${board.seq}`),
  live() {
    // Whoever is signed in may be somebody else since, or may see other things.
    if (linkState.value === "lost" || me.value === null) learnWho();
    linkState.value = "live";
    lostReason.value = "";
    tick();
  },
  lost(reason: Reason) {
    if (board.about !== null) linkState.value = "lost";
    lostReason.value = reason;
    tick();
  },
  refused: learnWho,
};

/** Leaves for the login where nobody is signed in any more. */
function learnWho(): void {
  void whoAmI().catch(() => null);
}

const link = new Link(listener);

/** The collector's version when the page came from it. */
let version: string | null = null;
/** The page is that of a collector that is gone. */
let isOutdated = false;
const WALL_KEY = "ward.wall";

function noteVersion(): void {
  version ??= board.about?.version ?? null;
  isOutdated = version !== null && board.about?.version !== version;
}

/** Comes anew from a newer collector, but never while somebody fills in a form or reads what they have asked for. */
function renew(): void {
  if (!isOutdated || linkState.value !== "live") return;
  const { activeElement } = document;
  const isTyping = activeElement instanceof HTMLInputElement || activeElement instanceof HTMLSelectElement || activeElement instanceof HTMLTextAreaElement;
  if (isTyping || document.querySelector(".editor, .import[open], .settings[open], .probe-results, .secret") !== null) return;
  // A browser leaves its full screen for that; the wall's own look stays.
  if (wall.value) sessionStorage.setItem(WALL_KEY, "1");
  flushAddress();
  location.reload();
}

/** Whether whoever is signed in may change such things. */
export function may(right: Right): boolean {
  return mayDo(me.value, right);
}

export function say(message: Watch): boolean {
  return link.say(message);
}

/** To the second: what ticks is drawn once a second, however often there are changes. */
function serverNow(): number | null {
  const at = clock.now(linkState.value === "live" ? performance.now() : (shownAt?.local ?? performance.now()));
  return at === null ? null : Math.floor(at / TICK_MS) * TICK_MS;
}

function tick(): void {
  batch(() => {
    now.value = serverNow();
    shownAge.value = linkState.value === "lost" && shownAt !== null ? elapsed(shownAt, { local: performance.now(), wall: Date.now() }) : 0;
  });
}

function askFrame(): void {
  if (board.recoveries.size > 0) glowTimer ??= setTimeout(endGlow, GLOW_MS / 10);
  // The first picture waits for no frame.
  if (drawn.value === 0) return draw();
  // A hidden tab has no frames, and nothing that anybody could see.
  frame ??= requestAnimationFrame(() => {
    frame = null;
    draw();
  });
}

function draw(): void {
  batch(() => {
    now.value = serverNow();
    drawn.value += 1;
  });
}

function endGlow(): void {
  glowTimer = null;
  const at = clock.now(performance.now());
  if (at !== null && board.endGlow(at)) askFrame();
  else if (board.recoveries.size > 0) glowTimer = setTimeout(endGlow, GLOW_MS / 10);
}

/** Changes when devices or branches come, go, move or are renamed, and not with each change of a device. */
export const structure = computed(() => {
  void drawn.value;
  return board.structure;
});

/** The minute in which failures are sorted into new and old: a list must not be made anew each second for that. */
const minute = computed(() => Math.floor((now.value ?? 0) / 60_000));

export const failures = computed(() => {
  void drawn.value;
  void minute.value;
  return troubles(board, filters.value, now.peek() ?? 0, foldMs.value);
});

// ---- the address ----

let addressTimer: ReturnType<typeof setTimeout> | null = null;

/** Goes to an address of the page, from which the browser's way back leads here. */
export function go(address: string): void {
  flushAddress();
  history.pushState(null, "", address);
  followAddress();
  scrollTo(0, 0);
}

function followAddress(): void {
  batch(() => {
    route.value = parseRoute(location.pathname, location.search);
    if (isFiltered(route.value.view)) filters.value = filtersFrom(route.value.params);
  });
}

/** Views whose address has the filters. */
function isFiltered(view: Route["view"]): boolean {
  return view === "monitor" || view === "fleet" || view === "inventory";
}

export function setFilters(next: Partial<Filters>): void {
  const changed = { ...filters.value, ...next };
  // A branch lies in one region, so choosing another region lets go of it.
  if (next.region !== undefined && next.region !== filters.value.region) changed.branch = next.branch ?? "";
  filters.value = changed;
  rewriteAddress();
}

export function clearFilters(): void {
  filters.value = NO_FILTERS;
  rewriteAddress();
}

/** Changes a parameter of the address; empty takes it away. */
export function setParam(name: string, value: string): void {
  const params = new URLSearchParams(route.value.params);
  if (value) params.set(name, value);
  else params.delete(name);
  route.value = { ...route.value, params };
  rewriteAddress();
}

function rewriteAddress(): void {
  if (addressTimer !== null) clearTimeout(addressTimer);
  addressTimer = setTimeout(flushAddress, ADDRESS_DELAY_MS);
}

function flushAddress(): void {
  if (addressTimer === null) return;
  clearTimeout(addressTimer);
  addressTimer = null;
  const { view, params } = route.value;
  const query = new URLSearchParams(params);
  if (isFiltered(view)) writeFilters(query, filters.value);
  history.replaceState(null, "", location.pathname + queryText(query));
}

/** The monitor with these filters instead of those in force. */
export function monitorPath(chosen: Partial<Filters>): string {
  const params = new URLSearchParams();
  writeFilters(params, { ...NO_FILTERS, ...chosen });
  return viewPath("monitor") + queryText(params);
}

function queryText(params: URLSearchParams): string {
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

/** Links within the page don't load it anew. With a key held they open elsewhere, as links do. */
function followLink(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const anchor = event.target instanceof Element ? event.target.closest("a[href]") : null;
  if (!anchor || ["target", "download", "data-outside"].some((name) => anchor.hasAttribute(name))) return;
  // A drawing's links know their address as text only.
  const { origin, pathname, search, hash } = new URL(anchor.getAttribute("href") ?? "", location.href);
  if (origin !== location.origin || hash) return;
  event.preventDefault();
  go(pathname + search);
}

// ---- the start ----

/** Once a second at most: a browser tells its window of it. */
const title = computed(() => {
  void now.value;
  const about = subject();
  return linkState.value === "live" ? t().titleDown(board.counts.down, about) : t().titleLost(t().link[linkState.value], about);
});

/** What the view is about: tabs and a browser's history are told apart by it. */
function subject(): string {
  const at = route.value;
  switch (at.view) {
    case "monitor":
      return "";
    case "device":
      return board.devices.get(at.id)?.name ?? "";
    case "branch": {
      const place = board.places.get(at.id);
      return place ? t().branchName(place.branch.name) : "";
    }
    default:
      return t().views[at.view];
  }
}

export function start(): void {
  link.connect();
  setInterval(() => {
    link.watch();
    tick();
    renew();
  }, TICK_MS);
  if (sessionStorage.getItem(WALL_KEY) !== null) wall.value = true;
  sessionStorage.removeItem(WALL_KEY);
  addEventListener("online", () => link.retryNow());
  addEventListener("offline", () => link.offline());
  addEventListener("popstate", followAddress);
  addEventListener("click", followLink);
  document.addEventListener("visibilitychange", () => {
    link.watch();
    tick();
  });
  document.addEventListener("fullscreenchange", () => (wall.value = document.fullscreenElement !== null));
  // Long after the first picture.
  setTimeout(() => checkZones(now.peek() ?? Date.now()), 5_000);
  learnWho();
  effect(() => {
    document.documentElement.lang = language.value;
    store("ward.language", language.value);
  });
  effect(() => {
    document.documentElement.dataset["theme"] = theme.value;
    store("ward.theme", theme.value);
  });
  effect(() => store("ward.zone", zone.value));
  effect(() => store("ward.fold", String(foldMs.value)));
  // Each is written when it changes, not with each frame: a browser looks through all its styles for that.
  effect(() => {
    document.documentElement.dataset["link"] = linkState.value;
  });
  effect(() => {
    document.title = title.value;
  });
}
