/** A list of which only the rows in the window exist: ten thousand cost what forty do. */
import type { ComponentChildren, RefObject } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { offsets, visible } from "../feed/window";

/** Rows that are kept beyond the window's edges, in pixels: fast scrolling shows no holes. */
const BEYOND_PX = 400;

interface Props<Row> {
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  /** In rem. */
  heightOf: (row: Row) => number;
  render: (row: Row, at: number) => ComponentChildren;
  label?: string;
  role?: "list" | "rowgroup" | "presentation";
  class?: string;
}

export function Virtual<Row>({ rows, keyOf, heightOf, render, label, role = "list", class: name }: Props<Row>) {
  const list = useRef<HTMLDivElement>(null);
  const rem = useRem();
  const tops = useMemo(() => offsets(rows.map((row) => Math.round(heightOf(row) * rem))), [rows, rem, heightOf]);
  const [first, end] = useWindow(list, tops);
  const shown = [];
  const itemRole = role === "list" ? "listitem" : undefined;
  for (let at = first; at < end; at += 1) {
    const row = rows[at] as Row;
    const top = tops[at] as number;
    shown.push(
      <div
        key={keyOf(row)}
        class="virtual-row"
        role={itemRole}
        aria-setsize={itemRole && rows.length}
        aria-posinset={itemRole && at + 1}
        style={{ top: `${top}px`, height: `${(tops[at + 1] as number) - top}px` }}
      >
        {render(row, at)}
      </div>,
    );
  }
  return (
    <div ref={list} class={`virtual ${name ?? ""}`} role={rows.length > 0 ? role : "presentation"} aria-label={rows.length > 0 ? label : undefined} style={{ height: `${tops[rows.length] ?? 0}px` }}>
      {shown}
    </div>
  );
}

/** Follows whatever scrolls, a pane or the page: only where the list stands in the window counts. */
function useWindow(list: RefObject<HTMLElement>, tops: Float64Array): [number, number] {
  const [range, setRange] = useState<[number, number]>([0, 0]);
  const place = useRef<() => void>(() => undefined);
  // Where the list begins in the window. To ask for it makes the browser lay out all that has just changed, so new rows don't.
  const begin = useRef<number | null>(null);
  place.current = () => {
    const node = list.current;
    if (!node) return;
    const top = (begin.current ??= node.getBoundingClientRect().top);
    const next = visible(tops, -top - BEYOND_PX, innerHeight - top + BEYOND_PX);
    setRange((before) => (before[0] === next[0] && before[1] === next[1] ? before : next));
  };
  useLayoutEffect(() => {
    const moved = () => {
      begin.current = null;
      place.current();
    };
    document.addEventListener("scroll", moved, { capture: true, passive: true });
    addEventListener("resize", moved);
    const observer = new ResizeObserver(moved);
    if (list.current?.parentElement) observer.observe(list.current.parentElement);
    // Where the page itself scrolls, what stands above the list moves it.
    observer.observe(document.body);
    return () => {
      document.removeEventListener("scroll", moved, { capture: true });
      removeEventListener("resize", moved);
      observer.disconnect();
    };
  }, []);
  useLayoutEffect(() => place.current(), [tops]);
  // Rows may have gone since the range was taken.
  return [Math.min(range[0], tops.length - 1), Math.min(range[1], tops.length - 1)];
}

/** The root's font size in pixels: it grows with the wall. */
export function useRem(): number {
  const [rem, setRem] = useState(remInPixels);
  useLayoutEffect(() => {
    const measure = () => setRem(remInPixels());
    addEventListener("resize", measure);
    return () => removeEventListener("resize", measure);
  }, []);
  return rem;
}

export function remInPixels(): number {
  return Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
}

/** As in the style sheet: what stands side by side on a screen stands one under the other on a phone. */
const narrow = matchMedia("(max-width: 61.99rem)");

/** Whether this is a phone's width. */
export function useNarrow(): boolean {
  const [isNarrow, setNarrow] = useState(narrow.matches);
  useLayoutEffect(() => {
    const measure = () => setNarrow(narrow.matches);
    narrow.addEventListener("change", measure);
    return () => narrow.removeEventListener("change", measure);
  }, []);
  return isNarrow;
}

/** The width of an element, as it changes. */
export function useWidth(of: RefObject<HTMLElement>): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const node = of.current;
    if (!node) return undefined;
    const measure = () => setWidth(node.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(node);
    return () => observer.disconnect();
  }, []);
  return width;
}
