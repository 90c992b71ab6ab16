// What the events tell, round by round.

import { known } from "./words.js";

// More rounds than this are of no use on a page.
const MOST = 6000;

export class Story {
  constructor() {
    this.clear();
  }

  clear() {
    this.rounds = new Map();
    this.numbers = [];
    this.started = null;
    this.last = null;
  }

  // Takes events up. The same round told again (after a crash, or on a second connection) replaces what was known.
  add(events) {
    for (const event of events) {
      if (event === null || typeof event !== "object") continue;
      if (event.event === "started") this.started = event;
      if (!known(event.round) || !["round", "folded", "measured"].includes(event.event)) continue;
      const entry = this.rounds.get(event.round) ?? {};
      entry[event.event] = event;
      this.rounds.set(event.round, entry);
      if (event.event === "folded") this.last = event;
    }
    this.numbers = [...this.rounds.keys()].sort((a, b) => a - b);
    for (const old of this.numbers.splice(0, Math.max(0, this.numbers.length - MOST))) this.rounds.delete(old);
  }

  // The newest `most` rounds (all of them if 0) that have an event of this kind: [[round, event], ...].
  of(kind, most = 0) {
    const found = this.numbers.filter((round) => this.rounds.get(round)[kind]).map((round) => [round, this.rounds.get(round)[kind]]);
    return most > 0 ? found.slice(-most) : found;
  }

  // The first of the newest `most` rounds, so that all lines of a chart have one axis.
  first(most) {
    const { numbers } = this;
    return most > 0 && numbers.length > most ? numbers[numbers.length - most] : -Infinity;
  }

  // What the newest round added to a number that counts from the node's start.
  added(key) {
    const [before, now] = this.of("round", 2).slice(-2).map(([, event]) => event[key]);
    if (now === undefined) return before;
    return known(before) && known(now) && before < now ? now - before : now;
  }

  points(kind, value, from) {
    return this.of(kind).filter(([round]) => round >= from).map(([round, event]) => [round, value(event)]).filter(([, y]) => known(y));
  }
}

// What the authors of a round say their loss was, on average over their tokens. A claim: nobody can check it.
export function claimed(folded) {
  let sum = 0;
  let weight = 0;
  for (const author of folded.authors ?? []) {
    if (!author.counts || !known(author.loss_after)) continue;
    const tokens = known(author.tokens) && author.tokens > 0 ? author.tokens : 1;
    sum += author.loss_after * tokens;
    weight += tokens;
  }
  return weight > 0 ? sum / weight : null;
}

// The part of the model that a tensor is of: its block, or what it is called.
export function part(name) {
  const block = /(?:^|\.)([a-z_]*?)s?\.(\d+)(?:\.|$)/i.exec(name);
  if (block) return `${block[1] || "part"} ${block[2]}`;
  return name.replace(/^model\./, "").replace(/\.(weight|bias)$/, "").replaceAll("_", " ");
}

// Parts of the model with how far each moved: root mean square over its tensors, in the order in which they stand.
export function parts(folded) {
  const found = new Map();
  for (const { name, rms } of folded.heat ?? []) {
    if (typeof name !== "string" || !known(rms)) continue;
    const key = part(name);
    const [sum, tensors] = found.get(key) ?? [0, 0];
    found.set(key, [sum + rms * rms, tensors + 1]);
  }
  return new Map([...found].map(([key, [sum, tensors]]) => [key, Math.sqrt(sum / tensors)]));
}
