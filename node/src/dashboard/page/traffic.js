// What goes over the line, beside what may.

import { drawing, el, facts, svg } from "./dom.js";
import { ticks } from "./lines.js";
import { bytes, known, rate } from "./words.js";

// Two minutes, twice a second at most.
const KEPT = 240;
const SPAN = 120;
const HEIGHT = 200;
const BOTTOM = 20;
const LEFT = 62;

const seen = [];

export function remember(status) {
  const meter = status?.meter;
  if (!meter || !known(meter.sent_a_second)) return;
  const time = known(status.time) ? status.time : Date.now() / 1000;
  // A clock that was put back, or another node's folder.
  if (seen.length > 0 && time < seen[seen.length - 1].time) seen.length = 0;
  seen.push({ time, up: meter.sent_a_second, down: meter.received_a_second });
  while (seen.length > KEPT || time - seen[0].time > SPAN) seen.shift();
}

export function traffic(place, width, status) {
  if (seen.length === 0) {
    place.replaceChildren(el("p", { class: "empty" }, "Nothing has been told yet."));
    return;
  }
  const meter = status?.meter ?? {};
  const end = seen[seen.length - 1].time;
  const used = Math.max(1000, ...seen.flatMap(({ up, down }) => [up, down]));
  // A limit far above what is used would flatten the rest: it is in words below.
  const limits = [["up", meter.upload_limit], ["down", meter.download_limit]].filter(([, limit]) => known(limit) && limit < 4 * used);
  const high = 1.12 * Math.max(used, ...limits.map(([, limit]) => limit));
  const bottom = HEIGHT - BOTTOM;
  const x = (time) => LEFT + (1 - (end - time) / SPAN) * (width - LEFT - 2);
  const y = (value) => bottom - (value / high) * (bottom - 8);
  const drawn = ticks(0, high, 3).flatMap((mark) => [
    svg("line", { class: "gridline", x1: LEFT, x2: width, y1: y(mark), y2: y(mark) }),
    svg("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, rate(mark)),
  ]);
  for (const [kind, limit] of limits) {
    drawn.push(svg("line", { class: "limit", x1: LEFT, x2: width, y1: y(limit), y2: y(limit) }),
      svg("text", { x: width, y: y(limit) - 4, "text-anchor": "end" }, kind === "up" ? "most that may be sent" : "most that may be received"));
  }
  for (const kind of ["down", "up"]) {
    const path = seen.map((at, index) => `${index === 0 ? "M" : "L"}${x(at.time).toFixed(1)} ${y(at[kind]).toFixed(1)}`).join("");
    drawn.push(svg("path", { class: `area ${kind}`, d: `${path}L${x(end).toFixed(1)} ${bottom}L${x(seen[0].time).toFixed(1)} ${bottom}Z` }));
    drawn.push(svg("path", { class: `series ${kind}`, d: path }));
  }
  drawn.push(svg("text", { x: LEFT, y: HEIGHT - 4 }, "2 minutes ago"), svg("text", { x: width, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
  const key = (kind, words) => el("li", null, svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("line", { class: `series ${kind}`, x1: 2, x2: 24, y1: 4, y2: 4 })), words);
  const now = seen[seen.length - 1];
  const label = `Sending ${rate(now.up)}, receiving ${rate(now.down)}; at most ${rate(used)} in the last two minutes.`;
  place.replaceChildren(drawing(width, HEIGHT, label, ...drawn),
    el("ul", { class: "legend" }, key("up", "sent"), key("down", "received")));
}

export function meter(place, status) {
  const meter = status?.meter ?? {};
  const beside = (now, limit) => (known(now) ? `${rate(now)} of ${known(limit) ? rate(limit) : "any"}` : null);
  const both = (up, down) => (known(up) || known(down) ? `${bytes(up)} sent, ${bytes(down)} received` : null);
  facts(place, [
    ["Sending", beside(meter.sent_a_second, meter.upload_limit)],
    ["Receiving", beside(meter.received_a_second, meter.download_limit)],
    ["Today (UTC)", both(meter.sent_today, meter.received_today)],
    ["This run", both(status?.bytes_sent, status?.bytes_received)],
  ]);
}
