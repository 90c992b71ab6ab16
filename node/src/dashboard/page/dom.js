// Making elements. Text goes in as text, never as markup: names, logs and what a model writes come from others.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A drawing with a text for who cannot see it.
export const drawing = (width, height, label, ...children) =>
  svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);

// Only what has changed: a screen reader and a text selection are left alone otherwise.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A list of terms: [[term, value], ...]; those without a value are left out.
export function facts(node, pairs) {
  const kept = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const key = JSON.stringify(kept.map(([term, value]) => [term, value.code ?? value, value.title]));
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(
    ...kept.map(([term, value]) => {
      const shown = value.code === undefined ? String(value) : el("code", { title: value.title }, value.code);
      return el("div", null, el("dt", null, term), el("dd", null, shown));
    }),
  );
}

// A table with a caption that is only read aloud. A cell {code} is set as code.
export function table(place, caption, columns, rows) {
  if (rows.length === 0) {
    place.replaceChildren(el("p", { class: "none" }, "Nothing yet."));
    return;
  }
  const cell = (value) => (value?.code === undefined ? String(value ?? "–") : el("code", { title: value.title }, value.code));
  place.replaceChildren(
    el("table", null,
      el("caption", { class: "hidden" }, caption),
      el("thead", null, el("tr", null, columns.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", null, rows.map((row) => el("tr", null,
        row.map((value, at) => at === 0 ? el("th", { scope: "row" }, cell(value)) : el("td", null, cell(value))))))),
  );
}

// A table that is only made while somebody looks at it.
export function tableWhenOpen(place, make) {
  const details = place.closest("details");
  place.make = make;
  if (!details.dataset.watched) {
    details.dataset.watched = "1";
    place.tabIndex = 0;
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", details.querySelector("summary").textContent);
    details.addEventListener("toggle", () => details.open && place.make());
  }
  if (details.open) make();
}

// Draws again when there is more or less room, with the width that there is.
export function sized(place, draw) {
  let width = 0;
  let due = false;
  const again = () => {
    due = false;
    if (width > 0) draw(width);
  };
  // At most once a frame, and not while nobody looks.
  const soon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(again);
  };
  new ResizeObserver(() => {
    const now = Math.floor(place.clientWidth);
    if (now !== width) {
      width = now;
      soon();
    }
  }).observe(place);
  return soon;
}
