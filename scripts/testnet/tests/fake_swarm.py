"""A stand-in for the swarm program that keeps its side of the contract and trains nothing.

It speaks the same command line and writes the same files. FAKE_* variables make it misbehave:
FAKE_DIE (a folder's name: that node exits with status 7), FAKE_DIFFER (that node's state digest differs),
FAKE_HANG (training nodes go as far as this round and then run until they are stopped), FAKE_DEAF (they ignore SIGINT, too).
"""

SOURCE = r'''
import json, os, signal, sys, time
from pathlib import Path

command, options, arguments = sys.argv[1], {}, sys.argv[2:]
while arguments:
    name = arguments.pop(0)
    options[name] = arguments.pop(0) if arguments and not arguments[0].startswith("--") else True

if "--help" in options:
    known = ["generate", "run", *os.environ.get("FAKE_COMMANDS", "status").split()]
    print("  --dir DIR")
    sys.exit(0 if command in known else 2)

if command == "new":
    Path(options["--out"]).write_text("model = " + options["--model"])
    print("swarm id: 00ff00ff")
    sys.exit(0)

assert Path(options["--genesis"]).is_file()
folder = Path(options["--dir"])
name = folder.name
asked = []
signal.signal(signal.SIGINT, lambda *_: None if os.environ.get("FAKE_DEAF") and command == "run" else asked.append(1))
signal.signal(signal.SIGTERM, signal.SIG_IGN)

def write(file, content):
    partial = folder / (file + ".new")
    partial.write_text(json.dumps(content))
    partial.replace(folder / file)

def status(phase, round_, tokens):
    write("status.json", {
        "phase": phase, "detail": "", "pid": os.getpid(), "peer_id": "12D3" + name, "swarm_id": "00ff00ff",
        "listen": ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/4123"], "round": round_, "rounds_target": None,
        "loss": 5.0 / (1 + round_), "tokens": tokens, "tokens_per_second": 1000.0, "peers": 3, "bytes_sent": 1234,
        "bytes_received": 5678, "state_digest": digest, "log_digest": "bb" * 32, "open_deltas": 0})

digest = ("cc" if os.environ.get("FAKE_DIFFER") == name else "aa") * 32
if command == "bootstrap":
    status("waiting for peers", 0, 0)
    while not asked:
        time.sleep(0.01)
    sys.exit(0)

assert Path(options["--data"]).exists() and Path(options["--validation"]).is_file()
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and os.environ["OMP_NUM_THREADS"] == options["--threads"]
print(name, "starts")
history = [{"round": r, "seconds": r * 0.1, "tokens": r * 100, "loss": 5.0 / (1 + r), "validation_loss": 5.5 / (1 + r)}
           for r in range(1, 5)]
if command == "alone":
    write("report.json", {"validation_loss": 2.5, "tokens": int(options["--tokens"]), "steps": 4, "seconds": 1.0,
                          "history": history})
    sys.exit(0)

assert options["--bootstrap"] == "/ip4/127.0.0.1/tcp/4123/p2p/12D3bootstrap"
rounds, round_ = int(options["--rounds"]), 0
status("training", 0, 0)
hang = os.environ.get("FAKE_HANG")
while not asked and (round_ < rounds or hang):
    round_ = min(round_ + 1, int(hang or rounds))
    if os.environ.get("FAKE_DIE") == name:
        print("the last words of", name, flush=True)
        sys.exit(7)
    status("training", round_, 100 * round_)
    time.sleep(0.01)
while os.environ.get("FAKE_DIE") and not asked:
    time.sleep(0.01)
stopped = bool(asked) and round_ < rounds
write("report.json", {
    "peer_id": "12D3" + name, "rounds": 1 if stopped else round_, "deltas_published": 4, "deltas_folded": 16,
    "late_deltas": 0, "tokens": 400, "loss_first": 5.0, "loss_last": 1.0, "validation_loss": 1.1,
    "personal_validation_loss": float("nan"), "bytes_sent": 1, "bytes_received": 2, "delta_bytes_mean": 3.0,
    "bits_per_coefficient": 8.5, "log_digest": "bb" * 32, "state_digest": digest, "seconds_training": 1.0,
    "seconds_optimizing": 0.1, "seconds_waiting": 0.2, "tokens_per_second": 1000.0, "peak_memory_bytes": 10 ** 8,
    "model": "nano", "parameters": 1000000, "history": history})
status("stopped" if stopped else "done", round_, 400)
'''


def install(path, python):
    """Writes the program to `path`, to be run by the given Python."""
    path.write_text(f"#!{python} -B\n{SOURCE}")
    path.chmod(0o755)
    return path
