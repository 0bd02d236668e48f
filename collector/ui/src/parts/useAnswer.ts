/** An answer of the collector as a view's state. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Refused, ask } from "../api/ask";
import { linkState } from "../state";

/** Between two tries of a question that the collector couldn't answer. */
const RETRY_MS = 10_000;

export interface Answer<T> {
  /** What the value, or the error, is an answer to. */
  path: string | null;
  value: T | null;
  error: Error | null;
  isLoading: boolean;
  again: () => void;
}

/** Asks when the path changes, and when told to; null asks nothing. What was known stays until the new answer is there. */
export function useAnswer<T>(path: string | null): Answer<T> {
  const [state, setState] = useState<{ path: string | null; value: T | null; error: Error | null; isLoading: boolean }>({
    path: null, value: null, error: null, isLoading: path !== null,
  });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return;
    let isGone = false;
    setState((before) => ({ ...before, isLoading: true }));
    ask<T>(path)
      .then((value) => !isGone && setState({ path, value, error: null, isLoading: false }))
      .catch((error: Error) => !isGone && setState((before) => ({ ...before, path, error, isLoading: false, value: before.path === path ? before.value : null })));
    return () => {
      isGone = true;
    };
  }, [path, turn]);
  const again = useCallback(() => setTurn((before) => before + 1), []);
  useRetry(state.error, again);
  return { path: state.path, value: state.value, error: state.error, isLoading: state.isLoading, again };
}

/** Asks again what failed: when the connection is back, and now and then while somebody looks. What was refused stays so until then. */
export function useRetry(error: Error | null, again: () => void): void {
  const isLive = linkState.value === "live";
  const wasLive = useRef(isLive);
  useEffect(() => {
    const isBack = isLive && !wasLive.current;
    wasLive.current = isLive;
    if (error === null || !isLive) return undefined;
    if (isBack) again();
    if (error instanceof Refused && error.status < 500 && error.status !== 429) return undefined;
    const timer = setInterval(() => document.hidden || again(), RETRY_MS);
    return () => clearInterval(timer);
  }, [error, isLive]);
}
