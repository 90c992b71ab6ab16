#!/usr/bin/env bash
# Trains one model with a whole swarm on this machine and writes a report: see --help.
# This part checks the command line, gets libtorch and builds; scripts/testnet/ does the rest.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_python
for argument in "$@"; do
    case $argument in
    -h | --help) exec python3 -B "$root/scripts/testnet" --help ;;
    esac
done
# A mistake in the command line shows now, not after the build.
python3 -B "$root/scripts/testnet" --check "$@"

if [ -z "${SWARM_BIN:-}" ]; then
    need_cargo
    need_compiler
    "$root/scripts/libtorch.sh"
    echo "building swarm (the first time takes several minutes)"
    # Paths in CARGO_TARGET_DIR count from where the user is; .cargo/config.toml is found from the repository.
    case ${CARGO_TARGET_DIR:-/} in
    /*) ;;
    *) export CARGO_TARGET_DIR="$PWD/$CARGO_TARGET_DIR" ;;
    esac
    (cd "$root" && cargo build --release -j2 -p swarm-node)
    SWARM_BIN=$(target_dir)/release/swarm
fi
export SWARM_BIN
exec python3 -B "$root/scripts/testnet" "$@"
