/** Which view an address names. Pure. */

export const VIEWS = ["monitor", "dashboard", "map", "fleet", "reports", "inventory", "users", "tokens", "audit"] as const;
export type ViewName = (typeof VIEWS)[number];

export type Route = { view: ViewName; params: URLSearchParams } | { view: "device" | "branch"; id: string; params: URLSearchParams };

export function parseRoute(path: string, query: string): Route {
  const params = new URLSearchParams(query);
  const [first = "", second = ""] = path.split("/").filter(Boolean);
  if (first === "devices" && second) return { view: "device", id: decoded(second), params };
  if (first === "branches" && second) return { view: "branch", id: decoded(second), params };
  return { view: VIEWS.find((view) => view === first) ?? "monitor", params };
}

export function viewPath(view: ViewName): string {
  return view === "monitor" ? "/" : `/${view}`;
}

export function devicePath(id: string): string {
  return `/devices/${encodeURIComponent(id)}`;
}

export function branchPath(id: string): string {
  return `/branches/${encodeURIComponent(id)}`;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
