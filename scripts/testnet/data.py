"""What every node reads: private text of its own, and one validation text that nobody trains on.

Default text: the sources (.rs, .md, .toml) of the crates in Cargo.lock that cargo has downloaded. Whole
crates are dealt out, so no two nodes share a file, and other crates still are held out; of each crate only one
version is used, because two versions are nearly the same text. Which crates go where follows from the seed
and their names alone. The texts are copied into DIR/data: a few megabytes, which stay as they were read.

With --data: all text in path order is one long text; its end is held out, and the rest is cut into one
contiguous region for each node.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Tuple

from testnet.options import ROOT, UserError

# Of the default text at most this much for each node: some ten times what 40 rounds of nano read.
NODE_BYTES = 4_000_000
# The common validation text is at most this long.
VALIDATION_BYTES = 256 * 1024
# This share is held out: of the crates, or of the user's text, and of that no more than VALIDATION_BYTES.
VALIDATION_SHARE = 0.05
# Shorter private texts than this teach nothing; it is also far above any model's context.
MIN_NODE_BYTES = 4096
MIN_VALIDATION_BYTES = 1024
# Larger crates are mostly generated bindings: one would fill a node's share alone.
MAX_CRATE_BYTES = 1_000_000
MIN_CRATE_BYTES = 4096
SOURCE_SUFFIXES = (".rs", ".md", ".toml")
# How much of a file is looked at to tell text from binary.
PROBE_BYTES = 8192


@dataclass
class Split:
    """Where the texts are, in node order, and one sentence that says what they are."""

    nodes: List[Path]
    validation: Path
    summary: str


@dataclass
class Crate:
    """One downloaded crate: `files` are its sources in path order."""

    name: str
    files: List[Path]
    size: int


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def _sources(folder: Path) -> Tuple[List[Path], int]:
    """The source files below `folder` in path order, and their total size; links are not followed."""
    files, size = [], 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if name.endswith(SOURCE_SUFFIXES) and name != "Cargo.toml.orig":
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    files.append(path)
                    size += found.st_size
    return files, size


def _version_key(version: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0]))


def locked_crates(lock: Path) -> Dict[str, str]:
    """The crates that Cargo.lock takes from a registry: name to highest version."""
    newest: Dict[str, str] = {}
    for block in lock.read_text().split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(name|version|source) = "([^"]*)"', block, re.MULTILINE))
        if fields.get("source", "").startswith(("registry+", "sparse+")):
            name, version = fields["name"], fields["version"]
            if name not in newest or _version_key(newest[name]) < _version_key(version):
                newest[name] = version
    return newest


def downloaded_crates(lock: Path, cargo_home: Path) -> List[Crate]:
    """The crates of `lock` whose sources lie in cargo's registry, except very small and very large ones."""
    registries = sorted((cargo_home / "registry" / "src").glob("*/"))
    crates = []
    for name, version in sorted(locked_crates(lock).items()):
        for registry in registries:
            folder = registry / f"{name}-{version}"
            if folder.is_dir():
                files, size = _sources(folder)
                if MIN_CRATE_BYTES <= size <= MAX_CRATE_BYTES:
                    crates.append(Crate(name, files, size))
                break
    return crates


def deal(crates: List[Crate], nodes: int, seed: int) -> Tuple[List[List[Crate]], List[Crate]]:
    """Deals the crates out: one hand for each node, and those held out. No crate is in two of them.

    The order of dealing follows from `seed` and the names. The first twentieth is held out; then crates are
    drawn until every node can have NODE_BYTES; of those the largest goes to whoever has least, and so on."""

    def order(crate: Crate) -> bytes:
        return hashlib.sha256(f"{seed}/{crate.name}".encode()).digest()

    shuffled = sorted(crates, key=order)
    count = max(1, round(len(shuffled) * VALIDATION_SHARE))
    held_out = shuffled[:count]
    drawn, size = [], 0
    for crate in shuffled[count:]:
        if size + crate.size <= nodes * NODE_BYTES:
            drawn.append(crate)
            size += crate.size
    hands: List[List[Crate]] = [[] for _ in range(nodes)]
    sizes = [0] * nodes
    for crate in sorted(drawn, key=lambda c: (-c.size, c.name)):
        poorest = sizes.index(min(sizes))
        hands[poorest].append(crate)
        sizes[poorest] += crate.size
    if min(sizes) < MIN_NODE_BYTES:
        raise UserError(
            f"the {len(crates)} downloaded crates are too little text for {nodes} nodes; "
            "name your own with --data, or let cargo fetch the sources: cargo fetch"
        )
    return hands, held_out


def _spread(crates: List[Crate], limit: int) -> bytes:
    """At most `limit` bytes, the same share from the middle of each crate."""
    total = sum(crate.size for crate in crates)
    share = min(1.0, limit / total)
    parts = []
    for crate in sorted(crates, key=lambda c: c.name):
        text = b"".join(path.read_bytes() for path in crate.files)
        length = int(len(text) * share)
        start = (len(text) - length) // 2
        parts.append(text[start : start + length])
    return b"".join(parts)


