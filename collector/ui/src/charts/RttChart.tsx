/** Round trips and loss by steps: the band from shortest to longest, the mean, and loss from the ground up. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { History } from "../api/types";
import { columns, span } from "../feed/history";
import { remInPixels } from "../parts/Virtual";
import { axisTicks } from "../parts/Timeline";
import { language, t, theme, zone } from "../words";
import { signal } from "@preact/signals";

/** Grows when the system turns dark or light: a canvas doesn't see that by itself. */
const shade = signal(0);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (shade.value += 1));

interface Props {
  history: History;
  onMoment: (time: number | null) => void;
}

export function RttChart({ history, onMoment }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const tell = useRef(onMoment);
  tell.current = onMoment;
  const look = `${theme.value} ${language.value} ${zone.value} ${shade.value}`;
  useEffect(() => {
    const node = box.current;
    if (!node) return undefined;
    const chart = draw(node, history, (time) => tell.current(time));
    const observer = new ResizeObserver(() => chart.setSize({ width: node.clientWidth, height: heightPx() }));
    observer.observe(node);
    return () => {
      observer.disconnect();
      chart.destroy();
    };
  }, [history, look]);
  return <div ref={box} class="chart" role="img" aria-label={t().rttChart} />;
}

function heightPx(): number {
  return 15 * remInPixels();
}

function draw(node: HTMLElement, history: History, onMoment: (time: number | null) => void): uPlot {
  const { times, min, avg, max, loss } = columns(history.points, history.from_ms, history.to_ms, history.step_ms);
  const ink = (name: string) => resolved(node, name);
  const [band, mean, lost, faint, line] = [ink("--band"), ink("--average"), ink("--down"), ink("--faint"), ink("--line")];
  const font = `${Math.round(0.8 * remInPixels())}px system-ui, "DejaVu Sans", sans-serif`;
  const axis = { stroke: faint, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font };
  const ceiling = span(max);
  const marks = axisTicks(history.from_ms, history.to_ms, Math.max(2, Math.floor(node.clientWidth / (7 * remInPixels()))));
  const options: uPlot.Options = {
    width: node.clientWidth,
    height: heightPx(),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { time: true, range: [history.from_ms / 1000, history.to_ms / 1000] },
      y: { range: [0, ceiling] },
      loss: { range: [0, 100] },
    },
    axes: [
      // Its own round times: the chart's are those of the browser's zone.
      { ...axis, splits: () => marks.map(({ time }) => time / 1000), values: () => marks.map(({ words }) => words) },
      { ...axis, size: 5.2 * remInPixels(), values: (_, ticks) => ticks.map((tick) => `${tick} ${t().rttAxis}`) },
      { ...axis, scale: "loss", side: 1, size: 4 * remInPixels(), grid: { show: false }, values: (_, ticks) => ticks.map((tick) => `${tick} %`) },
    ],
    series: [
      {},
      { stroke: band, width: 1, points: { show: false } },
      { stroke: band, width: 1, points: { show: false } },
      // A mean between two gaps is a point: a line alone would hide it.
      { stroke: mean, width: 1.5, points: { size: 3, filter: (_, series, isShown) => (isShown ? null : lonely(series === 3 ? avg : [])) } },
      { stroke: lost, fill: lost, width: 0, scale: "loss", paths: uPlot.paths.bars?.({ size: [1, Infinity], align: 0 }), points: { show: false } },
    ],
    bands: [{ series: [2, 1], fill: band }],
    hooks: { setCursor: [(chart) => onMoment(chart.cursor.idx == null ? null : (times[chart.cursor.idx] ?? 0) * 1000)] },
  };
  return new uPlot(options, [times, min, max, avg, loss.map((value) => (value === 0 ? null : value))], node);
}

function lonely(values: (number | null)[]): number[] {
  const result = [];
  for (let at = 0; at < values.length; at += 1) {
    if (values[at] != null && values[at - 1] == null && values[at + 1] == null) result.push(at);
  }
  return result;
}

/** A colour of the style sheet as a canvas understands it. */
function resolved(node: HTMLElement, name: string): string {
  const before = node.style.color;
  node.style.color = `var(${name})`;
  const colour = getComputedStyle(node).color;
  node.style.color = before;
  return colour;
}
