#!/usr/bin/env bash
# Puts the programs that exports are compared with, `transformers` and llama.cpp, into the ignored folder .interop of
# the repository, then runs the test that compares them with swarm. Does nothing twice; safe to interrupt.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<END
usage: scripts/interop.sh [--install] [--help]

Installs transformers and PyTorch (PyPI), and llama.cpp as node-llama-cpp brings it along (npm), into
$root/.interop, then runs: cargo test --workspace --test interop

  --install  install only
  --help     this text

PyTorch's package for Linux is large (3 GB to download, with libraries for GPUs that are not used here). A PyTorch
that is installed already serves as well: name the folder that it is in, its site-packages, in SWARM_TORCH.
Needs python3 with venv, node (20 or later) and npm.
END
}

install_only=0
for argument in "$@"; do
    case $argument in
    --install) install_only=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $argument" ;;
    esac
done

need_python
command -v npm >/dev/null 2>&1 || fail "npm is not installed" "get Node.js 20 or later from https://nodejs.org"
into=$root/.interop
python=$into/venv/bin/python
mkdir -p "$into/llama"

if ! "$python" -c 'import transformers, torch, safetensors' >/dev/null 2>&1; then
    step "transformers and PyTorch"
    python3 -m venv "$into/venv"
    if [ -n "${SWARM_TORCH:-}" ]; then
        [ -d "$SWARM_TORCH/torch" ] || fail "SWARM_TORCH is $SWARM_TORCH, which has no folder torch"
        echo "$SWARM_TORCH" >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/swarm-torch.pth"
    else
        "$python" -m pip install --disable-pip-version-check -q torch==2.13.0
    fi
    "$python" -m pip install --disable-pip-version-check -q \
        transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy
fi

if [ ! -d "$into/llama/node_modules/node-llama-cpp" ]; then
    step "llama.cpp"
    cd "$into/llama"
    [ -f package.json ] || echo '{ "private": true }' >package.json
    # Its scripts would look for a compiler; what it brings along is built.
    npm install --ignore-scripts --no-audit --no-fund node-llama-cpp@3.22.1
fi
echo "transformers and llama.cpp are in $into"
[ "$install_only" = 0 ] || exit 0

need_cargo
cd "$root"
step "swarm, transformers and llama.cpp"
exec cargo test -j2 --workspace --test interop -- --nocapture
