"""The node's model and inner optimizer in eager PyTorch: what `swarm bench train` compares itself with.

Started by that command, which hands over starting values and batches, and asks for a few steps at a time:

    bench_train.py CONFIG       CONFIG is JSON: sizes, constants, paths; see `main`
    stdin:   a number of steps; their batches are in the file `batches` then
    stdout:  one line of JSON: first {"torch": version}, then for each number
             {"losses": [...], "gradient": [...], "optimizer": [...], "cpu": [...]}, the latter in seconds a step

The model is Hugging Face's llama as usually written down: torch's own rms_norm, scaled_dot_product_attention,
silu and cross_entropy; query, key and value in one matrix, and gate and up in one, which is faster than apart.
The optimizer is torch.optim.AdamW(fused=True) for embedding, head and gains, and Muon as in its authors'
reference, matrix by matrix, with the constants of node/src/train/muon.rs; gradients are clipped with
clip_grad_norm_.
"""

import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"no torch: {error}")

MOMENTUM, UPDATE_RMS, OTHERS_SHARE = 0.9, 0.2, 0.25
POLYNOMIAL, ITERATIONS, TINY = (3.4445, -4.7750, 2.0315), 5, 1e-7
RMS_EPS, ROPE_THETA = 1e-5, 10_000.0


def parameter(flat, *shape):
    """The next of the starting values, as a leaf of this shape."""
    return torch.nn.Parameter(flat.take(shape).clone())


class Values:
    """The starting values, in layout order, to be taken piece by piece."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.values = torch.frombuffer(bytearray(file.read()), dtype=torch.float32)
        self.start = 0

    def take(self, shape):
        length = 1
        for size in shape:
            length *= size
        piece = self.values[self.start : self.start + length]
        self.start += length
        return piece.view(shape)


class Layer(torch.nn.Module):
    def __init__(self, flat, dim, ffn, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm = parameter(flat, dim)
        self.qkv = parameter(flat, 3 * dim, dim)
        self.out = parameter(flat, dim, dim)
        self.ffn_norm = parameter(flat, dim)
        self.gate_up = parameter(flat, 2 * ffn, dim)
        self.down = parameter(flat, dim, ffn)

    def forward(self, x, cos, sin, linear):
        batch, time, dim = x.shape
        h = F.rms_norm(x, (dim,), self.attention_norm, RMS_EPS)
        qkv = linear(h, self.qkv).view(batch, time, 3, self.heads, dim // self.heads)
        q, k, v = qkv.float().permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + linear(attended.transpose(1, 2).reshape(batch, time, dim), self.out)
        h = F.rms_norm(x, (dim,), self.ffn_norm, RMS_EPS)
        gate, up = linear(h, self.gate_up).chunk(2, dim=-1)
        return x + linear(F.silu(gate) * up, self.down)


def rotate(x, cos, sin):
    """Rotary embedding, `x` [batch, heads, time, channels]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Llama(torch.nn.Module):
    def __init__(self, flat, config):
        super().__init__()
        dim, ffn, heads = config["dim"], config["ffn"], config["heads"]
        self.embedding = parameter(flat, config["vocabulary"], dim)
        self.layers = torch.nn.ModuleList(Layer(flat, dim, ffn, heads) for _ in range(config["layers"]))
        self.norm = parameter(flat, dim)
        self.head = parameter(flat, config["vocabulary"], dim)
        assert flat.start == len(flat.values), "the starting values are of another model"
        half = dim // heads // 2
        frequency = ROPE_THETA ** -(torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(config["context"], dtype=torch.float64)[:, None] * frequency
        self.cos = torch.cat((angle.cos(), angle.cos()), dim=-1).float()
        self.sin = torch.cat((angle.sin(), angle.sin()), dim=-1).float()
        self.compute = torch.bfloat16 if config["precision"] == "bf16" else torch.float32

    def linear(self, x, weight):
        return F.linear(x.to(self.compute), weight.to(self.compute))

    def loss(self, tokens):
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        x = F.embedding(inputs, self.embedding)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, self.linear)
        x = F.rms_norm(x, (x.shape[-1],), self.norm, RMS_EPS)
        logits = self.linear(x, self.head).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def orthogonal(matrix, compute):
    """A matrix with the same singular vectors and singular values near 1 (Newton and Schulz)."""
    a, b, c = POLYNOMIAL
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = (x / (x.norm() + TINY)).to(compute)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return (x.T if tall else x).float()


class Muon:
    """For the hidden matrices; a stacked parameter is as many matrices as it has members."""

    def __init__(self, parameters, weight_decay, compute):
        self.parameters, self.weight_decay, self.compute = parameters, weight_decay, compute
        self.momenta = [torch.zeros_like(p) for p, _ in parameters]

    @torch.no_grad()
    def step(self, lr):
        for (p, members), momentum in zip(self.parameters, self.momenta):
            momentum.lerp_(p.grad, 1 - MOMENTUM)
            update = p.grad.lerp(momentum, MOMENTUM)
            p.mul_(1 - lr * self.weight_decay)
            for part, member in zip(p.chunk(members), update.chunk(members)):
                part.add_(orthogonal(member, self.compute), alpha=-lr * UPDATE_RMS * max(member.shape) ** 0.5)


def main():
    config = json.loads(sys.argv[1])
    torch.set_num_threads(config["threads"])
    model = Llama(Values(config["start"]), config)
    lr, decay = config["learning_rate"], config["weight_decay"]
    muons = []
    if config["optimizer"] == "muon":
        for layer in model.layers:
            muons += [(layer.qkv, 3), (layer.out, 1), (layer.gate_up, 2), (layer.down, 1)]
    muon = Muon(muons, decay, model.compute)
    named = {id(p) for p, _ in muons}
    others = [p for p in model.parameters() if id(p) not in named]
    share = OTHERS_SHARE if muons else 1.0
    groups = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in others if p.dim() == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    taken = 0
    width = config["context"] + 1
    for line in sys.stdin:
        steps = int(line)
        with open(config["batches"], "rb") as file:
            bytes_ = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        batches = bytes_.view(steps, config["batch"], width)
        answer = {"losses": [], "gradient": [], "optimizer": [], "cpu": []}
        for batch in batches:
            began, computed = time.perf_counter(), time.process_time()
            model.zero_grad(set_to_none=True)
            loss = model.loss(batch.long())
            loss.backward()
            loss = loss.item()
            between = time.perf_counter()
            rate = lr * min(1.0, (taken + 1) / max(1, config["warmup_steps"]))
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["clip"])
            for group in adamw.param_groups:
                group["lr"] = share * rate
            adamw.step()
            muon.step(rate)
            ended = time.perf_counter()
            taken += 1
            answer["losses"].append(loss)
            answer["gradient"].append(between - began)
            answer["optimizer"].append(ended - between)
            answer["cpu"].append(time.process_time() - computed)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
