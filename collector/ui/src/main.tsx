/** The page: the frame around the views, and the keys that work in all of them. */
import { type ComponentType, render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Head, LostBanner, Notices, toggleWall } from "./parts/Head";
import { VIEWS, viewPath } from "./route";
import { go, linkState, route, setParam, start, wall } from "./state";
import { t } from "./words";
import { Monitor } from "./views/Monitor";
import "./style.css";

/** Views beside the monitor come when somebody goes there: the wall screen never loads a chart. */
const LATER: Record<string, () => Promise<{ default: ComponentType<{ id: string }> }>> = {
  device: () => import("./views/Device"),
  branch: () => import("./views/Branch"),
  fleet: () => import("./views/Fleet"),
  dashboard: () => import("./views/Dashboard"),
  map: () => import("./views/Map"),
  reports: () => import("./views/Reports"),
  inventory: () => import("./views/Inventory"),
  users: () => import("./views/Users"),
  tokens: () => import("./views/Tokens"),
  audit: () => import("./views/Audit"),
};

function Page() {
  const at = route.value;
  const content = useRef<HTMLElement>(null);
  const place = `${at.view} ${"id" in at ? at.id : ""}`;
  const before = useRef(place);
  // Whoever uses keys or a screen reader goes on where the new view begins.
  useEffect(() => {
    if (before.current !== place) content.current?.focus({ preventScroll: true });
    before.current = place;
  }, [place]);
  return (
    <div class={`page view-${at.view} ${wall.value ? "wall" : ""}`}>
      <Head />
      <LostBanner />
      <Notices />
      <main ref={content} id="content" tabIndex={-1} aria-busy={linkState.value === "connecting"}>
        {at.view === "monitor" ? <Monitor /> : <Later name={at.view} id={"id" in at ? at.id : ""} />}
      </main>
    </div>
  );
}

function Later({ name, id }: { name: string; id: string }) {
  const [loaded, setLoaded] = useState<{ name: string; View: ComponentType<{ id: string }> } | null>(null);
  const [failed, setFailed] = useState("");
  useEffect(() => {
    let isGone = false;
    setFailed("");
    LATER[name]?.()
      .then((module) => !isGone && setLoaded({ name, View: module.default }))
      // A newer collector has other files: what this page still names is gone.
      .catch((error: unknown) => !isGone && setFailed(String(error)));
    return () => {
      isGone = true;
    };
  }, [name]);
  if (failed) return <p class="none" role="alert">{t().viewFailed} <span lang="en">{failed}</span> <button type="button" class="choice" onClick={() => location.reload()}>{t().refresh}</button></p>;
  if (loaded?.name !== name) return null;
  const { View } = loaded;
  return <View key={id} id={id} />;
}

/** Keys for those who don't take the mouse. None works while something is typed. */
function pressed(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  const isTyping = target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
  if (isTyping) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const view = VIEWS[Number(event.key) - 1];
  if (event.key === "/") document.querySelector<HTMLInputElement>("input[type=search]")?.focus();
  else if (event.key === "f") toggleWall();
  else if (view) go(viewPath(view));
  else if (route.value.view === "monitor" && "grt".includes(event.key)) setParam("show", { g: "", r: "regions", t: "table" }[event.key] ?? "");
  else return;
  event.preventDefault();
}

addEventListener("keydown", pressed);
start();
render(<Page />, document.getElementById("page") as HTMLElement);
