// Charts of cells: who contributed to which round, and which parts of the model moved.

import { drawing, el, svg, table, tableWhenOpen } from "./dom.js";
import { parts } from "./story.js";
import { code, count, fixed, known, short } from "./words.js";

// Rows of authors at most; a swarm may have thousands.
const AUTHORS = 12;
const BARS = 44;
// What a column takes at least; all together fill the width.
const NARROW = 15;

function columns(width, left) {
  const many = Math.max(4, Math.floor((width - left) / NARROW));
  return [many, (width - left) / many];
}

function axis(rounds, left, step, y) {
  // A number every so many columns that they do not touch.
  const every = Math.max(1, Math.ceil(52 / step));
  return rounds
    .map((round, at) => [round, at])
    .filter(([, at]) => (rounds.length - 1 - at) % every === 0)
    .map(([round, at]) => svg("text", { x: left + at * step + step / 2, y, "text-anchor": "middle" }, String(round)));
}

// Who contributed, newest round last.
export function deltas(place, width, story, me) {
  const all = story.of("folded");
  if (all.length === 0) {
    place.replaceChildren(el("p", { class: "empty" }, "Nothing yet: a round is folded one round later."));
    return;
  }
  const left = width < 480 ? 66 : 86;
  const [room, step] = columns(width, left);
  const shown = all.slice(-room);
  const authors = rank(shown, me);
  const rows = authors.slice(0, AUTHORS);
  const rest = authors.length - rows.length;
  const most = Math.max(1, ...shown.map(([, folded]) => counted(folded)));
  const drawn = [svg("text", { x: 0, y: 12 }, `most ${count(most)}`)];
  const top = BARS + 10;
  for (const [at, [round, folded]] of shown.entries()) {
    const x = left + at * step;
    const height = Math.max(1, (counted(folded) / most) * BARS);
    drawn.push(svg("rect", { class: "bar", x: x + 1.5, y: BARS - height, width: step - 3, height, rx: 1.5 },
      svg("title", null, `round ${round}: ${counted(folded)} deltas count`)));
    const by = new Map((folded.authors ?? []).map((author) => [author.author, author]));
    for (const [row, author] of rows.entries()) {
      const said = by.get(author);
      const y = top + row * NARROW;
      const who = author === me ? "me" : short(author);
      if (!said) {
        drawn.push(svg("rect", { class: "cell absent", x: x + 6, y: y + 6, width: 3, height: 3, rx: 1.5 }));
      } else {
        const title = svg("title", null, `round ${round}, ${who}: ${said.counts ? "counts" : "left out"}, says ${count(said.tokens)} tokens, loss ${fixed(said.loss_before, 3)} to ${fixed(said.loss_after, 3)}`);
        const kind = !said.counts ? "out" : author === me ? "me" : "";
        const less = said.counts ? 0 : 0.75;
        drawn.push(svg("rect", { class: `cell ${kind}`, x: x + 1.5 + less, y: y + 1.5 + less, width: step - 3 - 2 * less, height: NARROW - 3 - 2 * less, rx: 2.5 }, title));
      }
    }
  }
  for (const [row, author] of rows.entries()) {
    drawn.push(svg("text", { class: author === me ? "me" : "mono", x: 0, y: top + row * NARROW + 11 }, author === me ? "this device" : short(author)));
  }
  const bottom = top + rows.length * NARROW;
  const rounds = shown.map(([round]) => round);
  drawn.push(...axis(rounds, left, step, bottom + 15));
  const [last, newest] = shown[shown.length - 1];
  const out = (newest.authors ?? []).filter((author) => !author.counts).length;
  const label = `Deltas from round ${rounds[0]} to ${last}, of ${authors.length} authors. In round ${last}, ${counted(newest)} count and ${out} were left out.`;
  const key = (kind, words) => {
    const inset = kind === "out" ? 1.75 : 1;
    return el("span", { class: "key" }, svg("svg", { width: 13, height: 13, "aria-hidden": "true" }, svg("rect", { class: `cell ${kind}`, x: inset, y: inset, width: 13 - 2 * inset, height: 13 - 2 * inset, rx: 2.5 })), words);
  };
  const keys = [key("me", "of this device"), key("", "of another, counts"), key("out", "left out")];
  if (rest > 0) keys.push(el("span", null, `${count(rest)} more authors are not shown`));
  place.replaceChildren(drawing(width, bottom + 20, label, ...drawn), el("div", { class: "scale" }, ...keys));
}

