#!/usr/bin/env bash
# Runs every test of the project. Needs rustup's cargo, python3 with venv, and a C++ compiler; fetches
# libtorch if it is not there yet. Arguments are handed to cargo test: scripts/test.sh -p swarm-protocol
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
-h | --help)
    echo "usage: scripts/test.sh [ARGUMENT OF CARGO TEST]..."
    echo "Runs the scripts' tests, builds the node without training, and runs cargo test --workspace."
    exit 0
    ;;
esac

need_python
need_cargo
need_compiler
cd "$root"

step "libtorch"
scripts/libtorch.sh

step "tests of the scripts"
python3 -B -m unittest discover -s scripts/libtorch
python3 -B -m unittest discover -s scripts/testnet/tests -t scripts

# The tests with several processes use both kinds of node. Both programs are called swarm: this one is kept
# as swarm-replica before the next build replaces it.
step "a node without training (no libtorch in it)"
target=$(target_dir)
cargo build -j2 -p swarm-node --no-default-features
cp "$target/debug/swarm" "$target/debug/swarm-replica.partial"
mv "$target/debug/swarm-replica.partial" "$target/debug/swarm-replica"

# The dashboard is tested in a real browser. Where none can be had, its test says so and is skipped.
step "a browser for the dashboard"
scripts/dashboard.sh --install || echo "left out: the dashboard is not tested in a browser"

step "cargo test --workspace $*"
# All failures of a run, not the first alone: a run is long.
cargo test -j2 --workspace --no-fail-fast "$@"

step "all tests passed"
