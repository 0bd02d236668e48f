// The page's shell: socket, clock readings and DOM. What to show is decided in state.js.
//
// Text from the server enters the page as text nodes and attribute values only, never as markup.

import {
  AGENT_COLUMNS, Board, Clock, LIVE_SPAN_MS, LIVE_STEP_MS, LOST_AFTER_MS, LiveQuality, OLD_FAILURE_MS, agents, backlog,
  causeWords, causesInWords, clipped, duration, filterChoices, filtersFromQuery, fleetWords, grid, intervalAt, isUnfiltered,
  matches, pointAt, queryWithFilters, queryWithView, retryDelay, roundCeiling, roundDuration, runs, statusOf, statusWords, tally,
  timeTicks, troubles, typeWords, viewFromQuery, viewSorted,
} from "./state.js";

const TICK_MS = 1_000;
/** A connection that held this long was a good one: the next retry starts from the shortest wait. */
const GOOD_CONNECTION_MS = 10_000;
const URL_DELAY_MS = 250;
const GLOW_CHECK_MS = 250;
const INTERVAL_ROWS = 200;
/** Rows of the fleet's table: more than anyone reads, and few enough to sort at once. */
const FLEET_ROWS = 500;
const MARKS = { up: "✓", down: "✕", unknown: "?" };
const TYPE_LETTERS = { access_point: "A", "access-point": "A", atm: "T" };

