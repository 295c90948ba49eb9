#!/usr/bin/env bash
# Makes keyside.order and keyside-exec.order anew: builds both programs as they are shipped, but with their symbols, and
# writes down which functions a start enters, in turn. Some minutes, most of them of linking; Linux on x86-64.
#
#   link/order.sh     builds lie in ${KEYSIDE_BENCH_TARGET:-~/.cache/keyside-bench}, as those of bench/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR=${KEYSIDE_BENCH_TARGET:-$HOME/.cache/keyside-bench} CARGO_INCREMENTAL=0
target=$(rustc --print host-tuple)
if [[ $target != x86_64-unknown-linux-gnu ]]; then
    printf 'link/order.sh: a start is followed on x86_64-unknown-linux-gnu only, and this is %s\n' "$target" >&2
    exit 2
fi
keyside=$(link/build.sh keyside -C strip=none)
wrapper=$(link/build.sh keyside-exec -C strip=none)
python3 link/order.py "$keyside" "$wrapper"
