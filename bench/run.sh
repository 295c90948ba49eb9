#!/usr/bin/env bash
# Measures the agent and the wrapper beside their floors, in one run of a few minutes, with client and server on one CPU.
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
keyside=$(link/build.sh keyside)
wrapper=$(link/build.sh keyside-exec)
cargo build --release --locked --manifest-path bench/Cargo.toml
# As the shipped wrapper, but for a list of what its start runs.
RUSTFLAGS='-C relro-level=partial -C link-arg=-Wl,-z,now -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' \
    cargo build --profile wrapper --locked --target "$target" --manifest-path bench/Cargo.toml --bin least-wrapper
bench=$CARGO_TARGET_DIR/release/keyside-bench
least=$CARGO_TARGET_DIR/$target/wrapper/least-wrapper

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

# The last CPU: the first one takes most interrupts.
cpu=$(python3 -c 'import os; print(max(os.sched_getaffinity(0)))')

# An agent on COUNT generated secrets, at $room/NAME.sock; its process id is the last of `servers`.
start_agent() { # NAME COUNT
    python3 bench/seed_store.py "$room/$1.db" "$2"
    configure "$1" "$1.db"
    # Without `clean`: it would be a shell of its own, and killing that would leave the agent behind.
    env -i PATH=/usr/bin:/bin HOME="$room" taskset --cpu-list "$cpu" \
        "$keyside" --config "$room/$1.toml" agent >"$room/$1.log" 2>&1 &
    servers+=($!)
    if ! clean "$keyside" --socket "$room/$1.sock" ready --wait 60s >/dev/null; then
        tail -n 20 "$room/$1.log" >&2
        return 1
    fi
}

configure() { # NAME DATABASE
    cat >"$room/$1.toml" <<TOML
[agent]
socket = "$room/$1.sock"

[backend.store]
type = "zenml-sql"
url = "sqlite:///$room/$2"
writable = true

[cache]
# No refresh may fall into a slice: what is measured is the warm path.
ttl = "1h"
max_stale = "2h"
poll = "off"
# Room for all of the largest store.
max_bytes = "256MiB"
TOML
}

# A reference server at $room/NAME.sock.
start_reference() { # NAME
    taskset --cpu-list "$cpu" "$CARGO_TARGET_DIR/release/$1" "$room/$1.sock" >/dev/null &
    servers+=($!)
    for _ in {1..100}; do
        [[ ! -S $room/$1.sock ]] || return 0
        sleep 0.05
    done
    printf 'bench/run.sh: %s does not listen\n' "$1" >&2
    return 1
}

end_last() {
    kill "${servers[-1]}"
    wait "${servers[-1]}" || true
    unset 'servers[-1]'
}

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
hyper=(--socket "$room/plain-hyper.sock" --name plain-hyper --http "$path" --keys 1000)
line=(--socket "$room/plain-line.sock" --name plain-line --line 'get secret-{n}' --keys 1000)
options=(--json --pin "$cpu" --rounds 15 --seconds 0.5)
wrapped=("$wrapper" --socket "$room/agent.sock")
twenty=()
for number in {0..19}; do
    twenty+=(--env "PASSWORD_$number={{secret-$number.password}}")
done
python3 -c '
import json
print(json.dumps({"references": {str(n): "{{secret-%d.password}}" % n for n in range(1000)}}))' >"$room/references.json"

{
    # Memory first, of servers that have done nothing yet; what is measured here ends before anything is timed.
    start_reference plain-hyper
    "$bench" memory --json --label rest "${hyper[@]}" --keys 1
    start_agent thousand 1000
    "$bench" memory --json --label thousand --socket "$room/thousand.sock" --name agent --http "$path" --keys 1000
    end_last
    start_agent hundred 100000
    "$bench" memory --json --label hundred-thousand \
        --socket "$room/hundred.sock" --name agent --http "$path" --keys 100000
    end_last
    rm "$room/hundred.db"

    start_agent agent 1000
    # What has a bar stands alone beside its floor: every further program in the round cools the processor's cache.
    "$bench" load --label read --echo-floor 1024 "${options[@]}" "${one[@]}"
    "$bench" load --label beside --echo-floor 1024 "${options[@]}" "${agent[@]}" "${hyper[@]}" "${agent[@]}" --fresh
    "$bench" load --label resolve "${options[@]}" "${agent[@]}" \
        --socket "$room/agent.sock" --name resolve --http /v1/resolve --body "$room/references.json"
    start_reference plain-line
    "$bench" load --label many --connections 64 "${options[@]}" "${line[@]}" "${agent[@]}"
    end_last

    clean "$bench" spawn --label wrapper --json --pin "$cpu" --rounds 500 -- /bin/true \
        --and "${wrapped[@]}" --env 'PASSWORD={{secret-0.password}}' -- /bin/true
    clean "$bench" spawn --label least --json --pin "$cpu" --rounds 500 -- /bin/true \
        --and "$least" "$room/agent.sock" /v1/secrets/secret-0/password PASSWORD /bin/true
    clean "$bench" spawn --label twenty --json --pin "$cpu" --rounds 500 \
        -- "${wrapped[@]}" --env 'PASSWORD={{secret-0.password}}' -- /bin/true \
        --and "${wrapped[@]}" "${twenty[@]}" -- /bin/true
    end_last

    # Started anew each time: another socket, and a store that another agent has not just had open.
    configure started thousand.db
    clean "$bench" start --label start --json --pin "$cpu" --rounds 100 \
        --socket "$room/started-hyper.sock" --name plain-hyper --http / \
        --socket "$room/started.sock" --name agent --http /v1/health \
        -- "$CARGO_TARGET_DIR/release/plain-hyper" "$room/started-hyper.sock" \
        --and "$keyside" --config "$room/started.toml" agent

    # The last, since a crowd changes what a server keeps; on an agent that has met none.
    start_agent crowd 1000
    idle='/v1/watch?secret=secret-0'
    crowd=(crowd --label crowd --json --pin "$cpu" --count 5000 --rounds 7 --seconds 0.5)
    "$bench" "${crowd[@]}" "${hyper[@]}" --keys 1 --idle /
    "$bench" "${crowd[@]}" "${one[@]/agent.sock/crowd.sock}" --idle "$idle"
} >"$room/rows"
printf '\n'
python3 bench/figures.py "$room/rows" "$room/machine" "${markdown[@]}"
