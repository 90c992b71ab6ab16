"""Compares what swarm computes with what `transformers` computes from an exported folder.

usage: compare.py EXAMPLE FOLDER

EXAMPLE is what `swarm export --example` wrote. Prints one line of JSON: the largest difference between the two
programs' logits for the token after the text, the largest logit, whether the tokens that follow greedily are the same,
and whether the folder's tokenizer gives the text's tokens and takes them back.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(example: Path, folder: Path) -> None:
    said = json.loads(example.read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens, expected = said["tokens"], torch.tensor(said["logits"])
    greedy = list(tokens)
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, -1]
        for _ in said["following"]:
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
        # As people call it.
        generated = model.generate(
            torch.tensor([tokens]), do_sample=False, max_new_tokens=len(said["following"]), pad_token_id=0
        )
    every_byte = bytes(range(1, 128)).decode() + "äß€😀"
    with safe_open(folder / "model.safetensors", "pt") as file:
        provenance = {key: value for key, value in file.metadata().items() if key.startswith("swarm.")}
    print(
        json.dumps(
            {
                "difference": float((logits - expected).abs().max()),
                "largest": float(expected.abs().max()),
                "same_tokens": greedy[len(tokens) :] == said["following"],
                "same_generated": generated[0].tolist() == greedy,
                "tokenizer": tokenizer(said["text"])["input_ids"] == tokens
                and tokenizer(every_byte)["input_ids"] == list(every_byte.encode())
                and tokenizer.decode(list(every_byte.encode())) == every_byte,
                "provenance": provenance,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
