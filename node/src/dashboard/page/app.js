// The page: what comes in goes to the panels that show it.

import { deltas, deltasTable, heat, heatTable } from "./cells.js";
import { $, drawing, el, facts, say, sized, svg, table, tableWhenOpen } from "./dom.js";
import { lines, told } from "./lines.js";
import { live } from "./live.js";
import { log } from "./log.js";
import { map, neighbours, peersTable, words } from "./peers.js";
import { Story, claimed } from "./story.js";
import { meter, remember, traffic } from "./traffic.js";
import { tryModel } from "./try.js";
import { bytes, code, count, fixed, known, many, span } from "./words.js";

// A running node writes its status twice a second.
const STALE = 15;

const story = new Story();
let status = null;
let age = 0;
let shownRounds = 0;

const me = () => status?.peer_id ?? story.started?.peer_id;

// What the page is of: the status knows, and before the first one the node's last start.
const about = (key) => status?.[key] ?? story.started?.[key];

function ended() {
  return ["done", "stopped", "failed"].includes(status?.phase);
}

const sentence = (words) => words && words[0].toUpperCase() + words.slice(1);

function headline() {
  if (!status) return ["The node has not said anything yet", ""];
  const { phase, detail, guest } = status;
  if (ended()) {
    const how = { done: "Done: all neighbours hold the same model", stopped: "Stopped", failed: "The node has failed" };
    return [how[phase], detail || "Everything is in the node’s folder; the same command goes on from there."];
  }
  if (age > STALE) return ["The node does not answer", `It last said something ${span(age)} ago; this is how it stood then.`];
  if (phase === "paused") return ["Paused", sentence((detail || guest?.words || "").replace(/^paused: /, ""))];
  const peers = status.peers > 0 ? ` with ${many(status.peers, "peer")}` : " alone";
  const doing = phase === "training" ? `Training${peers}` : sentence(phase) || "Starting";
  return [doing, detail || (guest && !guest.trains ? guest.words : "")];
}

function showHead() {
  const [what, more] = headline();
  say($("headline"), what);
  say($("detail"), more);
  say($("name"), about("name") || "swarm");
  const size = known(about("parameters")) ? `${count(about("parameters"))} parameters` : "";
  say($("model"), [about("model"), size].filter(Boolean).join(", "));
  document.title = `${what} – ${about("name") || "swarm"}`;
  const target = status?.rounds_target;
  $("progress").hidden = !known(target) || target <= 0;
  if (known(target) && target > 0) {
    const part = Math.min(1, (status.round ?? 0) / target);
    const bar = $("progress");
    bar.setAttribute("aria-valuemin", 0);
    bar.setAttribute("aria-valuemax", target);
    bar.setAttribute("aria-valuenow", Math.min(status.round ?? 0, target));
    bar.firstElementChild.style.width = `${(100 * part).toFixed(2)}%`;
  }
}

function showTiles() {
  const newest = story.of("round", 1)[0]?.[1];
  const folded = story.last;
  const trains = Boolean(status?.guest);
  const loss = known(status?.loss) ? status.loss : newest?.loss;
  const authors = (folded?.authors ?? []).filter((author) => author.counts).length;
  const agreement = status?.agreement ?? {};
  const compared = (agreement.same ?? 0) + (agreement.differ ?? 0);
  const tiles = {
    round: [count(status?.round), known(status?.rounds_target) ? `of ${count(status.rounds_target)}` : known(story.added("seconds")) ? `the last took ${story.added("seconds").toFixed(1)} s` : ""],
    loss: [fixed(loss, 3), "nats a token"],
    peers: [count(status?.peers), known(status?.estimated_peers) && status.estimated_peers > 0 ? `about ${count(status.estimated_peers)} in the swarm` : ""],
    speed: trains ? [count(status.tokens_per_second), "tokens a second"] : ["–", "this node does not train"],
    deltas: [count(newest?.deltas_folded), folded ? `${count(authors)} in round ${folded.round}` : ""],
    same: compared > 0 ? [`${count(agreement.same)} of ${count(compared)}`, agreement.differ > 0 ? "others hold another one" : "neighbours hold the same"] : ["–", "nobody to compare with"],
  };
  for (const [name, [value, sub]] of Object.entries(tiles)) {
    say($(`tile-${name}`), value);
    say($(`tile-${name}-sub`), sub);
  }
}