def split_crates(out: Path, nodes: int, seed: int, lock: Path, cargo_home: Path) -> Split:
    """Deals the downloaded crates out to DIR/data/node-1/CRATE ... and DIR/data/validation.txt."""
    crates = downloaded_crates(lock, cargo_home)
    if not crates:
        raise UserError(
            f"no sources of downloaded crates in {cargo_home / 'registry' / 'src'}; "
            "get them with 'cargo fetch', or name your own text with --data"
        )
    hands, held_out = deal(crates, nodes, seed)
    folders = []
    for number, hand in enumerate(hands, 1):
        folder = out / f"node-{number}"
        for crate in hand:
            # A crate's files become one, in path order: the folder shows what the node reads.
            (folder / crate.name).mkdir(parents=True)
            with (folder / crate.name / "sources.txt").open("wb") as sink:
                for path in crate.files:
                    sink.write(path.read_bytes())
        folders.append(folder)
    validation = out / "validation.txt"
    validation.write_bytes(_spread(held_out, VALIDATION_BYTES))
    sizes = [sum(crate.size for crate in hand) for hand in hands]
    summary = (
        f"Rust crates that the build downloaded: {_megabytes(min(sizes))} for each node from "
        f"{min(map(len, hands))} or more crates of its own; {len(held_out)} other crates held out, of which "
        f"{_megabytes(validation.stat().st_size)} are the common validation text"
    )
    return Split(folders, validation, summary)


def _text_files(path: Path) -> Tuple[List[Tuple[Path, int]], int]:
    """The text files in `path` with their sizes, in path order, and how many others were left out."""
    if path.is_file():
        candidates: Iterator[Path] = iter([path])
    else:
        candidates = (
            Path(place) / name for place, folders, names in os.walk(path) if folders.sort() is None for name in sorted(names)
        )
    texts, others = [], 0
    for file in candidates:
        found = file.stat() if file == path else file.lstat()
        if not stat.S_ISREG(found.st_mode):
            others += 1
            continue
        try:
            with file.open("rb") as source:
                is_text = b"\0" not in source.read(PROBE_BYTES)
        except PermissionError:
            if file == path:
                raise UserError(f"--data {path} cannot be read: permission denied")
            is_text = False
        if is_text and found.st_size:
            texts.append((file, found.st_size))
        else:
            others += 1
    return texts, others


class _Stream:
    """Many files read as one."""

    def __init__(self, files: List[Tuple[Path, int]]) -> None:
        self._files = iter(files)
        self._source: BinaryIO = open(os.devnull, "rb")

    def copy(self, length: int, target: Path) -> None:
        """Writes the next `length` bytes to `target`, or fewer if the text ends."""
        with target.open("wb") as sink:
            while length > 0:
                block = self._source.read(min(length, 1 << 20))
                if block:
                    sink.write(block)
                    length -= len(block)
                    continue
                self._source.close()
                following = next(self._files, None)
                if following is None:
                    return
                self._source = following[0].open("rb")

    def close(self) -> None:
        self._source.close()


def split_text(path: Path, out: Path, nodes: int) -> Split:
    """Cuts the text in `path` into DIR/data/node-1.txt ... and DIR/data/validation.txt, its end."""
    if not path.is_file() and not path.is_dir():
        raise UserError(f"--data {path} is neither a file nor a folder")
    files, others = _text_files(path)
    total = sum(size for _, size in files)
    if not files:
        found = f"{others} other files" if path.is_dir() else "an empty or binary file"
        raise UserError(f"--data {path} holds no text, only {found}; name a text file or a folder with text files")
    held_out = min(int(total * VALIDATION_SHARE), VALIDATION_BYTES)
    region = (total - held_out) // nodes
    if region < MIN_NODE_BYTES or held_out < MIN_VALIDATION_BYTES:
        least = max(int(nodes * MIN_NODE_BYTES / (1 - VALIDATION_SHARE)), int(MIN_VALIDATION_BYTES / VALIDATION_SHARE)) + nodes
        raise UserError(
            f"--data {path} holds {total} bytes of text, but {nodes} nodes need at least {least}; "
            "name a larger text or fewer --nodes"
        )
    out.mkdir(parents=True, exist_ok=True)
    stream = _Stream(files)
    places = [out / f"node-{number}.txt" for number in range(1, nodes + 1)]
    for place in places[:-1]:
        stream.copy(region, place)
    stream.copy(total - held_out - region * (nodes - 1), places[-1])
    validation = out / "validation.txt"
    stream.copy(held_out, validation)
    stream.close()
    summary = f"{path}: {_megabytes(region)} for each node, the last {_megabytes(held_out)} held out for validation"
    if others:
        summary += f"; {others} files that are empty, unreadable or not text left out"
    return Split(places, validation, summary)


def default_cargo_home() -> Path:
    return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def prepare(data: "Path | None", out: Path, nodes: int, seed: int) -> Split:
    """Writes every node's text and the validation text into `out`."""
    if data:
        return split_text(data, out, nodes)
    return split_crates(out, nodes, seed, ROOT / "Cargo.lock", default_cargo_home())