// This device first, then who has contributed most.
function rank(shown, me) {
  const times = new Map();
  for (const [, folded] of shown) {
    for (const { author } of folded.authors ?? []) times.set(author, (times.get(author) ?? 0) + 1);
  }
  const order = ([a, most], [b, more]) => (b === me) - (a === me) || more - most || (a < b ? -1 : 1);
  return [...times].sort(order).map(([author]) => author);
}

const counted = (folded) => (folded.authors ?? []).filter((author) => author.counts).length;

export function deltasTable(place, story, me) {
  tableWhenOpen(place, () => {
    const rows = story.of("folded", 30).reverse().flatMap(([round, folded]) =>
      (folded.authors ?? []).slice(0, 50).map((author) => [
        String(round), author.author === me ? "this device" : code(author.author), author.counts ? "counts" : "left out",
        count(author.tokens), fixed(author.loss_before, 3), fixed(author.loss_after, 3),
      ]));
    table(place, "Deltas of the last 30 rounds; tokens and losses are what their authors say", ["Round", "Author", "Delta", "Tokens, claimed", "Loss before", "Loss after"], rows.slice(0, 400));
  });
}

// How far each part moved, a column a round. Brightness goes with the logarithm.
export function heat(place, width, story) {
  const all = story.of("folded", 400).map(([round, folded]) => [round, parts(folded)]).filter(([, moved]) => moved.size > 0);
  if (all.length === 0) {
    place.replaceChildren(el("p", { class: "empty" }, "Nothing yet: a round is folded one round later."));
    return;
  }
  const left = width < 480 ? 92 : 128;
  const [room, step] = columns(width, left);
  const shown = all.slice(-room);
  const names = [...shown[shown.length - 1][1].keys()];
  const values = shown.flatMap(([, moved]) => [...moved.values()]).filter((value) => value > 0);
  const high = Math.max(...values, 1e-12);
  // Three orders of magnitude at most: less is as good as still.
  const low = Math.max(Math.min(...values, high), high / 1000);
  const range = Math.log(high / low) || 1;
  const row = Math.max(9, Math.min(24, Math.floor(340 / names.length)));
  const drawn = [];
  for (const [line, name] of names.entries()) {
    const y = line * row;
    if (row >= 11 || line % Math.ceil(11 / row) === 0) drawn.push(svg("text", { x: 0, y: y + row / 2 + 4 }, clip(name, left)));
    for (const [at, [round, moved]] of shown.entries()) {
      const value = moved.get(name);
      const box = { x: left + at * step + 0.75, y: y + 0.75, width: step - 1.5, height: row - 1.5, rx: 2 };
      if (!known(value) || value <= 0) {
        drawn.push(svg("rect", { class: "heat back", ...box }));
        continue;
      }
      const bright = 0.08 + 0.92 * Math.max(0, Math.min(1, Math.log(value / low) / range));
      drawn.push(svg("rect", { class: "heat", ...box, "fill-opacity": bright.toFixed(3) }, svg("title", null, `round ${round}, ${name}: ${value.toExponential(2)}`)));
    }
  }
  const bottom = names.length * row;
  const rounds = shown.map(([round]) => round);
  drawn.push(...axis(rounds, left, step, bottom + 15));
  const newest = [...shown[shown.length - 1][1]].sort((a, b) => b[1] - a[1]);
  const label = `How far ${names.length} parts of the model moved, rounds ${rounds[0]} to ${rounds[rounds.length - 1]}. Most in the last: ${newest.slice(0, 3).map(([name, value]) => `${name} ${value.toExponential(1)}`).join(", ")}; least: ${newest[newest.length - 1][0]}.`;
  const steps = [0.08, 0.31, 0.54, 0.77, 1].map((bright, at) => svg("rect", { class: "heat", x: at * 22, y: 0, width: 21, height: 11, rx: 2, "fill-opacity": bright }));
  place.replaceChildren(
    drawing(width, bottom + 20, label, ...drawn),
    el("div", { class: "scale" }, low.toExponential(1), svg("svg", { width: 110, height: 11, "aria-hidden": "true" }, ...steps), high.toExponential(1)),
  );
}

const clip = (name, room) => {
  const most = Math.floor(room / 6.2);
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
};

export function heatTable(place, story) {
  tableWhenOpen(place, () => {
    const newest = story.last?.heat ?? [];
    const rows = newest.slice(0, 2000).map(({ name, rms }) => [{ code: String(name) }, known(rms) ? rms.toExponential(3) : "–"]);
    table(place, `Root mean square of the change of every tensor in round ${story.last?.round}`, ["Tensor", "Moved by"], rows);
  });
}
