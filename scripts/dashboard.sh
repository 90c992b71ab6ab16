#!/usr/bin/env bash
# Puts what drives a browser, Playwright, and a Chromium if this machine has none, into the ignored folder .dashboard of
# the repository, then runs the tests that open the dashboard in it. Does nothing twice; safe to interrupt.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<END
usage: scripts/dashboard.sh [--install] [--help]

Installs Playwright (PyPI) and axe-core (npm, if it is there) into $root/.dashboard, then runs:
cargo test --workspace --test dashboard

  --install  install only
  --help     this text

The browser is the first of these that starts: the program that CHROMIUM in the environment names; chromium,
chromium-browser, google-chrome or chrome in PATH (Debian, Ubuntu: apt-get install chromium); the one in the package
@sparticuz/chromium (npm, Linux on x86-64); the one that 'playwright install' fetches.
Needs python3 with venv.
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
into=$root/.dashboard
python=$into/venv/bin/python
mkdir -p "$into/npm"

if ! "$python" -c 'import playwright' >/dev/null 2>&1; then
    step "Playwright"
    python3 -m venv "$into/venv"
    "$python" -m pip install --disable-pip-version-check -q playwright==1.65.2
fi

npm_install() {
    command -v npm >/dev/null 2>&1 || return 1
    [ -f "$into/npm/package.json" ] || echo '{ "private": true }' >"$into/npm/package.json"
    [ -d "$into/npm/node_modules/$1" ] ||
        (cd "$into/npm" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error "$1@$2")
}

# starts PROGRAM [LIBRARIES]: whether it is a browser that works here; notes it down if so.
starts() {
    [ -n "$1" ] || return 1
    "$python" -B "$root/scripts/dashboard/browser.py" "$@" >/dev/null 2>&1 || return 1
    printf '%s\n' "$@" >"$into/browser"
}

find_browser() {
    starts "${CHROMIUM:-}" && return
    local name
    for name in chromium chromium-browser google-chrome chrome; do
        starts "$(command -v "$name" || true)" && return
    done
    if npm_install @sparticuz/chromium 153.0.0; then
        local found
        found=$(node "$root/scripts/dashboard/unpack.mjs" "$into/npm") || found=
        # A system without the libraries that it needs has to take those that came with it.
        starts "$(sed -n 1p <<<"$found")" && return
        starts "$(sed -n 1p <<<"$found")" "$(sed -n 2p <<<"$found")" && return
    fi
    "$python" -m playwright install chromium --only-shell >/dev/null 2>&1 || return 1
    starts "$("$python" -c 'from playwright.sync_api import sync_playwright as p
with p() as run: print(run.chromium.executable_path)')"
}

if ! { [ -s "$into/browser" ] && "$python" -B "$root/scripts/dashboard/browser.py" >/dev/null 2>&1; }; then
    step "a Chromium"
    find_browser || fail "no Chromium starts here" \
        "Debian, Ubuntu: sudo apt-get install chromium" "or name one: CHROMIUM=/path/to/chrome scripts/dashboard.sh"
fi
npm_install axe-core 4.14.1 || echo "axe-core is left out: npm is not installed, or does not reach its registry"
echo "the browser is $(head -n 1 "$into/browser")"
[ "$install_only" = 0 ] || exit 0

need_cargo
cd "$root"
step "the dashboard in a browser"
exec cargo test -j2 --workspace --test dashboard -- --nocapture
