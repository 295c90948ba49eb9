#!/usr/bin/env bash
# Measures the agent and the wrapper beside their floors, in one run, with client and server on one CPU.
#
#   bench/run.sh              prints the figures, each with its ratio, its bar and a verdict
#   bench/run.sh --markdown   also writes them into docs/performance.md
#
# A figure that misses its bar is printed and is no failure: a timing never decides whether a change is right. The exit
# code is not 0 only if something could not be measured. Builds lie in ${KEYSIDE_BENCH_TARGET:-~/.cache/keyside-bench}.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

markdown=()
case "${1:-}" in
'') ;;
--markdown) markdown=(--markdown docs/performance.md) ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' bench/run.sh >&2
    exit 2
    ;;
esac

export CARGO_TARGET_DIR=${KEYSIDE_BENCH_TARGET:-$HOME/.cache/keyside-bench} CARGO_INCREMENTAL=0
target=$(rustc --print host-tuple)
cargo build --release --locked -p keyside
cargo build --release --locked --manifest-path bench/Cargo.toml
# The wrappers as they are shipped: small and static. `--target` keeps the flag away from build scripts and proc-macros.
static() { RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' cargo build --profile wrapper --locked --target "$target" "$@"; }
static -p keyside-exec-wrapper
static --manifest-path bench/Cargo.toml --bin least-wrapper
keyside=$CARGO_TARGET_DIR/release/keyside
bench=$CARGO_TARGET_DIR/release/keyside-bench
wrappers=$CARGO_TARGET_DIR/$target/wrapper

room=$(mktemp -d /tmp/keyside-bench.XXXXXX)
servers=()
cleanup() {
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
    rm -rf "$room"
}
trap cleanup EXIT
# What is measured is what this file sets up, not what the caller's shell or a configuration of this machine says.
clean() { env -i PATH=/usr/bin:/bin HOME="$room" RUST_BACKTRACE=0 "$@"; }

python3 bench/seed_store.py "$room/zenml.db" 1000
cat >"$room/keyside.toml" <<TOML
[agent]
socket = "$room/agent.sock"

[backend.store]
type = "zenml-sql"
url = "sqlite:///$room/zenml.db"
writable = true

[cache]
# No refresh may fall into a slice: what is measured is the warm path.
ttl = "1h"
max_stale = "2h"
poll = "off"
TOML

# The last CPU: the first one takes most interrupts.
cpu=$(python3 -c 'import os; print(max(os.sched_getaffinity(0)))')
# Without the function: it would be a shell of its own, and killing that would leave the agent behind.
env -i PATH=/usr/bin:/bin HOME="$room" taskset --cpu-list "$cpu" \
    "$keyside" --config "$room/keyside.toml" agent >"$room/agent.log" 2>&1 &
servers+=($!)
taskset --cpu-list "$cpu" "$CARGO_TARGET_DIR/release/plain-hyper" "$room/hyper.sock" &
servers+=($!)
if ! clean "$keyside" --socket "$room/agent.sock" ready --wait 30s; then
    tail -n 20 "$room/agent.log" >&2
    exit 1
fi

{
    printf 'CPU: %s, %s of them; all programs on CPU %s\n' \
        "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | sed -n 1p)" "$(nproc)" "$cpu"
    printf 'system: Linux %s, %s\n' "$(uname -r)" "$(rustc --version)"
    printf 'load average before the run: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
    printf 'commit: %s, %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)" "$(date -u +%Y-%m-%d)"
} >"$room/machine"

path='/v1/secrets/secret-{n}/password'
one=(--socket "$room/agent.sock" --name agent --http "${path/\{n\}/0}")
agent=(--socket "$room/agent.sock" --name agent-1000 --http "$path" --keys 1000)
hyper=(--socket "$room/hyper.sock" --name plain-hyper --http "$path" --keys 1000)
options=(--json --pin "$cpu" --rounds 15 --seconds 0.5)
{
    # What has a bar stands alone beside its floor: every further program in the round cools the processor's cache.
    "$bench" load --echo-floor 1024 "${options[@]}" "${one[@]}"
    "$bench" load --echo-floor 1024 "${options[@]}" "${agent[@]}" "${hyper[@]}" "${agent[@]}" --fresh
    "$bench" load --connections 64 "${options[@]}" --rounds 5 "${agent[@]}"
    clean "$bench" spawn --json --pin "$cpu" --rounds 500 -- /bin/true \
        --and "$wrappers/keyside-exec" --socket "$room/agent.sock" --env 'PASSWORD={{secret-0.password}}' -- /bin/true
    clean "$bench" spawn --json --pin "$cpu" --rounds 500 -- /bin/true \
        --and "$wrappers/least-wrapper" "$room/agent.sock" /v1/secrets/secret-0/password PASSWORD /bin/true
} >"$room/rows"
printf '\n'
python3 bench/figures.py "$room/rows" "$room/machine" "${markdown[@]}"
