#!/usr/bin/env bash
# Makes packages that run on machines without Rust and Python: see --help.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

out=$root/target/package
archives=1

usage() {
    cat <<END
usage: scripts/package.sh [--out DIR] [--no-archives] [--help]

Builds swarm for release and puts into DIR (default: $out):

  swarm-VERSION-SYSTEM/          bin/swarm, lib/ with libtorch and what it needs, README.md, LICENSE.
                                 Runs from wherever it is put. Needs the system's C library only.
  swarm-replica-VERSION-SYSTEM/  one program without libtorch: it replicates and passes on, and does not train.
                                 On Linux it needs nothing at all.
  *.tar.gz                       the same, packed

  --out DIR       where to
  --no-archives   the folders only
  --help          this text

SWARM_BIN and SWARM_REPLICA_BIN name programs that are built already, for trying this out.
For Linux and macOS on the machine's own processor.
END
}

while [ $# -gt 0 ]; do
    case $1 in
    --out)
        [ $# -ge 2 ] || fail "--out needs a folder"
        out=$2
        shift
        ;;
    --no-archives) archives=0 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $1" ;;
    esac
    shift
done

system=$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m)
case $system in
linux-* | darwin-*) ;;
*) fail "packages are made on Linux and macOS, and this is $system" ;;
esac

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
[ -n "$version" ] || fail "no version in $root/Cargo.toml"

if [ -z "${SWARM_BIN:-}" ] || [ -z "${SWARM_REPLICA_BIN:-}" ]; then
    need_python
    need_cargo
    need_compiler
    "$root/scripts/libtorch.sh"
    target=$(target_dir)
    mkdir -p "$out"
    # Both programs are called swarm: this one is put aside before the next build replaces it.
    step "the node without training"
    # On Linux with the C library inside. For that the target has to be named, or cargo would build the compiler's
    # plugins so, too.
    triple=$(rustc -vV | sed -n 's/^host: //p')
    case $triple in *-linux-*) inside="-C target-feature=+crt-static" ;; *) inside= ;; esac
    (cd "$root" && RUSTFLAGS="${RUSTFLAGS:-} $inside" \
        cargo build --profile small -j2 -p swarm-node --no-default-features --target "$triple")
    cp "$target/$triple/small/swarm" "$out/swarm-replica.built"
    step "the node"
    (cd "$root" && SWARM_PACKAGE=1 cargo build --release -j2 -p swarm-node)
    SWARM_REPLICA_BIN=$out/swarm-replica.built
    SWARM_BIN=$target/release/swarm
fi
for program in "$SWARM_BIN" "$SWARM_REPLICA_BIN"; do
    [ -x "$program" ] || fail "$program is not a program"
done

# needed_by FILE: the libraries that it needs beside the system's own, one a line: all that the dynamic linker finds
# but the C library; on macOS, where everything else comes with the system, libtorch's.
needed_by() {
    case $system in
    linux-*)
        LD_LIBRARY_PATH="$torch_lib" ldd "$1" | awk '
            /not found/ { print "error: not found: " $1 > "/dev/stderr"; exit 1 }
            $2 == "=>" && $3 ~ /^\// && $1 !~ /^(libc|libm|libdl|librt|libpthread|libutil|libresolv)\.so/ { print $3 }'
        ;;
    *) find "$torch_lib" -name '*.dylib' ;;
    esac
}

# lay_out NAME PROGRAM: a folder with the program, the licence and the manual; its path.
lay_out() {
    folder=$out/$1-$version-$system
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    cp "$2" "$folder/bin/swarm"
    # Names of functions help nobody who has no compiler, and are most of the file.
    strip "$folder/bin/swarm" 2>/dev/null || true
    chmod 755 "$folder/bin/swarm"
    cp "$root/README.md" "$root/LICENSE" "$folder/"
}

mkdir -p "$out"
torch_lib=${LIBTORCH:-$root/.libtorch}/lib
step "packages in $out"
lay_out swarm-replica "$SWARM_REPLICA_BIN"
replica=$folder
lay_out swarm "$SWARM_BIN"
mkdir "$folder/lib"
needed_by "$folder/bin/swarm" | while read -r library; do
    # Copies of what links point to, under the names that are asked for.
    cp -L "$library" "$folder/lib/$(basename "$library")"
done
[ -e "$folder/lib/libc10.so" ] || [ -e "$folder/lib/libc10.dylib" ] ||
    fail "$SWARM_BIN does not use libtorch, so it is a node without training" "name one that trains in SWARM_BIN"

size=$(($(wc -c <"$replica/bin/swarm") / 1000000))
echo "$(basename "$replica"): one program of $size MB"
[ "$size" -lt 20 ] || echo "warning: more than the 20 MB that a node without training should take" >&2
echo "$(basename "$folder"): $(($(du -sk "$folder" | cut -f 1) / 1000)) MB, $(find "$folder/lib" -type f | wc -l | tr -d ' ') libraries"
if command -v objdump >/dev/null 2>&1 ; then
    newest=$(objdump -T "$folder/bin/swarm" "$replica/bin/swarm" "$folder"/lib/*.so* 2>/dev/null |
        sed -n 's/.*(\{0,1\}GLIBC_\([0-9.]*\)).*/\1/p' | sort -uV | tail -n 1)
    echo "they need a system with glibc $newest or later"
fi
if [ $archives = 1 ]; then
    for packed in "$replica" "$folder"; do
        name=$(basename "$packed")
        tar -C "$out" -czf "$out/$name.tar.gz.partial" "$name"
        mv "$out/$name.tar.gz.partial" "$out/$name.tar.gz"
        echo "$out/$name.tar.gz: $(($(wc -c <"$out/$name.tar.gz") / 1000000)) MB"
    done
fi
rm -f "$out/swarm-replica.built"
