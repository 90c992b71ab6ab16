// Compares what swarm computes with what llama.cpp computes from an exported GGUF file, on the CPU.
//
// usage: node compare.mjs EXAMPLE FILE
//
// EXAMPLE is what `swarm export --example` wrote. Prints one line of JSON: the largest difference between the two
// programs' logits for the token after the text, the largest logit, whether the tokens that follow greedily are the
// same, and whether the file's vocabulary gives the text's tokens and takes them back. Started in a folder that has
// node-llama-cpp in its node_modules.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const { getLlama, LlamaLogLevel, readGgufFileInfo } = await import(
    pathToFileURL(require.resolve("node-llama-cpp")).href
);

const [, , example, file] = process.argv;
const said = JSON.parse(readFileSync(example, "utf8"));
const llama = await getLlama({ build: "never", gpu: false, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: file });
// Keys and values as they are: by default they are rounded to f16, which costs more than everything else.
const context = await model.createContext({
    contextSize: 128,
    threads: 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
});
const sequence = context.getSequence();

// The logits of the token after `tokens`; what was computed before is used again.
async function logitsAfter(tokens) {
    const last = tokens.length - 1;
    const wanted = { generateNext: { logits: true } };
    const input = tokens.map((token, at) => (at === last ? [token, wanted] : token));
    const outputs = await sequence.controlledEvaluate(input);
    const logits = new Array(said.logits.length).fill(NaN);
    for (const [token, logit] of outputs[last].next.logits) logits[token] = logit;
    return logits;
}

const best = (logits) => logits.reduce((best, logit, token) => (logit > logits[best] ? token : best), 0);
const logits = await logitsAfter(said.tokens);
const difference = Math.max(...logits.map((logit, token) => Math.abs(logit - said.logits[token])));
const following = [best(logits)];
while (following.length < said.following.length) following.push(best(await logitsAfter(following.slice(-1))));
const same = (a, b) => a.length === b.length && a.every((value, at) => value === b[at]);

const everyByte = Array.from({ length: 127 }, (_, at) => String.fromCharCode(at + 1)).join("") + "äß€😀";
const bytes = [...Buffer.from(everyByte)];
const info = await readGgufFileInfo(file);
console.log(
    JSON.stringify({
        difference,
        largest: Math.max(...said.logits.map(Math.abs)),
        same_tokens: same(following, said.following),
        tokenizer:
            same([...model.tokenize(said.text)], said.tokens) &&
            same([...model.tokenize(everyByte)], bytes) &&
            model.detokenize(bytes) === everyByte,
        provenance: info.metadata.swarm,
    }),
);
await context.dispose();
await model.dispose();
await llama.dispose();
