"""Tests of scripts/libtorch.sh that download nothing."""

import hashlib
import os
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path

import fetch
from wheels import Wheel, wheels

SCRIPT = Path(__file__).resolve().parent.parent / "libtorch.sh"
TORCH_H = "include/torch/csrc/api/include/torch/torch.h"


class Place(unittest.TestCase):
    def setUp(self):
        self._place = tempfile.TemporaryDirectory()
        self.addCleanup(self._place.cleanup)
        self.place = Path(self._place.name)


class Pins(unittest.TestCase):
    def test_every_platform_has_torch_and_whole_digests(self):
        for platform in ("linux-x86_64", "linux-aarch64", "macos-arm64"):
            for variant in ("cpu", "cuda"):
                found = wheels(platform, variant)
                self.assertEqual(found[0].name, "torch")
                for wheel in found:
                    self.assertRegex(wheel.sha256, "^[0-9a-f]{64}$")
                    self.assertGreater(wheel.megabytes, 0)
        digests = [w.sha256 for p in ("linux-x86_64", "linux-aarch64", "macos-arm64") for w in wheels(p, "cuda")]
        self.assertEqual(len(digests), len(set(digests)))


class Members(Place):
    def test_cpu_takes_no_cuda(self):
        cases = {
            "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
            "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
            "torch/lib/libarm_compute.so": "lib/libarm_compute.so",
            "torch/" + TORCH_H: TORCH_H,
            "torch/lib/libtorch.so": None,
            "torch/lib/libtorch_cuda.so": None,
            "torch/lib/libtorch_cuda_linalg.so": None,
            "torch/lib/libcaffe2_nvrtc.so": None,
            "torch/lib/libtorch_nvshmem.so": None,
            "torch/lib/libtorch_python.so": None,
            "torch/nn/modules.py": None,
            "nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13",
            "nvidia/cu13/lib/libcupti.so.13": "lib/libcupti.so.13",
            "nvidia/cu13/lib/libnvperf_host.so": None,
            "nvidia/cu13/include/cuda.h": None,
        }
        for member, place in cases.items():
            self.assertEqual(fetch.wanted(member, "linux-x86_64", "cpu"), place, member)

    def test_cuda_and_macos_take_the_libraries_as_they_are(self):
        for member in ("torch/lib/libtorch.so", "torch/lib/libtorch_cuda.so", "nvidia/cublas/lib/libcublas.so.13"):
            self.assertEqual(fetch.wanted(member, "linux-x86_64", "cuda"), "lib/" + member.rsplit("/", 1)[1])
        self.assertEqual(fetch.wanted("torch/lib/libtorch.dylib", "macos-arm64", "cpu"), "lib/libtorch.dylib")
        self.assertIsNone(fetch.wanted("torch/lib/libtorch_python.dylib", "macos-arm64", "cpu"))

    def test_nothing_is_unpacked_outside(self):
        wheel = self.place / "a.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("torch/include/../../../evil.h", "x")
            archive.writestr("torch/include/good.h", "x")
        tree = self.place / "deep" / "tree"
        fetch.unpack(wheel, tree, "linux-x86_64", "cpu")
        files = sorted(path.name for path in self.place.rglob("*") if path.is_file())
        self.assertEqual(files, ["a.whl", "good.h"])

    def test_layout_is_what_torch_sys_links(self):
        tree = self.place / "tree"
        wheel = self.place / "a.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for member in (TORCH_H, "lib/libtorch_cpu.so", "lib/libc10.so", "lib/libgomp.so.1", "lib/libtorch.so"):
                archive.writestr("torch/" + member, "x")
        fetch.unpack(wheel, tree, "linux-x86_64", "cpu")
        fetch.finish(tree, "linux-x86_64", "cpu")
        self.assertEqual((tree / "lib" / "libtorch.so").read_text(), "INPUT(-ltorch_cpu)\n")
        self.assertEqual(os.readlink(tree / "lib" / "libgomp.so"), "libgomp.so.1")
        self.assertEqual((tree / "build-version").read_text(), "2.13.0\n")


class Resuming(Place):
    def test_a_whole_download_is_used_and_a_damaged_one_removed(self):
        path = self.place / "a.whl"
        path.write_bytes(b"content")
        whole = Wheel("a", "1", "any", 1, hashlib.sha256(b"content").hexdigest())
        self.assertEqual(fetch.cached(self.place, whole), path)
        path.write_bytes(b"contenT")
        self.assertIsNone(fetch.cached(self.place, whole))
        self.assertFalse(path.exists())


class OwnLibtorch(Place):
    def run_it(self, libtorch, *arguments):
        environment = dict(os.environ, LIBTORCH=str(libtorch))
        done = subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def make(self, version):
        for name in (TORCH_H, "lib/libtorch_cpu.so", "lib/libtorch_cpu.dylib"):
            path = self.place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        (self.place / "build-version").write_text(version + "\n")

    def test_wins_if_it_is_the_right_one(self):
        for version in ("2.13.0", "2.13.0+cpu"):
            self.make(version)
            code, output = self.run_it(self.place)
            self.assertEqual(code, 0, output)
            self.assertIn(f"yours, {version}", output)

    def test_each_fault_is_told(self):
        faults = [
            ("relative", "has to be an absolute path"),
            (self.place / "nowhere", "is not a folder"),
            (self.place, "has no torch headers"),
        ]
        for libtorch, message in faults:
            code, output = self.run_it(libtorch)
            self.assertEqual(code, 1)
            self.assertIn(message, output)
        self.make("2.4.1")
        self.assertIn("is libtorch 2.4.1, but tch needs 2.13.0", self.run_it(self.place)[1])
        (self.place / "build-version").unlink()
        self.assertIn("has no file build-version", self.run_it(self.place)[1])
        self.assertIn("unknown argument: --gpu", self.run_it(self.place, "--gpu")[1])


if __name__ == "__main__":
    unittest.main()
