// The stream of what the node writes. The browser asks again by itself when it breaks off; what comes first then is all
// there is, so nothing has to be caught up with.

// Nothing for so long, and the node is taken to be away: at least a sign of life comes every few seconds.
const SILENCE = 20_000;
// A stream that was refused is asked for again after this time.
const AGAIN = 3_000;

export function live(on) {
  let source = null;
  let silent = 0;
  let later = 0;

  const listen = () => {
    clearTimeout(silent);
    silent = setTimeout(() => {
      on.away("silent");
      open();
    }, SILENCE);
  };

  const open = () => {
    source?.close();
    clearTimeout(later);
    source = new EventSource("api/live");
    const heard = (name, use) =>
      source.addEventListener(name, (event) => {
        listen();
        use(JSON.parse(event.data));
      });
    heard("history", (history) => on.history(history));
    heard("status", (status) => on.status(status));
    heard("events", (events) => on.events(events));
    heard("log", (lines) => on.log(lines));
    heard("alive", () => {});
    source.onopen = () => {
      listen();
      on.here();
    };
    source.onerror = () => {
      on.away("broken");
      // While it is asking again by itself, it is left to it.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(later);
        later = setTimeout(open, AGAIN);
      }
    };
    listen();
  };

  open();
}
