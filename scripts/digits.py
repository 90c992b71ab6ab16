"""Writes scikit-learn's bundled handwritten digits (1797 pictures of 8 x 8, from the UCI repository) for a swarm.

    python3 scripts/digits.py OUT [--nodes N] [--share S]

needs scikit-learn (pip install scikit-learn). OUT gets

    digits-images-idx3-ubyte.gz, digits-labels-idx1-ubyte.gz    all of them, in MNIST's format
    node-1.csv ... node-N.csv                                   what each node holds
    validation.csv                                              every fifth picture, which no node holds

A node holds S neighbouring classes of the ten; node 1 begins with class 0, and the others follow evenly. With
--nodes 4 --share 5 every class is with two nodes. Without --share no two nodes share a class.
"""

import argparse
import gzip
import pathlib
import struct
import sys

CLASSES = 10
VALIDATION_EVERY = 5


def read():
    """Pixels from 0 to 255 (bytes of each picture) and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("error: scikit-learn is not installed for this python: pip install scikit-learn")
    digits = load_digits()
    # Their values are 0 to 16.
    pixels = [bytes(int(value) * 255 // 16 for value in picture) for picture in digits.data]
    return pixels, [int(label) for label in digits.target]


def write_idx(out, pixels, labels):
    """MNIST's format; without a time in gzip's header, so that the same digits give the same files."""
    count = len(labels)
    images = struct.pack(">IIII", 0x803, count, 8, 8) + b"".join(pixels)
    names = struct.pack(">II", 0x801, count) + bytes(labels)
    for name, content in [("images-idx3", images), ("labels-idx1", names)]:
        packed = gzip.compress(content, 9, mtime=0)
        (out / f"digits-{name}-ubyte.gz").write_bytes(packed)


def write_csv(path, pixels, labels, chosen):
    rows = (",".join(map(str, [labels[at], *pixels[at]])) for at in chosen)
    path.write_text("\n".join(rows) + "\n")


def classes_of(node, nodes, share):
    first, next_first = node * CLASSES // nodes, (node + 1) * CLASSES // nodes
    return {(first + at) % CLASSES for at in range(share or next_first - first)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--share", type=int)
    options = parser.parse_args()
    nodes, share = options.nodes, options.share
    if not 1 <= nodes <= CLASSES or share is not None and not -(-CLASSES // nodes) <= share <= CLASSES:
        parser.error(f"--nodes {nodes} --share {share}: 1 to 10 nodes whose classes are all ten together")
    pixels, labels = read()
    options.out.mkdir(parents=True, exist_ok=True)
    write_idx(options.out, pixels, labels)
    everything = range(len(labels))
    held = [at for at in everything if at % VALIDATION_EVERY == 0]
    write_csv(options.out / "validation.csv", pixels, labels, held)
    for node in range(nodes):
        classes = classes_of(node, nodes, share)
        chosen = [at for at in everything if at % VALIDATION_EVERY and labels[at] in classes]
        write_csv(options.out / f"node-{node + 1}.csv", pixels, labels, chosen)
        print(f"node-{node + 1}.csv: {len(chosen)} pictures of {sorted(classes)}")
    print(f"validation.csv: {len(held)} pictures of all classes")


if __name__ == "__main__":
    main()