function showDevice() {
  const guest = status?.guest;
  const node = $("guest");
  say(node, guest ? guest.words || (guest.trains ? "training" : "paused") : "this node does not train: it holds and passes on");
  node.dataset.state = !guest ? "off" : guest.trains ? "good" : "warn";
  const reasons = guest?.objections ?? [];
  const key = JSON.stringify(reasons);
  if ($("reasons").dataset.key !== key) {
    $("reasons").dataset.key = key;
    $("reasons").replaceChildren(...reasons.map((reason) => el("li", null, el("b", null, reason.because ?? reason.why), `resumes ${reason.until ?? ""}`)));
  }
  const newest = story.of("round", 1)[0]?.[1];
  facts($("device"), [
    ["Share of the time", guest?.trains && known(guest.share) ? `${Math.round(100 * guest.share)} %` : null],
    ["Tokens, this run", guest && known(status.tokens) ? count(status.tokens) : null],
    ["Tokens of the last round", newest ? count(story.added("tokens")) : null],
    ["The last round took", known(story.added("seconds")) ? `${story.added("seconds").toFixed(1)} s` : null],
    ["Late deltas", known(newest?.deltas_late) ? count(newest.deltas_late) : null],
    ["Process", status?.pid ? String(status.pid) : null],
  ]);
}

function showAgreement() {
  const { same = 0, differ = 0, unknown = 0 } = status?.agreement ?? {};
  const node = $("same");
  const sentence = differ > 0
    ? `${many(differ, "neighbour")} of ${count(same + differ)} ${differ === 1 ? "holds" : "hold"} another history`
    : same > 0 ? `all ${many(same, "neighbour")} that told hold the same history` : "no neighbour to compare with yet";
  say(node, sentence.replace("all 1 neighbour that told hold", "the one neighbour that told holds"));
  node.dataset.state = differ > 0 ? "bad" : same > 0 ? "good" : "off";
  facts($("state"), [
    ["State", code(status?.state_digest, 20)],
    ["History", code(status?.log_digest, 20)],
    ["Checkpoint", status?.checkpoint ? `after ${many(status.checkpoint.settled, "round")}` : null],
    ["Neighbours not heard yet", unknown > 0 ? count(unknown) : null],
    ["Open deltas", known(status?.open_deltas) ? count(status.open_deltas) : null],
  ]);
  bar();
}

const bar = sized($("same-bar"), (width) => {
  const agreement = status?.agreement ?? {};
  const kinds = ["same", "differ", "unknown"].map((kind) => [kind, agreement[kind] ?? 0]).filter(([, many]) => many > 0);
  const all = kinds.reduce((sum, [, many]) => sum + many, 0);
  if (all === 0) return $("same-bar").replaceChildren();
  let x = 0;
  const parts = kinds.map(([kind, many]) => {
    const wide = (many / all) * width;
    x += wide;
    return svg("rect", { class: `part ${kind}`, x: x - wide, y: 0, width: wide, height: 12, rx: 4 });
  });
  return $("same-bar").replaceChildren(drawing(width, 12, kinds.map(([kind, many]) => `${many} ${kind}`).join(", "), ...parts));
});

function lossLines() {
  const from = story.first(shownRounds);
  const line = (name, kind, of, value, marks) => ({ name, kind, points: story.points(of, value, from), marks });
  return [
    line("this device, in training", "own", "round", (event) => event.loss),
    line("personal model, held-out text", "personal", "measured", (event) => event.personal, true),
    line("shared model, held-out text", "shared", "measured", (event) => event.shared, true),
    line("shared model, validation text", "validation", "measured", (event) => event.validation, true),
    line("the swarm, as its authors claim", "claim", "folded", claimed),
  ];
}

