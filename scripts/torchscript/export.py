"""Two PyTorch models as TorchScript modules for a swarm, each with the description that swarm new needs.

    python3 scripts/torchscript/export.py mlp OUT     # pictures of digits; also OUT/curve.json, see below
    python3 scripts/torchscript/export.py lstm OUT    # text, byte by byte
    python3 scripts/torchscript/export.py odd OUT     # tiny ones for the tests: most of them are refused

needs PyTorch (pip install torch). Then: swarm new --model OUT/mlp.pt --out first

A model may be anything that torch.jit.script or torch.jit.trace takes, with 32-bit parameters, one tensor in, one
tensor out, and without numbers besides its parameters that training changes (such as batch normalisation's running
statistics). What goes in and comes out is said in the description.

curve.json is what the tests compare a swarm with: losses of the same module trained by PyTorch alone, in one process.
"""

import argparse
import gzip
import io
import json
import pathlib
import zipfile

import torch
from torch import nn

LEARNING_RATE, WARMUP, WEIGHT_DECAY, CLIP = 0.003, 20, 0.1, 1.0
BATCH, STEPS = 16, 60
NODES, ROUNDS, SEEDS = 3, 60, 5


class Lstm(nn.Module):
    """Next-byte prediction: tokens [batch, time] to logits [batch, time, 256]."""

    def __init__(self, width: int = 96):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, 256)

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states)


def mlp():
    """Pictures [batch, 1, 8, 8] to logits [batch, 10]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


class Tied(nn.Module):
    """One matrix, used twice."""

    def __init__(self):
        super().__init__()
        self.there = nn.Linear(3, 3, bias=False)
        self.back = nn.Linear(3, 3, bias=False)
        self.back.weight = self.there.weight

    def forward(self, x):
        return self.back(torch.tanh(self.there(x)))


def odd():
    """Vectors of 3 to vectors of 3, each with something that a swarm has to notice."""
    frozen = nn.Linear(3, 3)
    frozen.requires_grad_(False)
    return {
        "tied": Tied(),
        "norm": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        "frozen": frozen,
        "double": nn.Linear(3, 3).double(),
    }


DESCRIPTIONS = {
    "mlp": """\
loss = "cross_entropy"
batch = 16

[inputs.images]
channels = 1
height = 8
width = 8
classes = 10
""",
    "lstm": """\
loss = "cross_entropy"
batch = 16

[inputs.tokens]
vocabulary = 256
context = 64
""",
}


def digits():
    """The bundled digits: training pictures and labels, then those of every fifth, as a node sees them."""
    folder = pathlib.Path(__file__).parents[2] / "tests/data/digits"
    images = gzip.decompress((folder / "digits-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "digits-labels-idx1-ubyte.gz").read_bytes())[8:]
    pixels = torch.tensor(list(images), dtype=torch.float32).view(-1, 1, 8, 8) / 127.5 - 1
    labels = torch.tensor(list(labels))
    held = torch.arange(len(labels)) % 5 == 0
    return (pixels[~held], labels[~held]), (pixels[held], labels[held])


def adamw(model):
    """As swarm's inner AdamW: matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8)


def step_on(model, optimizer, step, pixels, labels):
    """One AdamW step, with warm-up and clipping; the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP)
    loss = nn.functional.cross_entropy(model(pixels), labels)
    optimizer.zero_grad()
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    if norm > CLIP:
        for p in model.parameters():
            p.grad *= CLIP / norm
    optimizer.step()
    return loss.item()


def train(model, batches):
    """One step a batch; the loss of each batch before its step."""
    optimizer = adamw(model)
    return [step_on(model, optimizer, step, *batch) for step, batch in enumerate(batches)]


def train_together(path, model, pixels, labels, generator):
    """The rule of a swarm of NODES with one step a round and everything sent, in one process: each has a third of the
    pictures, an AdamW of its own, and takes its step from the common model, which goes on with the mean of all."""
    locals_ = [torch.jit.load(path) for _ in range(NODES)]
    optimizers = [adamw(local) for local in locals_]
    own = [torch.arange(number, len(labels), NODES) for number in range(NODES)]
    for step in range(ROUNDS):
        for local, optimizer, mine in zip(locals_, optimizers, own):
            with torch.no_grad():
                for p, common in zip(local.parameters(), model.parameters()):
                    p.copy_(common)
            at = mine[torch.randint(len(mine), (BATCH,), generator=generator)]
            step_on(local, optimizer, step, pixels[at], labels[at])
        with torch.no_grad():
            for common, *parts in zip(model.parameters(), *(local.parameters() for local in locals_)):
                common.copy_(sum(parts) / NODES)


def curve(path):
    """Trains the exported module, loaded anew for each run."""
    (pixels, labels), (held_pixels, held_labels) = digits()
    in_order = []
    for step in range(STEPS):
        at = (torch.arange(BATCH) + step * BATCH) % len(labels)
        in_order.append((pixels[at], labels[at]))
    one_node = train(torch.jit.load(path), in_order)
    held = []
    for seed in range(SEEDS):
        model = torch.jit.load(path)
        generator = torch.Generator().manual_seed(seed)
        train_together(path, model, pixels, labels, generator)
        with torch.no_grad():
            held.append(nn.functional.cross_entropy(model(held_pixels), held_labels).item())
    mean = sum(held) / SEEDS
    deviation = (sum((loss - mean) ** 2 for loss in held) / (SEEDS - 1)) ** 0.5
    return {
        "torch": torch.__version__.split("+")[0],
        "batch": BATCH,
        "one_node_losses": one_node,
        "rounds": ROUNDS,
        "nodes": NODES,
        "held_out_loss": mean,
        "held_out_loss_deviation": deviation,
    }


def save(model, path):
    """As torch.jit.save, without the records for error messages: they name the folders of this machine."""
    whole = io.BytesIO()
    torch.jit.save(torch.jit.script(model), whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(record.filename), source.read(record))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["mlp", "lstm", "odd"])
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.model == "odd":
        for name, model in odd().items():
            save(model, options.out / f"{name}.pt")
        return
    model = mlp() if options.model == "mlp" else Lstm()
    path = options.out / f"{options.model}.pt"
    save(model, path)
    path.with_suffix(".toml").write_text(DESCRIPTIONS[options.model])
    print(f"wrote {path} ({path.stat().st_size} bytes) and {path.with_suffix('.toml')}")
    if options.model == "mlp":
        (options.out / "curve.json").write_text(json.dumps(curve(str(path)), indent=1) + "\n")
        print(f"wrote {options.out / 'curve.json'}")


if __name__ == "__main__":
    main()
