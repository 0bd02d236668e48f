/** Questions to the collector. One question is asked once at a time: whoever asks it meanwhile waits for the same answer. */
import { signal } from "@preact/signals";
import type { Me } from "./types";

/** Who is signed in, as of the newest word on it. */
export const me = signal<Me | null>(null);

/** What the collector says is wrong. */
export class Refused extends Error {
  readonly status: number;
  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

const asked = new Map<string, Promise<unknown>>();

/** Reads something. Leaves for the login where nobody is signed in any more. */
export function ask<T>(path: string): Promise<T> {
  const underWay = asked.get(path);
  if (underWay) return underWay as Promise<T>;
  const answer = request<T>(path, { method: "GET" }).finally(() => asked.delete(path));
  asked.set(path, answer);
  return answer;
}

/** Changes something. */
export async function tell<T>(method: "POST" | "PATCH" | "DELETE", path: string, body?: object | string): Promise<T> {
  if (me.peek() === null) await whoAmI().catch(() => null);
  const csrf = me.peek()?.csrf ?? null;
  try {
    return await change<T>(method, path, body, csrf);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 403) throw error;
    // Somebody has signed in anew in another tab: what this one shows for itself is then that of a session that is over.
    const known = await whoAmI().catch(() => null);
    if (known === null || known.csrf === csrf) throw error;
    return change<T>(method, path, body, known.csrf);
  }
}

function change<T>(method: string, path: string, body: object | string | undefined, csrf: string | null): Promise<T> {
  const headers: Record<string, string> = csrf === null ? {} : { "x-csrf-token": csrf };
  if (body === undefined) return request<T>(path, { method, headers });
  headers["content-type"] = typeof body === "string" ? "text/csv" : "application/json";
  return request<T>(path, { method, headers, body: typeof body === "string" ? body : JSON.stringify(body) });
}

export async function whoAmI(): Promise<Me> {
  const known = await ask<Me>("/api/v1/me");
  me.value = known;
  return known;
}

async function request<T>(path: string, options: RequestInit): Promise<T> {
  const answer = await fetch(path, { ...options, credentials: "same-origin" });
  if (answer.status === 401) location.assign("/login");
  const isJson = /json/.test(answer.headers.get("content-type") ?? "");
  if (!answer.ok) {
    const problem = isJson ? ((await answer.json().catch(() => null)) as { detail?: string; field?: string } | null) : null;
    const words = problem?.detail ?? `HTTP ${answer.status}`;
    throw new Refused(answer.status, problem?.field ? `${problem.field}: ${words}` : words);
  }
  return (isJson ? await answer.json() : await answer.text()) as T;
}
