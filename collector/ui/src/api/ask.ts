/** Questions to the collector. One question is asked once at a time: whoever asks it meanwhile waits for the same answer. */
import type { Me } from "./types";

/** What the collector says is wrong. */
export class Refused extends Error {
  readonly status: number;
  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

const asked = new Map<string, Promise<unknown>>();
let csrf: string | null = null;

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
  if (csrf === null) await whoAmI().catch(() => null);
  const headers: Record<string, string> = csrf === null ? {} : { "x-csrf-token": csrf };
  if (body === undefined) return request<T>(path, { method, headers });
  headers["content-type"] = typeof body === "string" ? "text/csv" : "application/json";
  return request<T>(path, { method, headers, body: typeof body === "string" ? body : JSON.stringify(body) });
}

export async function whoAmI(): Promise<Me> {
  const known = await ask<Me>("/api/v1/me");
  csrf = known.csrf;
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
