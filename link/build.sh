#!/bin/sh
# Builds a program as it is shipped (see link/README.md), and prints where it lies:
#
#   link/build.sh keyside [ARGUMENT...]         the agent and the whole command line, dynamic
#   link/build.sh keyside-exec [ARGUMENT...]    the exec wrapper alone, static
#
# Further arguments are for the compiler's last call. Used by the Dockerfile, bench/run.sh, check.sh and link/order.sh.
set -eu
cd "$(dirname "$0")/.."
program=${1:-}
[ $# -eq 0 ] || shift
host=$(rustc --print host-tuple)

# Without "full" the compiler calls what is in another crate directly, and not through a table that is filled at each start;
# with "now" the linker lets nothing of the program's tables be written to later on all the same.
flags='-C relro-level=partial -C link-arg=-Wl,-z,now'
# Tens of thousands of relocations in a hundredth of the room; the C library reads them since 2.36.
set -- -C link-arg=-Wl,-z,pack-relative-relocs "$@"
# Only lld takes such a list, and rustc brings lld with it for one target only. What the list names and the program has not is
# no mistake: a list is made now and then, and the code changes daily.
if [ "$host" = x86_64-unknown-linux-gnu ]; then
    set -- -C "link-arg=-Wl,--symbol-ordering-file=link/$program.order" -C link-arg=-Wl,--no-warn-symbol-ordering "$@"
fi

# `--target` keeps the flags away from build scripts and proc-macros, which must load libraries. Each program is a build of its
# own package: together, cargo would merge their features.
case $program in
keyside)
    # The compiler's own unwinder is a library less to load.
    RUSTFLAGS=$flags cargo rustc --release --locked --target "$host" -p keyside --bin keyside -- \
        -l static:-bundle=gcc_eh "$@" >&2
    profile=release
    ;;
keyside-exec)
    RUSTFLAGS="$flags -C target-feature=+crt-static" \
        cargo rustc --profile wrapper --locked --target "$host" -p keyside-exec-wrapper --bin keyside-exec -- "$@" >&2
    profile=wrapper
    ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' link/build.sh >&2
    exit 2
    ;;
esac
printf '%s\n' "${CARGO_TARGET_DIR:-target}/$host/$profile/$program"
