// The map of peers: this device in the middle, the others around it, the further out the longer a ping takes.

import { drawing, el, svg, table, tableWhenOpen } from "./dom.js";
import { code, count, known, list, many, short } from "./words.js";

// With more than so many their names would lie on each other; and so many are drawn at all.
const NAMED = 18;
const DRAWN = 120;
const RINGS = [1, 10, 100, 1000];

const direct = (routes) => routes.some((way) => way.route === "direct");

function latency(routes) {
  const all = routes.map((way) => way.latency_ms).filter(known);
  return all.length > 0 ? Math.min(...all) : null;
}

// Each peer once, with its best way.
export function neighbours(status) {
  return (status?.network?.peers ?? []).map(({ peer_id: id, routes }) => {
    const ways = Array.isArray(routes) ? routes : [];
    const relay = direct(ways) ? null : ways.find((way) => way.relay)?.relay ?? null;
    const over = [...new Set(ways.map((way) => [way.over?.toUpperCase(), way.ip && `IPv${way.ip}`].filter(Boolean).join(", ")))].filter(Boolean);
    return { id, relayed: ways.length > 0 && !direct(ways), relay, latency: latency(ways), over: list(over), address: ways[0]?.address };
  });
}

export function words(all) {
  if (all.length === 0) return "Nobody is connected.";
  const relayed = all.filter((peer) => peer.relayed).length;
  const pings = all.map((peer) => peer.latency).filter(known).sort((a, b) => a - b);
  const how = relayed === 0 ? "all directly" : `${count(all.length - relayed)} directly, ${count(relayed)} through a relay`;
  const median = pings.length > 0 ? `; half of them answer within ${count(pings[Math.floor((pings.length - 1) / 2)])} ms` : "";
  return `${many(all.length, "peer")}, ${how}${median}.`;
}

export function map(place, width, all) {
  if (all.length === 0) {
    place.replaceChildren(el("p", { class: "empty" }, "The map is empty until somebody is there."));
    return;
  }
  const height = Math.min(width, 330);
  const [cx, cy] = [width / 2, height / 2];
  const outer = Math.min(width, height) / 2 - 34;
  const inner = 34;
  // From a millisecond or less to a second or more, by the logarithm; unknown is in between.
  const radius = (ping) => inner + (outer - inner) * (known(ping) ? Math.min(1, Math.log10(Math.max(1, ping)) / 3) : 0.6);
  const shown = all.slice(0, DRAWN);
  const places = new Map(shown.map((peer, at) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * at) / shown.length + (shown.length === 2 ? Math.PI / 5 : 0);
    const far = radius(peer.latency);
    return [peer.id, [cx + far * Math.cos(angle), cy + far * Math.sin(angle), angle]];
  }));
  const relays = new Set(shown.map((peer) => peer.relay).filter(Boolean));
  const rings = RINGS.map((ping) => svg("circle", { class: "ring", cx, cy, r: radius(ping) }));
  const named = RINGS.slice(1, 3).map((ping) => svg("text", { class: "halo", x: cx + radius(ping) * 0.38, y: cy - radius(ping) * 0.925 + 4, "text-anchor": "middle" }, `${ping} ms`));
  const spokes = shown.map((peer) => {
    const [x, y] = places.get(peer.id);
    const via = peer.relay && places.get(peer.relay);
    const path = via ? `M${cx} ${cy}L${via[0]} ${via[1]}L${x} ${y}` : `M${cx} ${cy}L${x} ${y}`;
    return svg("path", { class: `spoke${peer.relayed ? " relayed" : ""}`, d: path });
  });
  const dots = shown.flatMap((peer) => {
    const [x, y, angle] = places.get(peer.id);
    const words = `${short(peer.id)}: ${peer.relayed ? "through a relay" : "directly"}${known(peer.latency) ? `, ${peer.latency} ms` : ""}`;
    const dot = svg("circle", { class: `node${relays.has(peer.id) ? " relay" : ""}`, cx: x, cy: y, r: shown.length > 40 ? 4 : 7 }, svg("title", null, words));
    if (shown.length > NAMED) return [dot];
    const right = Math.cos(angle) > 0.2;
    const side = right ? "start" : Math.cos(angle) < -0.2 ? "end" : "middle";
    const by = side === "middle" ? (Math.sin(angle) > 0 ? 22 : -13) : 4;
    const x2 = x + (side === "start" ? 12 : side === "end" ? -12 : 0);
    return [dot, svg("text", { class: "mono halo", x: x2, y: y + by, "text-anchor": side }, short(peer.id))];
  });
  const me = [svg("circle", { class: "node me", cx, cy, r: 11 }), svg("text", { class: "me halo", x: cx, y: cy + 27, "text-anchor": "middle" }, "this device")];
  const key = (kind, text) => el("span", { class: "key" }, svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("line", { class: `spoke ${kind}`, x1: 1, x2: 25, y1: 4, y2: 4 })), text);
  const keys = [key("", "direct"), key("relayed", "through a relay")];
  if (all.length > shown.length) keys.push(el("span", null, `${count(all.length - shown.length)} more are not drawn`));
  place.replaceChildren(
    drawing(width, height, `Map of peers. ${words(all)}`, ...rings, ...spokes, ...named, ...dots, ...me),
    el("div", { class: "scale" }, ...keys),
  );
}

export function peersTable(place, all) {
  tableWhenOpen(place, () => {
    const row = (peer) => [code(peer.id), peer.relayed ? "relayed" : "direct", known(peer.latency) ? `${peer.latency} ms` : "–", peer.over || "–", peer.address ? { code: peer.address } : "–"];
    table(place, "Connected peers", ["Peer", "Way", "Ping", "Over", "Address"], all.slice(0, 500).map(row));
  });
}
