// A chart of lines over rounds or time, with a cross where the pointer is.

import { drawing, el, svg } from "./dom.js";
import { known } from "./words.js";

const HEIGHT = 236;
const LEFT = 44;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 26;

// Round numbers that divide a range into about `parts`.
export function ticks(low, high, parts) {
  const rough = (high - low) / Math.max(1, parts);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((part) => part >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

function digits(marks) {
  if (marks.length < 2) return 2;
  const step = Math.abs(marks[1] - marks[0]);
  for (let places = 0; places < 6; places += 1) {
    if (Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) < 1e-6) return places;
  }
  return 6;
}

// No more points than can be told apart: the mean of those that share a place.
function thin(points, most) {
  if (points.length <= most) return points;
  const size = points.length / most;
  const kept = [];
  for (let at = 0; at < most; at += 1) {
    const some = points.slice(Math.floor(at * size), Math.floor((at + 1) * size));
    kept.push([some[some.length - 1][0], some.reduce((sum, [, y]) => sum + y, 0) / some.length]);
  }
  return kept;
}

// Chart of `lines`: [{name, kind, points: [[x, y], ...], marks?}]. Returns whether there was anything to draw.
export function lines(place, width, { lines: all, label, legend, height = HEIGHT, shownX = String, from = null }) {
  const some = all.filter((line) => line.points.length > 0);
  const points = some.flatMap((line) => line.points);
  if (points.length === 0) {
    place.replaceChildren(el("p", { class: "empty" }, "Nothing yet: the first round is under way."));
    return false;
  }
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  let [low, high] = [Math.min(...ys), Math.max(...ys)];
  const room = Math.max((high - low) * 0.08, Math.abs(high) * 0.01, 1e-6);
  [low, high] = [from ?? low - room, high + room];
  let [first, last] = [Math.min(...xs), Math.max(...xs)];
  if (first === last) [first, last] = [first - 1, last + 1];
  const right = width - RIGHT;
  const bottom = height - BOTTOM;
  const x = (value) => LEFT + ((value - first) / (last - first)) * (right - LEFT);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - TOP);

  const marks = ticks(low, high, height > 180 ? 5 : 3);
  const places = digits(marks);
  const drawn = [];
  for (const mark of marks) {
    drawn.push(svg("line", { class: "gridline", x1: LEFT, x2: right, y1: y(mark), y2: y(mark) }));
    drawn.push(svg("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, mark.toFixed(places)));
  }
  const steps = ticks(first, last, Math.max(2, Math.floor(width / 110))).filter((mark) => Number.isInteger(mark));
  for (const mark of steps) {
    drawn.push(svg("text", { x: x(mark), y: height - 6, "text-anchor": "middle" }, shownX(mark)));
  }
  for (const line of some) {
    const shown = thin(line.points, Math.max(50, Math.floor(width / 2)));
    const path = shown.map(([px, py], at) => `${at === 0 ? "M" : "L"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
    if (shown.length > 1) drawn.push(svg("path", { class: `series ${line.kind}`, d: path }));
    if (line.marks || shown.length === 1) {
      const few = shown.length <= 40 ? shown : shown.slice(-1);
      for (const [px, py] of few) drawn.push(svg("circle", { class: `mark ${line.kind}`, "stroke-dasharray": "none", cx: x(px), cy: y(py), r: 3 }));
    }
  }
  const cross = svg("line", { class: "cross", y1: TOP, y2: bottom, visibility: "hidden" });
  const picture = drawing(width, height, label, ...drawn, cross);
  const tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  place.replaceChildren(picture, tip, ...(legend ? [legendOf(some)] : []));

  picture.addEventListener("pointermove", (event) => {
    const value = first + ((event.offsetX - LEFT) / (right - LEFT)) * (last - first);
    const nearest = xs.reduce((best, at) => (Math.abs(at - value) < Math.abs(best - value) ? at : best), xs[0]);
    const rows = some
      .map((line) => [line, line.points.find(([at]) => at === nearest)])
      .filter(([, point]) => point)
      .map(([line, [, at]]) => el("div", null, `${line.name} `, el("b", null, at.toFixed(3))));
    tip.replaceChildren(el("div", null, `round ${nearest}`), ...rows);
    tip.hidden = false;
    const at = x(nearest);
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    cross.setAttribute("visibility", "visible");
    const wide = tip.offsetWidth;
    tip.style.left = `${at + 14 + wide > width ? Math.max(0, at - 14 - wide) : at + 14}px`;
  });
  picture.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cross.setAttribute("visibility", "hidden");
  });
  return true;
}

function legendOf(all) {
  const key = (kind) => svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("line", { class: `series ${kind}`, x1: 2, x2: 24, y1: 4, y2: 4 }));
  const newest = (points) => points[points.length - 1]?.[1];
  return el("ul", { class: "legend" },
    all.map((line) => el("li", null, key(line.kind), el("span", null, `${line.name} `, el("b", null, known(newest(line.points)) ? newest(line.points).toFixed(3) : "–")))));
}

// One sentence for who cannot see the lines.
export function told(all, unit) {
  const some = all.filter((line) => line.points.length > 0);
  if (some.length === 0) return "Nothing yet.";
  const sentence = ({ name, points }) => {
    const [start, end] = [points[0], points[points.length - 1]];
    return `${name}: ${start[1].toFixed(3)} in round ${start[0]}, ${end[1].toFixed(3)} in round ${end[0]}`;
  };
  return `${unit}. ${some.map(sentence).join("; ")}.`;
}
