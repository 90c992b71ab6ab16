"""Builds the folder .libtorch from PyTorch's own wheels. Started by scripts/libtorch.sh.

Everything happens in .libtorch.partial, which ignores itself in git; each wheel that arrived whole stays
there until the end, so an interrupted run goes on with the next one. Only the finished folder is renamed to
.libtorch: what carries that name is complete.

Layout (Linux, CPU): the wheel's include/, its CPU libraries, libcudart and libcupti (libtorch_cpu.so is
linked to them), libgomp.so for the linker, and for libtorch.so a linker script that means libtorch_cpu.so,
because the wheel's own drags in CUDA. torch-sys links CUDA if lib/libtorch_cuda.so exists: leaving it out
is what makes a CPU build. With CUDA the libraries of all wheels lie side by side in lib/, where the
wheel's rpath ($ORIGIN) finds them. macOS: the wheel's dylibs as they are (written from the wheel's listing;
not run by the authors, as is Linux on aarch64).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import List, Optional

from wheels import VERSION, Wheel, installed_megabytes, wheels

# Not for linking C++ programs: the Python bindings and the preloader of the Python package.
PYTHON_ONLY = re.compile(r"libtorch_python\.|libtorch_global_deps\.")
CUDA_ONLY = re.compile(r"cuda|nvrtc|nvshmem")


def fail(message: str, *remedies: str) -> "None":
    """Says what is wrong and what to do about it, and ends the program."""
    sys.exit("\n  ".join(("error: " + message,) + remedies))


def digest(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha256.update(block)
    return sha256.hexdigest()


def cached(folder: Path, wheel: Wheel) -> Optional[Path]:
    """The wheel, if an earlier run or this one downloaded it whole."""
    for path in sorted(folder.glob("*.whl")):
        if digest(path) == wheel.sha256:
            return path
        path.unlink()
    return None


def pip(partial: Path) -> List[str]:
    """A command that runs pip from a private environment, so that nothing of the user's is touched."""
    python = partial / "venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if not python.exists() or subprocess.run(command + ["--version"], capture_output=True).returncode:
        print("libtorch: making a private Python environment for pip", flush=True)
        try:
            venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(partial / "venv")
        except (OSError, subprocess.CalledProcessError, SystemExit) as error:
            fail(f"python3 -m venv does not work here ({error})", "Debian, Ubuntu: sudo apt-get install python3-venv")
    return command


