#!/usr/bin/env bash
# Puts libtorch, the C++ library of PyTorch, into the ignored folder .libtorch of the repository, where
# .cargo/config.toml points every cargo command. Does nothing when it is there already, or when LIBTORCH
# names a libtorch of your own. Safe to interrupt and to run again.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=2.13.0

usage() {
    cat <<EOF
usage: scripts/libtorch.sh [--cuda] [--help]

Puts libtorch $version into $root/.libtorch
(Linux x86_64 and aarch64, macOS arm64). Finished downloads survive an interruption.

  --cuda    with the NVIDIA CUDA libraries (Linux; 2.5 GB to download, 4 GB on disk);
            SWARM_CUDA=1 in the environment means the same. Without it: CPU only.
  --help    this text

To use a libtorch of your own, set LIBTORCH to its folder (with include/, lib/ and build-version).
EOF
}

cuda=${SWARM_CUDA:-0}
for argument in "$@"; do
    case $argument in
    --cuda) cuda=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $argument" ;;
    esac
done
case $cuda in
0 | 1) ;;
*) fail "SWARM_CUDA is '$cuda', but has to be 0 or 1" ;;
esac

# lib_of FOLDER: the main library's path, whichever the platform calls it.
lib_of() {
    if [ "$(uname -s)" = Darwin ]; then echo "$1/lib/libtorch_cpu.dylib"; else echo "$1/lib/libtorch_cpu.so"; fi
}

check_own() {
    local remedy="correct LIBTORCH, or unset it and run this script: it fetches libtorch $version"
    case $LIBTORCH in
    /*) ;;
    *) fail "LIBTORCH is '$LIBTORCH', but has to be an absolute path" "$remedy" ;;
    esac
    [ -d "$LIBTORCH" ] || fail "LIBTORCH is $LIBTORCH, which is not a folder" "$remedy"
    [ -f "$LIBTORCH/include/torch/csrc/api/include/torch/torch.h" ] ||
        fail "LIBTORCH is $LIBTORCH, but its include/ has no torch headers" "$remedy"
    [ -f "$(lib_of "$LIBTORCH")" ] || fail "LIBTORCH is $LIBTORCH, but $(lib_of "$LIBTORCH") is missing" "$remedy"
    [ -f "$LIBTORCH/build-version" ] ||
        fail "LIBTORCH is $LIBTORCH, but has no file build-version, so its version is unknown" \
            "if it is $version: echo $version > $LIBTORCH/build-version" "$remedy"
    local found
    found=$(head -n 1 "$LIBTORCH/build-version")
    case $found in
    "$version" | "$version"+*) ;;
    *) fail "LIBTORCH is $LIBTORCH, which is libtorch $found, but tch needs $version" "$remedy" ;;
    esac
    echo "libtorch: yours, $found, from LIBTORCH=$LIBTORCH"
}

# Complete means: the version is right (that file is written last) and CUDA is there if asked for.
is_complete() {
    [ -f "$root/.libtorch/build-version" ] && [ -f "$(lib_of "$root/.libtorch")" ] || return 1
    case $(head -n 1 "$root/.libtorch/build-version") in
    "$version"*) ;;
    *) return 1 ;;
    esac
    [ "$cuda" = 0 ] || [ -f "$root/.libtorch/lib/libtorch_cuda.so" ]
}

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$root/.libtorch" ]; then
    check_own
    exit 0
fi
if is_complete; then
    echo "libtorch: $version is in $root/.libtorch"
    exit 0
fi

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) platform=linux-x86_64 ;;
Linux-aarch64 | Linux-arm64) platform=linux-aarch64 ;;
Darwin-arm64) platform=macos-arm64 ;;
*) fail "there is no libtorch $version wheel for $(uname -s) on $(uname -m)" \
    "set LIBTORCH to a libtorch $version that you built or downloaded yourself" ;;
esac
[ "$cuda" = 0 ] || [ "$platform" != macos-arm64 ] || fail "CUDA does not exist on macOS" "leave --cuda out"

need_python
if [ "$cuda" = 1 ]; then variant=cuda; else variant=cpu; fi
exec python3 -B "$root/scripts/libtorch/fetch.py" "$root" "$platform" "$variant"
