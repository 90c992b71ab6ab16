"""Makes tiny llama-family models with random weights, as `transformers` saves them.

usage: make_models.py FOLDER

FOLDER/llama shares keys between heads and is one file; FOLDER/qwen2 is tied, has biases, and is cut into several
files. The weights are large enough for tokens to matter to each other: with the usual ones an untrained model says
nearly the same after every text, and a comparison would see nothing.
"""

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SIZES = dict(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    max_position_embeddings=128,
    initializer_range=0.2,
)


def main(folder: Path) -> None:
    torch.manual_seed(1)
    llama = LlamaForCausalLM(
        LlamaConfig(
            **SIZES,
            num_attention_heads=8,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
            tie_word_embeddings=False,
        )
    )
    qwen2 = Qwen2ForCausalLM(
        Qwen2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    )
    with torch.no_grad():
        for name, parameter in qwen2.named_parameters():
            # They begin at zero, and would not be tested.
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.2)
    llama.save_pretrained(folder / "llama")
    qwen2.save_pretrained(folder / "qwen2", max_shard_size="100KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