const zone = { timeZone: "Asia/Tbilisi", hourCycle: "h23" };
const dayFormat = new Intl.DateTimeFormat("en-GB", { ...zone, day: "numeric", month: "short" });
const yearFormat = new Intl.DateTimeFormat("en-GB", { ...zone, day: "numeric", month: "short", year: "numeric" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { ...zone, hour: "2-digit", minute: "2-digit" });
const secondFormat = new Intl.DateTimeFormat("en-GB", { ...zone, hour: "2-digit", minute: "2-digit", second: "2-digit" });
const fullFormat = new Intl.DateTimeFormat("en-GB", { ...zone, dateStyle: "medium", timeStyle: "medium" });

/** The day in Tbilisi by the server's clock: times of this day are written without a date. */
let today = "";

const byId = (id) => document.getElementById(id);
const local = () => performance.now();

function startLogin() {
  byId("login-failed").hidden = new URLSearchParams(location.search).get("failed") !== "1";
}

function startMonitor() {
  const board = new Board();
  const clock = new Clock();
  const monitor = new Monitor(board, clock, (message) => link.say(message));
  const link = new Link(monitor);
  link.connect();
  setInterval(() => {
    link.watch();
    monitor.tick();
  }, TICK_MS);
  addEventListener("online", () => link.retryNow());
  document.addEventListener("visibilitychange", () => {
    link.watch();
    monitor.askLive();
  });
}

// ---- the connection ----

/** Keeps one socket open, and reconnects for a new snapshot whenever what is shown may be wrong. */
class Link {
  #monitor;
  #socket = null;
  #retry = null;
  #attempt = 0;
  #heardAt = 0;
  #liveSince = null;
  #watchedAt = { local: local(), wall: Date.now() };

  constructor(monitor) {
    this.#monitor = monitor;
  }

  connect() {
    this.#retry = null;
    this.#heardAt = local();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws/updates`);
    let opened = false;
    socket.onopen = () => (opened = true);
    socket.onmessage = (event) => socket === this.#socket && this.#hear(event.data);
    socket.onclose = () => {
      if (socket !== this.#socket) return;
      // A refused handshake doesn't tell a script its HTTP status, so the API is asked instead.
      if (!opened) leaveIfSignedOut();
      this.#lose("");
    };
    this.#socket = socket;
  }

  retryNow() {
    if (this.#retry === null) return;
    clearTimeout(this.#retry);
    this.connect();
  }

  /** Says something to the server; false while there is nobody to say it to. */
  say(message) {
    if (this.#liveSince === null || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Finds a connection that died without a word. */
  watch() {
    const now = { local: local(), wall: Date.now() };
    const wallAhead = now.wall - this.#watchedAt.wall - (now.local - this.#watchedAt.local);
    this.#watchedAt = now;
    if (this.#retry !== null) return;
    // The monotonic clock may stand still while a laptop sleeps; the wall clock then jumps.
    const slept = wallAhead > LOST_AFTER_MS;
    if (slept || now.local - this.#heardAt > LOST_AFTER_MS) this.#lose("");
  }

  #hear(text) {
    const at = local();
    this.#heardAt = at;
    const message = parsed(text);
    if (message === null) return this.#lose("a message could not be read");

    const outcome = this.#monitor.take(message, at);
    if (outcome.effect === "gap") return this.#lose("an update was missed");
    if (outcome.effect === "closing") return this.#lose(outcome.reason);
    if (message.type === "snapshot") {
      this.#liveSince = at;
      this.#monitor.setLive();
    }
  }

  #lose(reason) {
    const held = this.#liveSince === null ? 0 : local() - this.#liveSince;
    this.#attempt = held > GOOD_CONNECTION_MS ? 0 : this.#attempt + 1;
    this.#liveSince = null;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#monitor.setLost(reason);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), retryDelay(Math.max(0, this.#attempt - 1), Math.random()));
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function leaveIfSignedOut() {
  try {
    const answer = await fetch("/api/v1/dashboard/stats", { cache: "no-store", signal: AbortSignal.timeout(5_000) });
    if (answer.status === 401) location.assign("/login");
  } catch {
    // The collector can't be reached at all; the retry goes on.
  }
}

// ---- the page as a whole ----

/** Draws the board, once per frame at most, touching only what changed. */
class Monitor {
  #board;
  #clock;
  #link = "connecting";
  #lostReason = "";
  /** Local reading at the last message: how old the picture is. */
  #shownAt = null;
  #filters = filtersFromQuery(location.search);
  #view = viewFromQuery(location.search);
  #frame = null;
  #pending = { whole: false, filters: true, devices: new Set(), branches: new Set() };
  #minute = 0;
  #urlTimer = null;
  #glowTimer = null;
  #failures;
  #estate;
  #fleet;
  #dialog;

  constructor(board, clock, say) {
    this.#board = board;
    this.#clock = clock;
    this.#dialog = new DeviceDialog(board, say);
    const open = (id) => this.#dialog.open(id, this.#now());
    this.#failures = new FailureList(open, () => this.#askFrame());
    this.#estate = new Estate(board, open);
    this.#fleet = new FleetTable(board, {
      sort: (key) => this.#look(viewSorted(this.#view, key)),
      choose: (branch) => this.#show({ ...filtersFromQuery(""), branch }),
    });
    this.#listenToFilters();
    this.#listenToViews();
    this.#drawViews();
  }

  /** Applies a message; drawing waits for the next frame. */
  take(message, at) {
    if (typeof message.now === "number") this.#clock.observe(message.now, at);
    const outcome = this.#board.apply(message);
    if (outcome.effect === "gap" || outcome.effect === "closing") return outcome;
    // Until this connection's snapshot has come, the picture is still the one from before it was lost.
    if (this.#link === "live" || message.type === "snapshot") this.#shownAt = at;
    if (outcome.effect === "shown") this.#note(outcome.touched);
    if (message.type === "watched") this.#dialog.measure(message.devices, message.now, this.#now());
    if (message.type === "problem") this.#dialog.refuse(String(message.detail), this.#now());
    return outcome;
  }

  setLive() {
    this.#link = "live";
    this.#drawLink();
    this.#dialog.askAnew();
  }

  askLive() {
    this.#dialog.ask();
  }

  setLost(reason) {
    if (this.#board.about !== null) this.#link = "lost";
    this.#lostReason = reason;
    this.#drawLink();
  }

  tick() {
    this.#drawLink();
    const now = this.#now();
    if (now === null) return;
    this.#turnDay(now);
    this.#failures.tick(now);
    this.#dialog.tick(now);
    this.#estate.tick(now);
    if (this.#view.name === "fleet") this.#fleet.tick(now);
    // Once a minute failures cross the 24 h line without any message about them.
    const minute = Math.floor(now / 60_000);
    if (minute === this.#minute) return;
    this.#minute = minute;
    for (const device of this.#board.devices.values()) if (statusOf(device) === "down") this.#pending.devices.add(device.id);
    // What grows old changes its place in the fleet's table.
    for (const id of this.#board.branches.keys()) this.#pending.branches.add(id);
    this.#askFrame();
  }

  /** At midnight every time written without a date would become wrong. */
  #turnDay(now) {
    const day = yearFormat.format(now);
    if (day === today) return;
    today = day;
    this.#pending.whole = true;
    this.#askFrame();
  }

  /** The server's time; while the connection is lost it stands still, as what happens since is unknown. */
  #now() {
    return this.#clock.now(this.#link === "live" ? local() : (this.#shownAt ?? local()));
  }

  #note(touched) {
    this.#pending.whole ||= touched.whole;
    for (const id of touched.devices) this.#pending.devices.add(id);
    for (const id of touched.branches) this.#pending.branches.add(id);
    if (this.#board.recoveries.size > 0) this.#glowTimer ??= setTimeout(() => this.#endGlow(), GLOW_CHECK_MS);
    this.#askFrame();
  }

  #endGlow() {
    this.#glowTimer = this.#board.recoveries.size > 0 ? setTimeout(() => this.#endGlow(), GLOW_CHECK_MS) : null;
    for (const id of this.#board.endGlow(this.#clock.now(local()))) this.#pending.devices.add(id);
    this.#askFrame();
  }

  #askFrame() {
    this.#frame ??= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = null;
    const now = this.#now();
    if (this.#board.about === null || now === null) return;
    this.#turnDay(now);
    const pending = this.#pending;
    this.#pending = { whole: false, filters: false, devices: new Set(), branches: new Set() };

    if (pending.whole) this.#drawAbout();
    if (pending.whole || pending.filters) drawFilterForm(this.#board, this.#filters, this.#view);
    const counts = tally(this.#board.devices.values());
    drawCounts(counts, this.#filters, this.#view);
    this.#failures.draw(troubles(this.#board, this.#filters, now), counts, this.#filters, now);
    this.#estate.draw(pending, this.#filters, now);
    if (this.#view.name === "fleet") this.#fleet.draw(pending, this.#filters, this.#view, now);
    this.#dialog.draw(pending, now);
  }

  #drawAbout() {
    const { version, simulated, demo, notes } = this.#board.about;
    setText(byId("version"), version ?? "");
    byId("demo").hidden = !demo;
    byId("simulated").hidden = !simulated;
    byId("notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
    byId("banner").hidden = !simulated && notes.length === 0;
    byId("banner").dataset.simulated = simulated;
  }

  #drawLink() {
    document.documentElement.dataset.link = this.#link;
    const words = { connecting: "connecting", live: "live", lost: "reconnecting" }[this.#link];
    const reason = this.#lostReason && this.#link !== "live" ? ` (${this.#lostReason})` : "";
    setText(byId("link-words"), words + reason);
    const age = this.#link === "lost" ? `· shown: ${secondFormat.format(this.#now())}, ${duration(local() - this.#shownAt)} old` : "";
    setText(byId("link-age"), age);
    this.#dialog.setStale(age);
    document.title = this.#title();
  }

  #title() {
    if (this.#link !== "live") return `(${this.#link}) ward`;
    return `${tally(this.#board.devices.values()).down} down · ward`;
  }

  #listenToFilters() {
    const form = byId("filters");
    form.addEventListener("input", () => {
      const chosen = Object.fromEntries(new FormData(form));
      // A branch lies in one region, so choosing another region lets go of it.
      if (chosen.region !== this.#filters.region) chosen.branch = "";
      this.#filter(chosen);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.#filter(filtersFromQuery(""));
    });
    byId("counts").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      // The counts are of devices: a press shows those.
      if (button) this.#show({ ...this.#filters, status: button.dataset.status });
    });
    addEventListener("popstate", () => {
      clearTimeout(this.#urlTimer);
      this.#filters = filtersFromQuery(location.search);
      this.#view = viewFromQuery(location.search);
      this.#drawViews();
    });
  }

  #listenToViews() {
    byId("views").addEventListener("click", (event) => {
      const name = event.target.closest("a")?.dataset.view;
      // With a key held, a link opens elsewhere as links do.
      if (!name || isElsewhere(event)) return;
      event.preventDefault();
      if (name !== this.#view.name) this.#enter({ ...this.#view, name });
    });
    byId("problems-first").addEventListener("click", () => this.#look({ ...this.#view, sort: "", isDescending: false }));
  }

  #filter(filters) {
    this.#filters = filters;
    this.#drawViews();
    // Browsers limit how often the address may be rewritten; typing would reach that limit.
    clearTimeout(this.#urlTimer);
    this.#urlTimer = setTimeout(() => history.replaceState(null, "", this.#address(this.#view)), URL_DELAY_MS);
  }

  /** Devices by these filters, from whatever view. */
  #show(filters) {
    if (this.#view.name === "devices") return this.#filter(filters);
    this.#filters = filters;
    this.#enter({ ...this.#view, name: "devices" });
  }

  /** Goes to another view, from which the browser's way back leads here. */
  #enter(view) {
    clearTimeout(this.#urlTimer);
    history.pushState(null, "", this.#address(view));
    this.#view = view;
    this.#drawViews();
  }

  /** The same view, looked at in another order. */
  #look(view) {
    this.#view = view;
    this.#filter(this.#filters);
  }

  #address(view) {
    return location.pathname + queryWithView(queryWithFilters(location.search, this.#filters), view);
  }

  #drawViews() {
    document.body.dataset.view = this.#view.name;
    for (const link of byId("views").children) {
      const { view: name } = link.dataset;
      link.href = this.#address({ ...this.#view, name });
      if (name === this.#view.name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.#pending.filters = true;
    this.#askFrame();
  }
}

function isElsewhere(event) {
  return event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
}

function drawCounts(counts, filters, view) {
  for (const button of byId("counts").children) {
    const count = counts[button.dataset.count];
    setText(button.firstElementChild, String(count));
    button.dataset.zero = count === 0;
    button.setAttribute("aria-pressed", String(view.name === "devices" && filters.status === button.dataset.status));
  }
}

function drawFilterForm(board, filters, view) {
  const form = byId("filters").elements;
  const menus = filterChoices(board, filters);
  for (const name of ["region", "branch", "type"]) drawMenu(form[name], menus[name], filters[name]);
  form.status.value = filters.status;
  if (form.q.value !== filters.q) form.q.value = filters.q;
  form.q.placeholder = view.name === "fleet" ? "Branch, version, problem" : "Name, address, branch";
  // Agents have neither a type nor a status: those filters are not in force there.
  byId("filters").dataset.active = !isUnfiltered(view.name === "fleet" ? { ...filters, type: "", status: "" } : filters);
}

function drawMenu(menu, choices, value) {
  // An address may name a branch that is gone; the menu must still show what is being filtered by.
  const known = value === "" || choices.some(([id]) => id === value);
  const options = (known ? choices : [...choices, [value, value]]).map(([id, words]) => new Option(words, id));
  menu.replaceChildren(menu.options[0], ...options);
  menu.value = value;
}

// ---- the list of failures ----

class FailureList {
  #open;
  #askFrame;
  #rows = new Map();

  constructor(open, askFrame) {
    this.#open = open;
    this.#askFrame = askFrame;
    for (const id of ["old-fold", "elsewhere-fold"]) byId(id).addEventListener("toggle", askFrame);
  }

  draw({ recent, old, elsewhere }, counts, filters, now) {
    this.#drawRows(byId("recent"), recent, now);
    this.#drawFold("old", old, now, `${count(old.length, "entry", "entries")} older than 24 h`);
    const unknown = elsewhere.reduce((sum, entry) => sum + entry.unknown.length, 0);
    this.#drawFold("elsewhere", elsewhere, now, `${count(unknown, "device")} unknown for other reasons`);
    for (const [key, row] of this.#rows) if (!row.node.isConnected) this.#rows.delete(key);

    byId("trouble-none").hidden = recent.length + old.length > 0;
    setText(byId("trouble-none"), nothingDown(counts, filters));
    setText(byId("trouble-filtered"), isUnfiltered(filters) ? "" : "filtered: other failures may be hidden");
  }

  tick(now) {
    for (const row of this.#rows.values()) drawElapsed(row, now);
  }

  /** A closed fold holds no rows: hundreds of long-dead devices cost nothing until someone looks. */
  #drawFold(name, entries, now, title) {
    const fold = byId(`${name}-fold`);
    fold.hidden = entries.length === 0;
    setText(byId(`${name}-title`), title);
    this.#drawRows(byId(name), fold.open ? entries : [], now);
  }

  #drawRows(list, entries, now) {
    const nodes = entries.map((entry) => {
      const row = this.#row(entry);
      row.entry = entry;
      row.draw(entry);
      drawElapsed(row, now);
      return row.node;
    });
    arrange(list, nodes);
  }

  #row(entry) {
    const known = this.#rows.get(entry.key);
    if (known) return known;
    const row = entry.kind === "unseen" ? unseenRow(this.#open, this.#askFrame) : deviceRow(this.#open);
    this.#rows.set(entry.key, row);
    return row;
  }
}

function nothingDown(counts, filters) {
  if (!isUnfiltered(filters)) return "No failure matches these filters.";
  if (counts.unknown > 0) return `No device is known to be down; ${counts.unknown} are unknown.`;
  return counts.total === 0 ? "There are no devices yet." : "Nothing is down.";
}

function deviceRow(open) {
  const parts = rowParts();
  const button = el("button", { type: "button", class: "entry-body" }, ...Object.values(parts));
  const row = { node: el("li", { class: "entry" }, button), parts };
  button.addEventListener("click", () => open(row.entry.device.id));
  row.draw = ({ kind, device, branch, downHere, devicesHere, recovery }) => {
    row.node.dataset.kind = kind;
    setText(parts.mark, kind === "recovered" ? MARKS.up : MARKS.down);
    setText(parts.name, device.name);
    setText(parts.place, [branch.name, branch.region_name ?? device.region, typeWords(device.device_type)].join(" · "));
    const reason = kind === "recovered" ? recoveryWords(recovery) : reasonWords(device, downHere, devicesHere);
    setText(parts.reason, device.is_flapping ? `flapping · ${reason}` : reason);
    setText(parts.since, kind === "recovered" ? "up again" : sinceWords(device.down_since));
  };
  return row;
}

function rowParts() {
  return {
    mark: el("span", { class: "mark", "aria-hidden": "true" }),
    name: el("span", { class: "name" }),
    elapsed: el("span", { class: "elapsed" }),
    place: el("span", { class: "place" }),
    since: el("span", { class: "since" }),
    reason: el("span", { class: "reason" }),
  };
}

/** What speaks for one device, or for its whole branch, being at fault. */
function reasonWords(device, downHere, devicesHere) {
  const evidence = device.last_ok == null ? "no reply ever seen" : `last reply ${timeWords(device.last_ok)}`;
  const reason = device.cause == null ? evidence : `${causeWords(device.cause)}, ${evidence}`;
  if (downHere < 2) return reason;
  const extent = downHere === devicesHere ? `all ${devicesHere}` : `${downHere} of ${devicesHere}`;
  return `${reason} · ${extent} in this branch down`;
}

function recoveryWords({ at, downSince }) {
  return downSince == null ? "up again" : `up again after ${duration(at - downSince)}`;
}

function unseenRow(open, askFrame) {
  const parts = rowParts();
  const devices = el("ul", { class: "inside" });
  const lines = new Map();
  const fold = el("details", {}, el("summary", { class: "entry-body" }, ...Object.values(parts)), devices);
  const row = { node: el("li", { class: "entry", "data-kind": "unseen" }, fold), parts };
  fold.addEventListener("toggle", askFrame);
  row.draw = (entry) => {
    const { branch, unknown, reason } = entry;
    setText(parts.mark, MARKS.unknown);
    setText(parts.name, `Branch ${branch.name}`);
    setText(parts.place, branch.region_name ?? branch.region ?? "");
    setText(parts.reason, `${unseenWords(reason, entry)} · ${count(unknown.length, "device")} unknown`);
    setText(parts.since, reason === "other" ? "" : sinceWords(entry.at));
    const shown = fold.open ? unknown : [];
    arrange(devices, shown.map((device) => insideLine(lines, device, open)));
  };
  return row;
}

function unseenWords(reason, { branch, at, unknown }) {
  if (reason === "silent") return `no contact since ${at === null ? "an unknown time" : timeWords(at)}`;
  if (reason === "isolated") return "its agent is cut off from the branch's network";
  if (branch.contact === "never") return "its agent has never connected";
  return causesInWords(unknown);
}

function insideLine(lines, device, open) {
  const line = remembered(lines, device.id, (id) => {
    const button = el("button", { type: "button" });
    button.addEventListener("click", () => open(id));
    return el("li", {}, button);
  });
  setText(line.firstElementChild, `${device.name} · ${statusWords(device)}`);
  return line;
}

function drawElapsed({ parts, entry }, now) {
  const ticking = entry.kind !== "recovered" && entry.at !== null;
  setText(parts.elapsed, ticking ? duration(now - entry.at) : "");
}

// ---- the grid of branches ----

class Estate {
  #board;
  #open;
  #filters = null;
  #cells = new Map();
  #cards = new Map();
  #regions = new Map();
  /** The one cell that the Tab key stops at; the arrow keys go on from there. */
  #tabStop = null;

  constructor(board, open) {
    this.#board = board;
    this.#open = open;
    byId("grid").addEventListener("click", (event) => this.#click(event));
    byId("grid").addEventListener("keydown", (event) => this.#move(event));
    byId("grid").addEventListener("focusin", (event) => this.#stopAt(event.target.closest(".cell")));
  }

  draw(pending, filters, now) {
    this.#filters = filters;
    if (pending.whole) return this.#drawWhole(now);
    const devices = pending.filters ? this.#cells.keys() : pending.devices;
    const branches = new Set(pending.filters ? this.#cards.keys() : pending.branches);
    for (const id of devices) {
      const device = this.#board.devices.get(id);
      if (!device) continue;
      this.#drawCell(device, now);
      branches.add(device.branch);
    }
    for (const id of branches) this.#drawCard(id, now);
    this.#drawTotals();
  }

  /** A backlog grows without a message saying so. */
  tick(now) {
    for (const { id, waiting } of this.#board.branches.values()) if (waiting > 0) this.#drawCard(id, now);
  }

  #drawWhole(now) {
    const regions = grid(this.#board);
    const sections = regions.map((region) => {
      const section = remembered(this.#regions, region.id, regionSection);
      setText(section.name, region.name);
      arrange(section.list, region.branches.map((place) => this.#placeCard(place, now)));
      section.branches = region.branches.map((place) => place.id);
      return section.node;
    });
    arrange(byId("grid"), sections);
    forget(this.#cells, (id) => this.#board.devices.has(id));
    forget(this.#cards, (id) => regions.some((region) => region.branches.some((place) => place.id === id)));
    forget(this.#regions, (id) => regions.some((region) => region.id === id));
    for (const id of this.#cards.keys()) this.#drawCard(id, now);
    this.#drawTotals();
    this.#stopAt(this.#tabStop?.isConnected ? this.#tabStop : byId("grid").querySelector(".cell"));
  }

  #placeCard({ id, branch, devices }, now) {
    const card = remembered(this.#cards, id, branchCard);
    card.devices = devices.map((device) => device.id);
    setText(card.name, branch.name);
    const cells = devices.map((device) => {
      this.#drawCell(device, now);
      return this.#cells.get(device.id);
    });
    arrange(card.cells, cells);
    return card.node;
  }

  #drawCell(device, now) {
    const cell = remembered(this.#cells, device.id, deviceCell);
    const status = statusOf(device);
    const label = cellWords(device);
    cell.dataset.status = status;
    cell.dataset.old = status === "down" && device.down_since != null && now - device.down_since > OLD_FAILURE_MS;
    cell.dataset.flapping = device.is_flapping === true;
    cell.dataset.glow = this.#board.recoveries.has(device.id);
    setText(cell, status === "up" ? typeLetter(device.device_type) : MARKS[status]);
    if (cell.title !== label) {
      cell.title = label;
      cell.setAttribute("aria-label", label);
    }
    cell.hidden = !matches(device, this.#board.branches.get(device.branch), this.#filters);
  }

  #drawCard(id, now) {
    const card = this.#cards.get(id);
    if (!card) return;
    const branch = this.#board.branches.get(id) ?? { id, name: id };
    const note = branchNote(branch, now);
    card.node.dataset.contact = branch.contact ?? "never";
    setText(card.note, note);
    card.note.hidden = note === "";
    card.simulated.hidden = branch.simulated !== true;
    card.volatile.hidden = branch.buffer_volatile !== true;
    const shown = card.devices.some((device) => !this.#cells.get(device)?.hidden);
    // A branch without devices has no cell to be found by, and shows only when nothing is filtered.
    card.node.hidden = card.devices.length > 0 ? !shown : !isUnfiltered(this.#filters);
  }

  #drawTotals() {
    for (const section of this.#regions.values()) {
      const cards = section.branches.map((id) => this.#cards.get(id));
      section.node.hidden = cards.every((card) => card.node.hidden);
      const devices = cards.flatMap((card) => card.devices.map((id) => this.#board.devices.get(id)));
      const { total, down, unknown } = tally(devices.filter(Boolean));
      setText(section.counts, `${count(cards.length, "branch", "branches")} · ${count(total, "device")}`);
      setText(section.down, down > 0 ? `${down} down` : "");
      setText(section.unknown, unknown > 0 ? `${unknown} unknown` : "");
    }
    const hidden = [...this.#cells.values()].filter((cell) => cell.hidden).length;
    const shown = this.#cells.size - hidden;
    setText(byId("estate-filtered"), isUnfiltered(this.#filters) ? "" : `${shown} of ${this.#cells.size} devices`);
    byId("grid-none").hidden = shown > 0 || isUnfiltered(this.#filters);
    if (this.#tabStop === null || this.#tabStop.hidden) this.#stopAt(byId("grid").querySelector(".cell:not([hidden])"));
  }

  #click(event) {
    const cell = event.target.closest(".cell");
    if (cell) this.#open(cell.dataset.id);
  }

  #stopAt(cell) {
    if (!cell || cell === this.#tabStop) return;
    if (this.#tabStop) this.#tabStop.tabIndex = -1;
    cell.tabIndex = 0;
    this.#tabStop = cell;
  }

  /** Left and right go from device to device, up and down from branch to branch. */
  #move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    const cell = event.target.closest(".cell");
    if (!step || !cell) return;
    event.preventDefault();
    const shown = [...byId("grid").querySelectorAll(".card:not([hidden]) .cell:not([hidden])")];
    const firsts = shown.filter((other, i) => i === 0 || other.parentNode !== shown[i - 1].parentNode);
    const byBranch = event.key === "ArrowUp" || event.key === "ArrowDown";
    const at = byBranch ? firsts.findIndex((first) => first.parentNode === cell.parentNode) : shown.indexOf(cell);
    (byBranch ? firsts : shown)[at + step]?.focus();
  }
}

function regionSection() {
  const name = el("span", {});
  const counts = el("span", { class: "faint" });
  const down = el("span", { class: "down-count" });
  const unknown = el("span", { class: "unknown-count" });
  const list = el("div", { class: "cards" });
  return { node: el("section", { class: "region" }, el("h3", {}, name, counts, down, unknown), list), name, counts, down, unknown, list };
}

function branchCard() {
  const name = el("h4", {});
  const note = el("p", { class: "card-note" });
  const simulated = el("span", { class: "tag", title: "The agent of this branch answers its own probes" }, "simulated");
  const volatile = el("span", { class: "tag", title: "The agent's buffer is in memory: a power cut loses what waits in it" }, "buffer in memory");
  const cells = el("div", { class: "cells" });
  const node = el("div", { class: "card" }, el("div", { class: "card-head" }, name, simulated, volatile), note, cells);
  return { node, name, note, simulated, volatile, cells };
}

function deviceCell(id) {
  return el("button", { type: "button", class: "cell", tabindex: "-1", "data-id": id });
}

function cellWords(device) {
  const since = device.down_since ?? device.since;
  const from = since == null ? "" : ` since ${timeWords(since)}`;
  const flapping = device.is_flapping ? ", flapping" : "";
  return `${device.name} (${typeWords(device.device_type)}): ${statusWords(device)}${from}${flapping}`;
}

function typeLetter(type) {
  return TYPE_LETTERS[type] ?? typeWords(type).charAt(0);
}

function branchNote(branch, now) {
  if (branch.contact === "silent") {
    return `no contact since ${branch.last_contact == null ? "an unknown time" : timeWords(branch.last_contact)}`;
  }
  if (branch.contact !== "connected") return "its agent has never connected";
  const behind = backlog(branch, now);
  return behind === null ? "" : `${duration(behind)} behind, ${count(branch.waiting, "entry", "entries")} waiting`;
}

// ---- the fleet of agents ----

/** One row for each branch's agent. It is drawn only while it is looked at. */
class FleetTable {
  #board;
  #choose;
  #rows = new Map();
  #heads = new Map();

  constructor(board, { sort, choose }) {
    this.#board = board;
    this.#choose = choose;
    for (const column of AGENT_COLUMNS) this.#heads.set(column.key, columnHead(column, sort));
    byId("fleet-groups").replaceChildren(...groupHeads());
    byId("fleet-heads").replaceChildren(...this.#heads.values());
    byId("fleet-columns").replaceChildren(...columnGroups());
  }

  draw(pending, filters, view, now) {
    if (!pending.whole && !pending.filters && pending.branches.size === 0) return;
    this.#drawHeads(view);
    const found = agents(this.#board, filters, view, now);
    const shown = found.slice(0, FLEET_ROWS).map((agent) => {
      const row = remembered(this.#rows, agent.branch.id, (id) => agentRow(id, this.#choose));
      drawAgent(row, agent, now);
      return row.node;
    });
    arrange(byId("fleet-rows"), shown);
    forget(this.#rows, (id) => this.#board.branches.has(id));
    const total = this.#board.branches.size;
    setText(byId("fleet-words"), fleetWords(this.#board, now) + shownWords(shown.length, found.length, total));
    byId("fleet-none").hidden = found.length > 0;
    setText(byId("fleet-none"), total === 0 ? "There are no branches yet." : "No agent matches these filters.");
  }

  /** Ages grow without a message saying so. */
  tick(now) {
    for (const row of this.#rows.values()) {
      if (row.node.isConnected && row.agent.problems.length > 0) drawAgent(row, row.agent, now);
    }
  }

  #drawHeads(view) {
    for (const [key, head] of this.#heads) {
      const order = view.isDescending ? "descending" : "ascending";
      if (key === view.sort) head.setAttribute("aria-sort", order);
      else head.removeAttribute("aria-sort");
    }
    byId("problems-first").setAttribute("aria-pressed", String(view.sort === ""));
  }
}

function shownWords(shown, found, total) {
  if (shown < found) return ` · the first ${shown} of ${found} shown`;
  return found < total ? ` · ${found} shown` : "";
}

function columnHead({ key, head, hint, isNumber }, sort) {
  const button = el("button", { type: "button", title: `${hint}. A press sorts by it.` }, head);
  button.addEventListener("click", () => sort(key));
  return el("th", { scope: "col", "data-number": isNumber === true }, button);
}

function columnRuns() {
  const groups = [];
  for (const { group } of AGENT_COLUMNS) {
    if (groups.at(-1)?.group === group) groups.at(-1).span += 1;
    else groups.push({ group, span: 1 });
  }
  return groups;
}

function groupHeads() {
  return columnRuns().map(({ group, span }) => el("th", { scope: "colgroup", colspan: span }, group));
}

function columnGroups() {
  return AGENT_COLUMNS.map(({ key }) => el("col", { "data-column": key }));
}

function agentRow(id, choose) {
  const link = el("a", { href: queryWithFilters("", { branch: id }) });
  link.addEventListener("click", (event) => {
    if (isElsewhere(event)) return;
    event.preventDefault();
    choose(id);
  });
  const said = el("span", { class: "fleet-said" });
  const cells = new Map();
  const nodes = AGENT_COLUMNS.map(({ key, isNumber }) => {
    const text = key === "branch" ? link : el("span", {});
    const aside = key === "branch" ? said : el("span", { class: "fleet-aside" });
    const attributes = { "data-number": isNumber === true };
    const node = key === "branch" ? el("th", { ...attributes, scope: "row" }, link, said) : el("td", attributes, text, aside);
    cells.set(key, { node, text, aside });
    return node;
  });
  return { node: el("tr", {}, ...nodes), cells, said, agent: null };
}

function drawAgent(row, agent, now) {
  const { branch, problems } = agent;
  row.agent = agent;
  setData(row.node, "contact", branch.contact ?? "never");
  setData(row.node, "trouble", String(problems.length > 0));
  for (const { key, cell } of AGENT_COLUMNS) {
    const { node, text, aside } = row.cells.get(key);
    const { text: words, aside: more = "", tone = "", hint = "" } = cell(branch, now);
    setText(text, words);
    if (aside !== row.said) setText(aside, more === "" ? "" : ` ${more}`);
    setData(node, "tone", tone);
    if (node.title !== hint) node.title = hint;
  }
  setText(row.said, problems.map(({ words }) => words).join(" · "));
}

// ---- the device dialog ----

class DeviceDialog {
  #board;
  #say;
  #id = null;
  /** What the agent tells while the device is looked at. */
  #live = null;
  #range = "24h";
  #history = null;
  #request = null;
  #cursor = null;
  #facts = new Map();

  constructor(board, say) {
    this.#board = board;
    this.#say = say;
    const dialog = byId("device");
    dialog.addEventListener("close", () => this.#close());
    // A press outside the box lands on the dialog itself, as its content fills it.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    byId("ranges").addEventListener("click", (event) => this.#choose(event.target.dataset.range));
    const charts = byId("charts");
    charts.addEventListener("pointermove", (event) => this.#point(event));
    charts.addEventListener("pointerleave", () => this.#setCursor(null));
    charts.addEventListener("keydown", (event) => this.#step(event));
    addEventListener("resize", () => this.#drawCharts());
  }

  open(id, now) {
    this.#id = id;
    this.#live = new LiveQuality(now);
    this.#drawFacts(now);
    byId("device").showModal();
    this.#drawLive(now);
    this.ask();
    this.#load();
  }

  /** Asks for the device's live quality, when it is time and somebody looks. */
  ask() {
    const isLookedAt = this.#board.devices.has(this.#id) && !document.hidden;
    if (!isLookedAt || !this.#live.isDue(local())) return;
    if (this.#say({ type: "watch", devices: [this.#id] })) this.#live.asked(local());
  }

  /** A new connection knows nothing of what was asked before. */
  askAnew() {
    this.#live?.forgetAsking();
    this.ask();
  }

  measure(devices, at, now) {
    const watched = devices.find(({ id }) => id === this.#id);
    if (!watched) return;
    this.#live.add(watched, at);
    this.#drawLive(now);
  }

  /** The server refused what was said to it: that is always the asking for live quality. */
  refuse(detail, now) {
    if (this.#id === null) return;
    this.#live.problem = detail;
    this.#drawLive(now);
  }

  draw(pending, now) {
    if (this.#id === null) return;
    const device = this.#board.devices.get(this.#id);
    if (pending.whole || pending.devices.has(this.#id) || pending.branches.has(device?.branch)) this.#drawFacts(now);
  }

  tick(now) {
    if (this.#id === null) return;
    this.#drawFacts(now);
    this.#drawLive(now);
    this.ask();
  }

  setStale(age) {
    byId("device-stale").hidden = age === "";
    setText(byId("device-stale"), age === "" ? "" : `Connection lost ${age}.`);
  }

  #close() {
    this.#request?.abort();
    this.#id = null;
    this.#live = null;
    this.#history = null;
  }

  #drawLive(now) {
    const branch = this.#board.branches.get(this.#board.devices.get(this.#id)?.branch);
    setText(byId("live-words"), this.#live.words(branch, now));
    const live = byId("live");
    live.replaceChildren(liveChart(this.#live.points, now, live.clientWidth, remInPixels()));
  }

  #drawFacts(now) {
    const device = this.#board.devices.get(this.#id);
    if (!device) {
      byId("device-stale").hidden = false;
      return setText(byId("device-stale"), "This device has been removed.");
    }
    const branch = this.#board.branches.get(device.branch);
    const place = [branch?.name ?? device.branch, branch?.region_name ?? device.region, typeWords(device.device_type)];
    setText(byId("device-name"), device.name);
    setText(byId("device-place"), place.join(" · "));
    byId("device").dataset.status = statusOf(device);
    const facts = deviceFacts(device, branch, now);
    const nodes = facts.map(([term, text]) => {
      const fact = remembered(this.#facts, term, factNode);
      setText(fact.text, text);
      return fact.node;
    });
    arrange(byId("device-facts"), nodes);
  }

  #choose(range) {
    if (!range) return;
    this.#range = range;
    this.#load();
  }

  async #load() {
    this.#request?.abort();
    const request = (this.#request = new AbortController());
    this.#history = null;
    this.#drawHistory("Reading the history…");
    try {
      const history = await fetchHistory(this.#id, this.#range, request.signal);
      if (request.signal.aborted) return;
      this.#history = history;
      this.#drawHistory(history.points.length + history.intervals.length === 0 ? "Nothing was recorded in this range." : "");
    } catch (error) {
      if (!request.signal.aborted) this.#drawHistory(`The history could not be read: ${error.message}`);
    }
  }

  #drawHistory(problem) {
    for (const button of byId("ranges").children) {
      button.setAttribute("aria-pressed", String(button.dataset.range === this.#range));
    }
    setText(byId("history-problem"), problem);
    byId("history-problem").hidden = problem === "";
    setText(byId("history-as-of"), this.#history ? historySource(this.#history) : "");
    byId("charts").hidden = this.#history === null;
    byId("intervals-fold").hidden = this.#history === null;
    this.#cursor = null;
    this.#drawCharts();
    if (this.#history) drawIntervalTable(this.#history);
  }

  #drawCharts() {
    const charts = byId("charts");
    if (this.#history === null) return charts.replaceChildren();
    charts.replaceChildren(...drawnCharts(this.#history, charts.clientWidth, remInPixels()));
    this.#setCursor(this.#cursor);
  }

  #point(event) {
    const area = this.#area();
    if (!area) return;
    const x = event.clientX - byId("charts").getBoundingClientRect().left;
    const share = (x - area.left) / (area.right - area.left);
    this.#setCursor(share < 0 || share > 1 ? null : area.from + share * (area.to - area.from));
  }

  #step(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.#history) return;
    event.preventDefault();
    const { from_ms, to_ms, step_ms } = this.#history;
    const next = (this.#cursor ?? to_ms) + step * step_ms;
    this.#setCursor(Math.min(to_ms - 1, Math.max(from_ms, next)));
  }

  #area() {
    return this.#history && chartArea(this.#history, byId("charts").clientWidth, remInPixels());
  }

  #setCursor(time) {
    this.#cursor = time;
    const area = this.#area();
    for (const line of byId("charts").querySelectorAll(".cursor")) {
      line.setAttribute("visibility", time === null ? "hidden" : "visible");
      if (time !== null) line.setAttribute("transform", `translate(${area.x(time)} 0)`);
    }
    const hint = "Point at the chart, or use the arrow keys, to read a moment.";
    setText(byId("readout"), !this.#history ? "" : time === null ? hint : momentWords(this.#history, time));
  }
}

function deviceFacts(device, branch, now) {
  const down = statusOf(device) === "down";
  const since = down ? device.down_since : device.since;
  return [
    ["Status", statusWords(device) + (device.is_flapping ? ", flapping" : "")],
    [down ? "Down since" : "Since", fullWords(since)],
    [down ? "Down for" : "For", since == null ? "not known" : duration(now - since)],
    ["Last reply", fullWords(device.last_ok)],
    ["Round trip", device.rtt_ms == null ? "no reply, no figure" : `${figure(device.rtt_ms)} ms`],
    ["Packet loss", device.packet_loss == null ? "not known" : `${figure(device.packet_loss)} %`],
    ["Address", device.ip ?? "not known"],
    ["Id", device.id],
    ["Agent", agentWords(branch, now)],
    ["Observed through", observedWords(branch)],
  ];
}

/** The feed doesn't speak of a branch that is well, so what it last said of this moment is only a part of the truth. */
function observedWords(branch) {
  const isFresh = branch?.contact === "connected" && branch.silent_after_ms != null;
  return isFresh ? `less than ${roundDuration(branch.silent_after_ms)} ago` : fullWords(branch?.observed_through);
}

function agentWords(branch, now) {
  if (!branch) return "not known";
  return [branch.contact === "connected" ? "connected" : "", branchNote(branch, now)].filter(Boolean).join(", ");
}

function factNode(term) {
  const text = el("dd", {});
  return { text, node: el("div", { "data-term": term }, el("dt", {}, term), text) };
}

async function fetchHistory(id, range, signal) {
  const answer = await fetch(`/api/v1/devices/${encodeURIComponent(id)}/history?time_range=${range}`, { signal, cache: "no-store" });
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  const history = await answer.json();
  return { ...history, intervals: clipped(history.intervals, history.from_ms, history.to_ms) };
}

function historySource({ to_ms, step_ms, source }) {
  const store = source === "victoria_metrics" ? "VictoriaMetrics" : "the collector's own store";
  return `to ${timeWords(to_ms)}, in steps of ${roundDuration(step_ms)}, from ${store}`;
}

function momentWords({ intervals, points, step_ms }, time) {
  const interval = intervalAt(intervals, time);
  const point = pointAt(points, step_ms, time);
  const status = interval ? statusWords(interval) : "no record";
  return `${fullWords(time)} · ${status} · ${point ? pointWords(point) : "no RTT"}`;
}

function pointWords({ rtt_min_ms, rtt_avg_ms, rtt_max_ms, packet_loss }) {
  const rtt = rtt_avg_ms == null ? "no RTT" : `RTT ${figure(rtt_min_ms)} – ${figure(rtt_avg_ms)} – ${figure(rtt_max_ms)} ms (min – avg – max)`;
  return packet_loss == null ? rtt : `${rtt}, loss ${figure(packet_loss)} %`;
}

function drawIntervalTable({ intervals }) {
  const newest = intervals.toReversed().slice(0, INTERVAL_ROWS);
  const limit = intervals.length > INTERVAL_ROWS ? `, the newest ${INTERVAL_ROWS} shown` : "";
  setText(byId("intervals-title"), `${count(intervals.length, "interval")} in this range${limit}`);
  const rows = newest.map((interval) => {
    const { from_ms, to_ms } = interval;
    const cells = [fullWords(from_ms), fullWords(to_ms), duration(to_ms - from_ms), statusWords(interval)];
    return el("tr", { "data-status": statusOf(interval) }, ...cells.map((text) => el("td", {}, text)));
  });
  byId("intervals").replaceChildren(...rows);
}

// ---- charts ----

/** Where time lies horizontally: the same for all the charts of a device, so that they read as one. */
function chartArea({ from_ms, to_ms }, width, rem) {
  const left = 4 * rem;
  const right = width - 0.5 * rem;
  return { from: from_ms, to: to_ms, left, right, x: (time) => left + ((time - from_ms) / (to_ms - from_ms)) * (right - left) };
}

function drawnCharts(history, width, rem) {
  const area = chartArea(history, width, rem);
  return [statusChart(history, area, width, rem), rttChart(history, area, width, rem)];
}

function statusChart({ intervals }, area, width, rem) {
  const height = 1.5 * rem;
  const bars = intervals.map((interval) => {
    // A short outage must not vanish between two pixels.
    const wide = Math.max(1, area.x(interval.to_ms) - area.x(interval.from_ms));
    return svg("rect", { class: `bar ${statusOf(interval)}`, x: area.x(interval.from_ms), y: 0, width: wide, height });
  });
  // What is down is drawn last, so that a long "up" beside it can't cover it.
  const order = ["unknown", "up", "down"];
  bars.sort((a, b) => order.findIndex((s) => a.classList.contains(s)) - order.findIndex((s) => b.classList.contains(s)));
  const ground = svg("rect", { class: "ground", x: area.left, y: 0, width: area.right - area.left, height });
  return chart(width, height, "Status over time", ground, ...bars, label("status", area.left, height / 2, "end"), cursor(height));
}

function rttChart({ points, step_ms, from_ms, to_ms }, area, width, rem) {
  const [top, bottom, height] = [0.6 * rem, 9.5 * rem, 11 * rem];
  const ceiling = roundCeiling(points.reduce((most, point) => Math.max(most, point.rtt_max_ms ?? 0), 0));
  const y = (ms) => bottom - (ms / ceiling) * (bottom - top);
  const levels = [0, ceiling / 2, ceiling].flatMap((ms) => [
    svg("line", { class: "level", x1: area.left, x2: area.right, y1: y(ms), y2: y(ms) }),
    label(`${figure(ms)} ms`, area.left, y(ms), "end"),
  ]);
  const ticks = timeTicks(from_ms, to_ms, Math.max(2, Math.floor(width / (5 * rem)))).flatMap((time) => [
    svg("line", { class: "level", x1: area.x(time), x2: area.x(time), y1: top, y2: bottom }),
    tickLabel(tickWords(time, to_ms - from_ms), area.x(time), bottom + 0.9 * rem, width),
  ]);
  const middle = (point) => area.x(point.t_ms + step_ms / 2);
  const bands = runs(points, step_ms).flatMap((run) => rttRun(run, middle, y));
  const losses = points.filter((point) => point.packet_loss > 0).map((point) => {
    const high = Math.max(2, (point.packet_loss / 100) * 2 * rem);
    return svg("rect", { class: "loss", x: area.x(point.t_ms), y: bottom - high, width: Math.max(1, area.x(point.t_ms + step_ms) - area.x(point.t_ms)), height: high });
  });
  return chart(width, height, "Round-trip time and packet loss over time", ...levels, ...ticks, ...losses, ...bands, cursor(bottom));
}

/** The last two minutes. What was lost stands as a bar from the ground, what nobody measured as a gap. */
function liveChart(points, now, width, rem) {
  const [top, bottom, height] = [0.5 * rem, 3.4 * rem, 4.7 * rem];
  const area = chartArea({ from_ms: now - LIVE_SPAN_MS, to_ms: now }, width, rem);
  const most = points.reduce((sofar, point) => Math.max(sofar, point.rtt_max_ms ?? 0), 0);
  const ceiling = roundCeiling(most);
  const y = (ms) => bottom - (ms / ceiling) * (bottom - top);
  const shown = points.filter((point) => point.t_ms > area.from);
  const x = (point) => Math.min(area.right, area.x(point.t_ms));
  const levels = (most > 0 ? [0, ceiling] : [0]).flatMap((ms) => [
    svg("line", { class: "level", x1: area.left, x2: area.right, y1: y(ms), y2: y(ms) }),
    label(`${figure(ms)} ms`, area.left, y(ms), "end"),
  ]);
  const losses = shown.filter((point) => point.lost > 0).map((point) => {
    const wide = Math.max(3, area.x(now) - area.x(now - Math.min(point.span_ms, LIVE_STEP_MS)));
    const high = (point.lost / point.sent) * (bottom - top);
    return svg("rect", { class: "loss", x: Math.max(area.left, x(point) - wide), y: bottom - high, width: wide, height: high });
  });
  const lines = runs(shown, LIVE_STEP_MS).flatMap((run) => rttRun(run, x, y));
  const foot = bottom + 0.8 * rem;
  const ends = [label("2 min ago", area.left + 6, foot, "start"), label("now", area.right + 6, foot, "end")];
  const title = "Round-trip time and lost probes of the last two minutes";
  return chart(width, height, title, ...levels, ...losses, ...lines, ...ends);
}

function rttRun(run, x, y) {
  if (run.length === 1) {
    // One point has no width as a line; it is drawn as its min-max stroke.
    const at = x(run[0]);
    return [svg("line", { class: "lone", x1: at, x2: at, y1: y(run[0].rtt_min_ms) + 1, y2: y(run[0].rtt_max_ms) - 1 })];
  }
  const at = (key) => (point) => `${x(point).toFixed(1)},${y(point[key]).toFixed(1)}`;
  const upper = run.map(at("rtt_max_ms"));
  const lower = run.map(at("rtt_min_ms")).reverse();
  return [
    svg("polygon", { class: "band", points: [...upper, ...lower].join(" ") }),
    svg("polyline", { class: "average", points: run.map(at("rtt_avg_ms")).join(" ") }),
  ];
}

function chart(width, height, title, ...parts) {
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title }, ...parts);
}

function label(text, x, y, anchor) {
  const node = svg("text", { x: anchor === "end" ? x - 6 : x, y, "text-anchor": anchor, "dominant-baseline": "central" });
  node.textContent = text;
  return node;
}

/** A label at the right edge ends at its tick, as its second half would be cut off. */
function tickLabel(text, x, y, width) {
  const atEdge = width - x < text.length * 4.5;
  return label(text, atEdge ? x + 6 : x, y, atEdge ? "end" : "middle");
}

function cursor(height) {
  return svg("line", { class: "cursor", x1: 0, x2: 0, y1: 0, y2: height, visibility: "hidden" });
}

function tickWords(time, spanMs) {
  return spanMs > 2 * 86_400_000 ? dayFormat.format(time) : minuteFormat.format(time);
}

function remInPixels() {
  return parseFloat(getComputedStyle(document.documentElement).fontSize);
}

// ---- words and nodes ----

/** A time of day, with the day unless it is today in Tbilisi. */
function timeWords(time) {
  return yearFormat.format(time) === today ? secondFormat.format(time) : `${dayFormat.format(time)} ${minuteFormat.format(time)}`;
}

function fullWords(time) {
  return time == null ? "not known" : fullFormat.format(time);
}

function sinceWords(time) {
  return time == null ? "since an unknown time" : `since ${timeWords(time)}`;
}

function figure(number) {
  return number == null ? "–" : String(Number(number.toPrecision(3)));
}

function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Writes only what differs, so that a tick over unchanged text costs no layout. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setData(node, name, value) {
  if (node.dataset[name] !== value) node.dataset[name] = value;
}

function remembered(map, key, make) {
  if (!map.has(key)) map.set(key, make(key));
  return map.get(key);
}

function forget(map, isKept) {
  for (const key of map.keys()) if (!isKept(key)) map.delete(key);
}

/** Makes `nodes` the children of `parent`, moving only those out of place: focus and scroll survive. */
function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const node of nodes) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}

// Classes exist only once their definition has run, so the start comes last.
if (document.body.dataset.page === "login") startLogin();
else startMonitor();
