#!/usr/bin/env bash
# Writes node/REFERENCE.md, the help of every command. A test says when it is stale.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
-h | --help)
    echo "usage: scripts/reference.sh"
    echo "Writes node/REFERENCE.md from the commands' own help. SWARM_BIN names a program that is built already."
    exit 0
    ;;
esac

if [ -z "${SWARM_BIN:-}" ]; then
    need_cargo
    need_compiler
    "$root/scripts/libtorch.sh"
    (cd "$root" && cargo build -j2 -p swarm-node)
    SWARM_BIN=$(target_dir)/debug/swarm
fi
"$SWARM_BIN" reference >"$root/node/REFERENCE.md.partial"
mv "$root/node/REFERENCE.md.partial" "$root/node/REFERENCE.md"
echo "node/REFERENCE.md is written: $(wc -l <"$root/node/REFERENCE.md") lines"
