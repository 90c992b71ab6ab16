// Numbers and names as people read them.

const LOCALE = "en";
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat(LOCALE, { notation: "compact", maximumSignificantDigits: 3 });

export const known = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (!known(value) ? "–" : Math.abs(value) < 100_000 ? whole.format(value) : compact.format(value));

export const fixed = (value, digits) => (known(value) ? value.toFixed(digits) : "–");

export const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more ?? `${one}s`}`;

export function bytes(value) {
  if (!known(value)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

export const rate = (value) => (known(value) ? `${bytes(value)}/s` : "–");

// Peer ids begin alike: the end tells them apart.
export const short = (id) => (typeof id === "string" && id.length > 10 ? `…${id.slice(-6)}` : String(id ?? "?"));

export const code = (id, length) =>
  id ? { code: length && id.length > length ? `${id.slice(0, length)}…` : id, title: id } : null;

export function span(seconds) {
  if (!known(seconds)) return "–";
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  for (const [size, name] of units) {
    if (seconds >= 2 * size || (seconds >= size && size === 86400)) return many(Math.floor(seconds / size), name);
  }
  return many(Math.max(0, Math.round(seconds)), "second");
}

export const clock = (unix) => (known(unix) ? new Date(unix * 1000).toLocaleTimeString(LOCALE, { hour12: false }) : "");

export const list = (words) => new Intl.ListFormat(LOCALE).format(words);