def download(partial: Path, wheel: Wheel, number: str) -> Path:
    folder = partial / "wheels" / wheel.name
    folder.mkdir(parents=True, exist_ok=True)
    path = cached(folder, wheel)
    if path:
        print(f"libtorch: {number} {wheel.name} {wheel.version} is downloaded already", flush=True)
        return path
    print(f"libtorch: {number} downloading {wheel.name} {wheel.version} ({wheel.megabytes} MB)", flush=True)
    # Hash-checking mode: pip refuses a file that is not the pinned one.
    requirements = partial / "requirements.txt"
    requirements.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    scratch = partial / "tmp"
    scratch.mkdir(exist_ok=True)
    command = pip(partial) + ["download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
    command += ["--platform", wheel.platform, "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    code = subprocess.run(command, env=dict(os.environ, TMPDIR=str(scratch))).returncode
    path = None if code else cached(folder, wheel)
    if not path:
        fail(
            f"{wheel.name} {wheel.version} could not be downloaded (see pip's message above)",
            "check the network, or pip's index and proxy settings, and run this again:",
            "what has arrived is kept.",
        )
    return path


def wanted(member: str, platform: str, variant: str) -> Optional[str]:
    """Where a file of a wheel goes below .libtorch, or None if it is not needed."""
    if member.startswith("torch/include/") and not member.endswith("/"):
        return member[len("torch/") :]
    if not re.fullmatch(r"(torch/lib|nvidia/[^/]+/lib)/[^/]+\.(so[.0-9]*|dylib)", member):
        return None
    name = member.rsplit("/", 1)[1]
    if PYTHON_ONLY.search(name):
        return None
    if variant == "cpu" and platform.startswith("linux"):
        if member.startswith("nvidia/"):
            return "lib/" + name if re.match(r"libcudart\.so|libcupti\.so", name) else None
        if CUDA_ONLY.search(name) or name == "libtorch.so":
            return None
    return "lib/" + name


def unpack(path: Path, tree: Path, platform: str, variant: str) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            place = wanted(member.filename, platform, variant)
            # A wheel is pinned by its digest; the check costs nothing and rules a path outside out.
            if place is None or ".." in place.split("/"):
                continue
            target = tree / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def finish(tree: Path, platform: str, variant: str) -> None:
    lib = tree / "lib"
    if platform.startswith("linux"):
        (lib / "libgomp.so").symlink_to("libgomp.so.1")
        if variant == "cpu":
            (lib / "libtorch.so").write_text("INPUT(-ltorch_cpu)\n")
    suffix = "dylib" if platform.startswith("macos") else "so"
    for name in ("include/torch/csrc/api/include/torch/torch.h", f"lib/libtorch_cpu.{suffix}", f"lib/libc10.{suffix}"):
        if not (tree / name).is_file():
            fail(f"the torch wheel does not contain {name}: this is a fault of scripts/libtorch")
    (tree / "build-version").write_text(VERSION + "\n")


def check_space(root: Path, partial: Path, needed: List[Wheel], platform: str, variant: str) -> None:
    missing = sum(w.megabytes for w in needed if not list((partial / "wheels" / w.name).glob("*.whl")))
    # pip writes a download to its scratch folder first; 100 MB are for the environment it runs in.
    megabytes = 2 * missing + installed_megabytes(platform, variant) + 100
    free = shutil.disk_usage(root).free // 1_000_000
    if free < megabytes:
        fail(
            f"libtorch needs about {megabytes} MB of disk while it is put together, but {root} has only {free} MB free",
            "free some space, or set LIBTORCH to a libtorch that is elsewhere",
        )


def is_complete(folder: Path, variant: str) -> bool:
    try:
        version = (folder / "build-version").read_text().strip()
    except OSError:
        return False
    return version == VERSION and (variant == "cpu" or (folder / "lib" / "libtorch_cuda.so").exists())


def main(root: Path, platform: str, variant: str) -> None:
    final, partial = root / ".libtorch", root / ".libtorch.partial"
    if final.is_symlink():
        fail(f"{final} is a link to {os.readlink(final)}, which is not libtorch {VERSION} ({variant})", "remove the link")
    partial.mkdir(exist_ok=True)
    (partial / ".gitignore").write_text("*\n")
    with (partial / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("libtorch: another run is fetching it; waiting", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_complete(final, variant):
            print(f"libtorch: {VERSION} is in {final}", flush=True)
            return
        needed = wheels(platform, variant)
        check_space(root, partial, needed, platform, variant)
        megabytes = sum(wheel.megabytes for wheel in needed)
        print(f"libtorch: fetching {VERSION} ({platform}, {variant}): {len(needed)} files, {megabytes} MB", flush=True)
        paths = [download(partial, wheel, f"[{i}/{len(needed)}]") for i, wheel in enumerate(needed, 1)]
        tree = partial / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for path in paths:
            print(f"libtorch: unpacking {path.name}", flush=True)
            unpack(path, tree, platform, variant)
        finish(tree, platform, variant)
        replaced = final.exists()
        if replaced:
            shutil.rmtree(partial / "old", ignore_errors=True)
            final.rename(partial / "old")
        tree.rename(final)
    shutil.rmtree(partial)
    print(f"libtorch: {VERSION} is in {final}", flush=True)
    if replaced:
        print("libtorch: it replaces another one: run 'cargo clean -p torch-sys -p swarm-node' before the next build")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    except KeyboardInterrupt:
        sys.exit("\nlibtorch: interrupted; run this again to go on")
    except OSError as problem:
        fail(f"libtorch could not be put together: {problem}", "run this again to go on")
