#!/usr/bin/env bash
# What the project depends on: licences, sources and bans; with --advisories also known vulnerabilities, for which
# cargo-deny fetches the advisory database from the network. Says so and passes where cargo-deny is not installed
# (cargo install cargo-deny --locked).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "left out: cargo-deny is not installed, so dependencies' licences and sources are not checked"
    exit 0
fi
case ${1:-} in
--advisories) cargo deny --locked --config .ci/deny.toml check advisories ;;
"") cargo deny --locked --offline --config .ci/deny.toml check licenses sources bans ;;
*)
    echo "usage: .ci/deny.sh [--advisories]" >&2
    exit 2
    ;;
esac
