"""The texts: nobody shares any, and the same seed gives the same."""

import tempfile
import unittest
from pathlib import Path

from testnet import data
from testnet.options import UserError

LOCK = """
[[package]]
name = "own"
version = "0.1.0"
"""
PACKAGE = """
[[package]]
name = "{}"
version = "{}"
source = "registry+https://github.com/rust-lang/crates.io-index"
"""


class Crates(unittest.TestCase):
    def setUp(self):
        self._place = tempfile.TemporaryDirectory()
        self.addCleanup(self._place.cleanup)
        self.place = Path(self._place.name)
        self.lock = self.place / "Cargo.lock"
        lock = LOCK
        for number in range(30):
            lock += self.crate(f"crate-{number}", "1.0.0", 5000 + 300 * number)
        lock += self.crate("two-versions", "0.9.9", 6000) + self.crate("two-versions", "0.10.0", 6001)
        lock += self.crate("tiny", "1.0.0", 100) + PACKAGE.format("not-downloaded", "1.0.0")
        self.lock.write_text(lock)
        # Downloaded by something else: not this build's, so not used.
        self.crate("foreign", "1.0.0", 9000)

    def crate(self, name, version, size):
        folder = self.place / "registry" / "src" / "index" / f"{name}-{version}"
        (folder / "src").mkdir(parents=True)
        mark = f"// {name} {version}\n"
        (folder / "src" / "lib.rs").write_text(mark + "x" * (size - len(mark) - 1) + "\n")
        (folder / "LICENSE").write_text("not a source")
        return PACKAGE.format(name, version)

    def split(self, out, seed=0, nodes=3):
        return data.split_crates(self.place / out, nodes, seed, self.lock, self.place)

    @staticmethod
    def content(folder):
        return {path.parent.name: path.read_bytes() for path in sorted(folder.rglob("*.txt"))}

    def test_crates_are_those_of_the_lock_in_one_version(self):
        crates = {crate.name: crate for crate in data.downloaded_crates(self.lock, self.place)}
        self.assertEqual(set(crates), {f"crate-{n}" for n in range(30)} | {"two-versions"})
        self.assertEqual(crates["two-versions"].size, 6001, "0.10.0 is newer than 0.9.9")

    def test_disjoint_and_balanced(self):
        split = self.split("data")
        names = [set(self.content(node)) for node in split.nodes]
        self.assertEqual(len(set.union(*names)), sum(map(len, names)), "a crate is with two nodes")
        marks = {line for line in split.validation.read_text().splitlines() if line.startswith("//")}
        for node in split.nodes:
            for text in self.content(node).values():
                self.assertNotIn(text.decode().splitlines()[0], marks, "a training text is held out, too")
        sizes = [sum(map(len, self.content(node).values())) for node in split.nodes]
        self.assertLess(max(sizes) - min(sizes), 0.1 * max(sizes))
        self.assertGreater(split.validation.stat().st_size, 0)
        self.assertLessEqual(split.validation.stat().st_size, data.VALIDATION_BYTES)

    def test_held_out_crates_are_with_no_node(self):
        crates = data.downloaded_crates(self.lock, self.place)
        hands, held_out = data.deal(crates, 3, 0)
        dealt = [crate.name for hand in hands for crate in hand] + [crate.name for crate in held_out]
        self.assertEqual(len(dealt), len(set(dealt)))
        self.assertEqual(set(dealt), {crate.name for crate in crates})

    def test_seed_decides(self):
        first, same, other = self.split("a"), self.split("b"), self.split("c", seed=1)
        self.assertEqual([self.content(n) for n in first.nodes], [self.content(n) for n in same.nodes])
        self.assertEqual(first.validation.read_bytes(), same.validation.read_bytes())
        self.assertNotEqual([self.content(n) for n in first.nodes], [self.content(n) for n in other.nodes])

    def test_too_few_crates(self):
        with self.assertRaisesRegex(UserError, "too little text for 40 nodes"):
            self.split("data", nodes=40)
        with self.assertRaisesRegex(UserError, "cargo fetch"):
            data.split_crates(self.place / "x", 2, 0, self.lock, self.place / "elsewhere")


class Text(unittest.TestCase):
    def setUp(self):
        self._place = tempfile.TemporaryDirectory()
        self.addCleanup(self._place.cleanup)
        self.place = Path(self._place.name)

    def test_regions_are_contiguous_and_the_end_is_held_out(self):
        whole = b"".join(b"line %d\n" % n for n in range(20_000))
        folder = self.place / "texts"
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_bytes(whole[:70_001])
        (folder / "binary").write_bytes(b"a\0b")
        (folder / "empty").write_bytes(b"")
        (folder / "sub" / "z.md").write_bytes(whole[70_001:])
        (folder / "link").symlink_to(folder / "a.txt")
        split = data.split_text(folder, self.place / "out", 3)
        parts = [path.read_bytes() for path in [*split.nodes, split.validation]]
        self.assertEqual(b"".join(parts), whole)
        self.assertEqual(len(parts[3]), int(len(whole) * data.VALIDATION_SHARE))
        self.assertLess(max(map(len, parts[:3])) - min(map(len, parts[:3])), 3)
        self.assertIn("3 files", split.summary)

    def test_large_text_holds_out_no_more_than_the_limit(self):
        text = self.place / "large.txt"
        text.write_bytes(b"0123456789abcde\n" * 500_000)
        split = data.split_text(text, self.place / "out", 2)
        self.assertEqual(split.validation.stat().st_size, data.VALIDATION_BYTES)
        self.assertEqual(sum(p.stat().st_size for p in split.nodes) + data.VALIDATION_BYTES, text.stat().st_size)

    def test_no_text(self):
        binary = self.place / "binary"
        binary.write_bytes(bytes(100_000))
        with self.assertRaisesRegex(UserError, "holds no text, only an empty or binary file"):
            data.split_text(binary, self.place / "out", 2)
        (self.place / "folder").mkdir()
        with self.assertRaisesRegex(UserError, "holds no text, only 0 other files"):
            data.split_text(self.place / "folder", self.place / "out", 2)

    def test_the_stated_least_size_is_enough(self):
        text = self.place / "text"
        text.write_bytes(b"x" * 100)
        with self.assertRaises(UserError) as raised:
            data.split_text(text, self.place / "out", 7)
        least = int(str(raised.exception).split("at least ")[1].split(";")[0])
        text.write_bytes(b"x" * least)
        self.assertEqual(len(data.split_text(text, self.place / "out", 7).nodes), 7)


if __name__ == "__main__":
    unittest.main()
