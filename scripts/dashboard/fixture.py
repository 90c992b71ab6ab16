"""The folder of a node as a running one writes it: status.json, events.jsonl, log. For looking at the dashboard without
a swarm, and for tests that have to know what there is to see.

    python3 scripts/dashboard/fixture.py DIR [--rounds N] [--go-on]    # then: swarm dashboard --dir DIR
"""

import argparse
import hashlib
import json
import math
import os
import random
import time

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LAYERS = 4
KINDS = [
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
]


def tensors():
    yield "model.embed_tokens.weight"
    for layer in range(LAYERS):
        for kind in KINDS:
            yield f"model.layers.{layer}.{kind}.weight"
    yield "model.norm.weight"
    yield "lm_head.weight"


def peer_id(number):
    draw = random.Random(number)
    return "12D3KooW" + "".join(draw.choice(ALPHABET) for _ in range(44))


def digest(*words):
    return hashlib.blake2b(repr(words).encode(), digest_size=32).hexdigest()


class Fixture:
    """A folder that can be made to go on, a round at a time."""

    def __init__(self, folder, peers=7, rounds_target=400):
        self.folder, self.peers, self.target = folder, peers, rounds_target
        self.draw = random.Random(5)
        self.round, self.sent, self.received, self.tokens, self.seconds = 0, 0, 0, 0, 0.0
        self.began = time.time()
        self.now = self.began
        os.makedirs(folder, exist_ok=True)

    def event(self, event, **more):
        line = json.dumps({"event": event, "time": self.now, **more})
        with open(os.path.join(self.folder, "events.jsonl"), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def log(self, level, words):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.now)) + ".000000Z"
        with open(os.path.join(self.folder, "log"), "a", encoding="utf-8") as file:
            file.write(f"{at} {level:>5} {words}\n")

    def started(self):
        self.event("started", **self.about(), round=self.round)
        self.log("INFO", f"swarm {digest('swarm')[:16]}, this node is {peer_id(0)}")

    def about(self):
        return {
            "version": "0.1.0", "peer_id": peer_id(0), "swarm_id": digest("swarm"), "name": "heather",
            "model": "nano", "parameters": 115_008,
        }

    def loss(self, number, offset=0.0):
        return 1.62 + offset + 1.75 * math.exp(-number / 55) + self.draw.gauss(0, 0.012)

    def play(self, seconds=31.0):
        """One round."""
        number = self.round
        self.now += seconds
        self.seconds += seconds + self.draw.gauss(0, 1.2)
        self.sent += 41_000 + self.draw.randrange(9000)
        self.received += 41_000 * self.peers + self.draw.randrange(30_000)
        self.tokens += 20_480
        late = 1 if self.draw.random() < 0.08 else 0
        bound = 8.05 + 0.25 * math.exp(-number / 40)
        self.event(
            "round", round=number, seconds=self.seconds, tokens=self.tokens, loss=self.loss(number),
            peers=self.peers, deltas_folded=(self.peers + 1) * number, deltas_late=late, bytes_sent=self.sent,
            bytes_received=self.received, bits_a_coefficient=bound + 0.42 + self.draw.gauss(0, 0.03), bits_bound=bound,
        )
        if number > 0:
            self.fold(number - 1)
        if number > 1 and number % 3 == 0:
            self.event(
                "measured", round=number - 2, validation=self.loss(number, 0.34),
                shared=self.loss(number, 0.24), personal=self.loss(number, 0.12),
            )
        self.log("INFO", f"round {number}: loss {self.loss(number):.3f}, {self.peers + 1 - late} deltas")
        self.round += 1

    def fold(self, number):
        authors = []
        for author in range(self.peers + 1):
            if author and self.draw.random() < 0.10:
                continue
            loss = self.loss(number, 0.05 * author)
            authors.append({
                "author": peer_id(author), "counts": not (author == 5 and self.draw.random() < 0.5),
                "tokens": 20_480 if author % 3 else 10_240, "loss_before": loss, "loss_after": loss - 0.02,
            })
        def size(at):
            return (1e-3 / (1 + number / 40)) * math.exp(-abs((number / 30) % LAYERS - at / 9)) * self.draw.uniform(0.6, 1.4)
        heat = [{"name": name, "rms": size(at) + 1e-6} for at, name in enumerate(tensors())]
        self.event(
            "folded", round=number, authors=authors, heat=heat, state_digest=digest(number), same=self.peers - 1,
            differ=0,
        )

    def status(self, **changes):
        """Writes the status as of now; `changes` replace keys."""
        route = lambda at: {
            "route": "relayed" if at in (3, 6) else "direct", "relay": peer_id(2) if at in (3, 6) else None,
            "over": "tcp" if at % 2 else "quic", "ip": 4, "outbound": at % 2 == 0,
            "address": f"/ip4/192.0.2.{at}/tcp/4001", "latency_ms": [2, 11, 38, 140, 24, 310, 86][at % 7],
        }
        wave = 1 + 0.5 * math.sin(time.time() / 7)
        status = {
            **self.about(), "time": time.time(), "phase": "training", "detail": "", "pid": os.getpid(),
            "listen": ["/ip4/192.0.2.9/tcp/4001"], "round": self.round, "rounds_target": self.target,
            "loss": self.loss(self.round), "tokens": self.tokens, "tokens_per_second": 1234.5, "peers": self.peers,
            "estimated_peers": self.peers + 4, "scale": "small", "mesh": "small", "bytes_sent": self.sent,
            "bytes_received": self.received, "state_digest": digest("state", self.round),
            "log_digest": digest("log", self.round), "open_deltas": 2 * (self.peers + 1),
            "checkpoint": {"settled": self.round - self.round % 4, "manifest": digest("checkpoint")},
            "agreement": {"same": self.peers - 1, "differ": 0, "unknown": 1},
            "meter": {
                "sent_a_second": int(21_000 * wave), "received_a_second": int(64_000 * wave), "upload_limit": 50_000,
                "download_limit": None, "sent_today": self.sent, "received_today": self.received,
                "coefficients": 4096, "bits_a_coefficient": 8.6, "bits_bound": 8.1,
            },
            "refusals": {"invalid": 3, "too old": 1},
            "network": {
                "listen": [], "reached_at": [], "reachable": "yes", "ways_in": [], "failed": None, "nat": "none",
                "seen_as": [], "upnp": "off", "relays": [], "relays_for_others": True,
                "peers": [{"peer_id": peer_id(at), "routes": [route(at)]} for at in range(1, self.peers + 1)],
            },
            "guest": {"trains": True, "share": 1.0, "words": "training, all of the time", "objections": []},
        }
        status.update(changes)
        path = os.path.join(self.folder, "status.json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(status, file)
        os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=140)
    parser.add_argument("--peers", type=int, default=7)
    parser.add_argument("--go-on", action="store_true", help="a round every 3 seconds, until Ctrl-C")
    given = parser.parse_args()
    fixture = Fixture(given.folder, given.peers)
    fixture.now -= 31 * given.rounds
    fixture.started()
    for _ in range(given.rounds):
        fixture.play()
    fixture.status()
    try:
        while given.go_on:
            for _ in range(6):
                time.sleep(0.5)
                fixture.status()
            fixture.now = time.time() - 31
            fixture.play()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
