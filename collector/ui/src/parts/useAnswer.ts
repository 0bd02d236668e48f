/** An answer of the collector as a view's state. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ask } from "../api/ask";

export interface Answer<T> {
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
  const wanted = useRef(path);
  wanted.current = path;
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
  return { value: state.value, error: state.error, isLoading: state.isLoading, again };
}
