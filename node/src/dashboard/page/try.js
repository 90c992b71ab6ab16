// The box to try the model: a text goes to the node's own machine, and comes back as it is drawn.

import { $, el, say } from "./dom.js";
import { many, span } from "./words.js";

// A model that is worth it has seen longer texts; the page has not to hold them.
const MOST = 64 * 1024;

export function tryModel() {
  const [form, go, halt, said, written] = ["try", "go", "halt", "try-said", "written"].map($);
  let running = null;

  const tell = (words, bad = false) => {
    say(said, words);
    said.dataset.state = bad ? "bad" : "";
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    go.disabled = true;
    halt.hidden = false;
    written.hidden = true;
    tell("The model is being loaded.");
    const prompt = $("prompt").value;
    const began = performance.now();
    try {
      const answer = await fetch("api/try", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
          prompt,
          tokens: $("tokens").valueAsNumber,
          temperature: $("temperature").valueAsNumber,
          shared: $("shared").checked,
        }),
        signal: running.signal,
      });
      if (!answer.ok) {
        tell((await answer.text()).trim(), true);
        return;
      }
      const text = document.createTextNode("");
      written.replaceChildren(el("i", null, prompt), text);
      written.hidden = false;
      tell("The model writes.");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done && text.length < MOST; part = await reader.read()) {
        text.appendData(part.value);
        written.scrollTop = written.scrollHeight;
      }
      await reader.cancel();
      text.data = text.data.replace(/\n$/, "");
      tell(`${many(text.length, "character")} in ${span((performance.now() - began) / 1000)}.`);
    } catch (error) {
      if (error.name === "AbortError") tell("Stopped.");
      else tell("The answer broke off: is the node running?", true);
    } finally {
      running = null;
      go.disabled = false;
      if (document.activeElement === halt) go.focus();
      halt.hidden = true;
    }
  });

  halt.addEventListener("click", () => running?.abort());
}
