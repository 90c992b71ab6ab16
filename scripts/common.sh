# shellcheck shell=bash
# What the other scripts share: messages, the repository's root, and checks of the few programs that
# have to be there. Sourced, never run. Works with the bash 3.2 of macOS.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

step() { printf '\n== %s\n' "$*"; }

# fail MESSAGE [REMEDY]...: what is wrong, then one line for each thing to do about it.
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for remedy in "$@"; do printf '  %s\n' "$remedy" >&2; done
    exit 1
}

need_python() {
    command -v python3 >/dev/null 2>&1 || fail "python3 is not installed" \
        "Debian, Ubuntu: sudo apt-get install python3 python3-venv" \
        "Fedora: sudo dnf install python3" \
        "macOS: xcode-select --install"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        fail "python3 is $(python3 --version 2>&1), but 3.9 or later is needed" \
            "install a newer Python and put it first in PATH"
}

need_cargo() {
    if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
        export PATH
    fi
    command -v cargo >/dev/null 2>&1 || fail "cargo is not installed" \
        "get it from https://rustup.rs, then open a new shell"
}

# torch-sys compiles C++ against libtorch; cargo links with cc.
need_compiler() {
    { command -v "${CXX:-c++}" && command -v cc; } >/dev/null 2>&1 ||
        fail "no C++ compiler: '${CXX:-c++}' and 'cc' have to be in PATH" \
            "Debian, Ubuntu: sudo apt-get install build-essential" \
            "Fedora: sudo dnf install gcc-c++" \
            "macOS: xcode-select --install"
}

# Where cargo puts what it builds, as an absolute path.
target_dir() {
    (cd "$root" && cargo metadata --format-version 1 --no-deps) |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}