const showLoss = sized($("loss"), (width) => {
  const all = lossLines();
  lines($("loss"), width, { lines: all, label: told(all, "Loss in nats a token"), legend: true, height: width < 480 ? 200 : 250 });
});

const bitsLines = () => {
  const from = story.first(shownRounds);
  return [
    { name: "own deltas", kind: "own", points: story.points("round", (event) => event.bits_a_coefficient, from) },
    { name: "bound", kind: "bound", points: story.points("round", (event) => event.bits_bound, from) },
  ];
};

const showBits = sized($("bits"), (width) => {
  const all = bitsLines();
  lines($("bits"), width, { lines: all, label: told(all, "Bits a coefficient"), legend: true, height: 176 });
});

const showDeltas = sized($("deltas"), (width) => deltas($("deltas"), width, story, me()));
const showHeat = sized($("heat"), (width) => heat($("heat"), width, story));
const showMap = sized($("peers"), (width) => map($("peers"), width, neighbours(status)));
const showTraffic = sized($("traffic"), (width) => traffic($("traffic"), width, status));

function showTables() {
  tableWhenOpen($("loss-table"), () => {
    const rows = story.numbers.slice(-100).reverse().map((round) => {
      const { round: own, measured, folded } = story.rounds.get(round);
      return [String(round), fixed(own?.loss, 3), fixed(measured?.personal, 3), fixed(measured?.shared, 3), fixed(measured?.validation, 3), fixed(folded && claimed(folded), 3)];
    });
    table($("loss-table"), "Loss of the last 100 rounds, nats a token", ["Round", "Here", "Personal, held out", "Shared, held out", "Shared, validation", "Swarm, claimed"], rows);
  });
  tableWhenOpen($("bits-table"), () => {
    const rows = story.of("round", 100).reverse().map(([round, event]) => [String(round), fixed(event.bits_a_coefficient, 2), fixed(event.bits_bound, 2), bytes(event.bytes_sent)]);
    table($("bits-table"), "Bits a coefficient of the last 100 rounds", ["Round", "Bits", "Bound", "Sent in all"], rows);
  });
  deltasTable($("deltas-table"), story, me());
  heatTable($("heat-table"), story);
}

let mapped = "";
function showPeers() {
  const all = neighbours(status);
  const key = JSON.stringify(all);
  if (key === mapped) return;
  mapped = key;
  say($("peers-about"), words(all));
  showMap();
  peersTable($("peers-table"), all);
}

function showAbout() {
  facts($("about"), [
    ["swarm", about("version")],
    ["Swarm id", code(about("swarm_id"), 16)],
    ["This device", code(me())],
    ["Reached from outside", status?.network?.reachable || null],
  ]);
}

function showStory() {
  showTiles();
  showLoss();
  showBits();
  showDeltas();
  showHeat();
  showTables();
}

function link(state, words) {
  $("link").dataset.state = state;
  say($("link-words"), words);
}

for (const choice of document.getElementsByName("span")) {
  choice.addEventListener("change", () => {
    shownRounds = Number(choice.value);
    showLoss();
    showBits();
  });
}

tryModel();
$("span").querySelector("input:checked").dispatchEvent(new Event("change"));

live({
  here: () => link("live", "live"),
  away: () => link("away", "the node is away, trying again"),
  history: (history) => {
    story.clear();
    story.add(history.events);
    log($("log"), history.log, true);
    showStory();
    showAbout();
  },
  events: (events) => {
    story.add(events);
    showStory();
  },
  status: (said) => {
    const before = status?.peer_id;
    ({ status, age } = said);
    remember(status);
    showHead();
    showTiles();
    showDevice();
    showAgreement();
    showPeers();
    showTraffic();
    meter($("meter"), status);
    showAbout();
    if (before !== me()) showDeltas();
  },
  log: (lines) => log($("log"), lines, false),
});
