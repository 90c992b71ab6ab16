// The log's last lines.

import { el } from "./dom.js";

const MOST = 200;
// What tracing writes: a time, a level, what there is to say.
const LINE = /^(\d{4}-\d\d-\d\dT[\d:.]+Z?)\s+(TRACE|DEBUG|INFO|WARN|ERROR)\s+(.*)$/;

function shown(line) {
  const found = LINE.exec(line);
  if (!found) return el("div", null, el("span", null, line));
  const [, time, level, words] = found;
  const at = new Date(time);
  const clock = Number.isNaN(at.getTime()) ? time : at.toLocaleTimeString("en", { hour12: false });
  const loud = level === "WARN" || level === "ERROR" ? `${level.toLowerCase()}: ` : "";
  return el("div", { class: level }, el("time", { datetime: time, title: time }, clock), el("span", null, loud + words));
}

// Adds lines; whoever has scrolled up stays there.
export function log(place, lines, anew) {
  const below = place.scrollHeight - place.scrollTop - place.clientHeight < 24;
  const made = lines.slice(-MOST).map(shown);
  if (anew) place.replaceChildren(...made);
  else place.append(...made);
  while (place.childElementCount > MOST) place.firstElementChild.remove();
  if (below || anew) place.scrollTop = place.scrollHeight;
}
