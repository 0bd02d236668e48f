/** What stands above each view: counts, views, the connection, settings. */
import { useEffect, useRef, useState } from "preact/hooks";
import { tell } from "../api/ask";
import { Problem } from "./bits";
import { VIEWS, viewPath } from "../route";
import { board, drawn, filters, go, lostReason, linkState, may, me, monitorPath, now, route, setFilters, shownAge, wall } from "../state";
import { LANGUAGE_NAMES, type Language, duration, format, language, t, theme, zone } from "../words";

/** Views of which the others would see only a refusal. */
const FOR_ADMINS: readonly string[] = ["users", "tokens", "audit"];

export function Head() {
  return (
    <header class="top">
      <a class="skip" href="#content">{t().skip}</a>
      <div class="brand">
        <a href="/" class="brand-name">ward</a>
        <About />
      </div>
      <CountButtons />
      <Views />
      <div class="top-end">
        <LinkState />
        <Settings />
      </div>
    </header>
  );
}

function About() {
  void drawn.value;
  return board.about?.demo ? <span class="tag">{t().demo}</span> : null;
}

const COUNTS = ["total", "up", "down", "unknown", "flapping", "maintenance"] as const;

function CountButtons() {
  void drawn.value;
  const chosen = filters.value.status;
  const isMonitor = route.value.view === "monitor";
  const press = (status: string) => (isMonitor ? setFilters({ status }) : go(monitorPath({ status })));
  return (
    <div class="counts" role="group" aria-label={t().countsLabel}>
      {COUNTS.map((name) => {
        const status = name === "total" ? "" : name;
        const number = board.about === null ? null : board.counts[name];
        return (
          <button
            key={name}
            type="button"
            class={`count ${name} ${number === 0 ? "zero" : ""}`}
            aria-pressed={isMonitor && chosen === status}
            onClick={() => press(status)}
          >
            <b>{number === null ? "–" : format.number(number)}</b> <span>{t().statuses[name]}</span>
          </button>
        );
      })}
    </div>
  );
}

function Views() {
  const { view } = route.value;
  const shown = VIEWS.filter((name) => !FOR_ADMINS.includes(name) || may("people"));
  const nav = useRef<HTMLElement>(null);
  // On a phone the views stand in one line that is wider than the screen.
  useEffect(() => nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [view, shown.length]);
  return (
    <nav ref={nav} class="views" aria-label={t().nav}>
      {shown.map((name) => (
        <a key={name} href={viewPath(name)} aria-current={view === name ? "page" : undefined}>
          {t().views[name]}
        </a>
      ))}
    </nav>
  );
}

function LinkState() {
  const state = linkState.value;
  return (
    <p class="link">
      <span class="link-mark" aria-hidden="true" />
      <span role="status">{t().link[state]}</span>
    </p>
  );
}

/** The connection is lost: said at once, with the age of what is shown. */
export function LostBanner() {
  if (linkState.value !== "lost") return null;
  const reason = lostReason.value;
  const words = { "": "", missed: t().linkMissed, unreadable: t().linkUnreadable };
  const why = typeof reason === "object" ? <span lang="en">{reason.said}</span> : words[reason];
  const at = now.value;
  return (
    <p class="lost" data-testid="lost">
      <strong>{t().link.lost}</strong> {why && <span>({why})</span>}{" "}
      {at !== null && <span class="lost-age">{t().shownIs(format.clock(at), duration(shownAge.value))}</span>}
    </p>
  );
}

export function Notices() {
  void drawn.value;
  const about = board.about;
  if (!about || (!about.simulated && about.notes.length === 0)) return null;
  return (
    <aside class={`notices ${about.simulated ? "simulated" : ""}`}>
      {about.simulated && <strong>{t().simulated}</strong>}
      <ul lang="en">{about.notes.map((note) => <li key={note}>{note}</li>)}</ul>
    </aside>
  );
}

const ZONES = ["Asia/Tbilisi", "UTC", ""];

function Settings() {
  const known = me.value;
  return (
    <details class="settings">
      <summary aria-label={t().settings}><span aria-hidden="true">⚙</span></summary>
      <div class="settings-body">
        {known && <p>{t().signedInAs(known.name, t().roles[known.role] ?? known.role)}</p>}
        <label>
          <span>{t().language}</span>
          <select value={language.value} onChange={(event) => (language.value = event.currentTarget.value as Language)}>
            {(Object.keys(LANGUAGE_NAMES) as Language[]).map((name) => <option key={name} value={name} lang={name}>{LANGUAGE_NAMES[name]}</option>)}
          </select>
        </label>
        <label>
          <span>{t().theme}</span>
          <select value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value)}>
            {(["auto", "light", "dark"] as const).map((name) => <option key={name} value={name}>{t().themes[name]}</option>)}
          </select>
        </label>
        <label>
          <span>{t().zone}</span>
          <select value={zone.value} onChange={(event) => (zone.value = event.currentTarget.value)}>
            {ZONES.map((name) => <option key={name} value={name}>{name || t().zoneBrowser}</option>)}
          </select>
        </label>
        <button type="button" class="choice" onClick={toggleWall}>{wall.value ? t().leaveWall : t().wall}</button>
        {known?.via === "session" && <OwnPassword />}
        <button type="button" class="choice" onClick={() => void signOut()}>{t().signOut}</button>
        <p class="faint">{t().keys}</p>
        <p class="faint">ward {board.about?.version}</p>
      </div>
    </details>
  );
}

/** Whoever changes it signs in anew: all of their sessions end. */
function OwnPassword() {
  const words = t();
  const [problem, setProblem] = useState<unknown>(null);
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const { current, password } = Object.fromEntries(new FormData(event.currentTarget as HTMLFormElement));
    setProblem(null);
    void tell("POST", "/api/v1/me/password", { current, password }).then(() => location.assign("/login")).catch(setProblem);
  };
  return (
    <details>
      <summary>{words.ownPassword}</summary>
      <form class="form" onSubmit={send}>
        <label><span>{words.currentPassword}</span><input name="current" type="password" required autocomplete="current-password" /></label>
        <label><span>{words.password}</span><input name="password" type="password" required autocomplete="new-password" /></label>
        <button class="choice">{words.save}</button>
      </form>
      {problem !== null && <Problem error={problem} />}
    </details>
  );
}

/** Leaves even where the collector can't be told: what is shown is then over at least here. */
async function signOut(): Promise<void> {
  await tell("POST", "/logout").catch(() => null);
  location.assign("/login");
}

export function toggleWall(): void {
  if (document.fullscreenElement) void document.exitFullscreen();
  else void document.documentElement.requestFullscreen().catch(() => (wall.value = !wall.value));
}
