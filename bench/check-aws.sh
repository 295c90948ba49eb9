#!/usr/bin/env bash
# Measures a cold check of 1,000 references to 200 secrets in AWS Secrets Manager beside one call after another.
#
#   bench/check-aws.sh --keyside PATH [--rounds N]      PATH is a built `keyside`; N rounds (default 9)
#
# moto stands for AWS; tests/peers/install-moto.sh installs it where it is missing. In each round the agent forgets
# everything and answers one `POST /v1/check` at the level SECRET_AND_KEY_EXISTS, and AWS's own Python client makes 1,000
# calls of GetSecretValue one after another, one for each reference, and 200, one for each secret. Printed are the medians,
# the calls that the check took, and the ratio of its time to that of the calls, as the median of the rounds with the least
# and the greatest. No bar decides the exit code; it is not 0 only if something could not be measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' bench/check-aws.sh; }

keyside=
rounds=9
while (($# > 0)); do
    case $1 in
    --keyside)
        keyside=${2:?--keyside needs a path}
        shift 2
        ;;
    --rounds)
        rounds=${2:?--rounds needs a number}
        shift 2
        ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done
if [[ ! -x $keyside || ! $rounds =~ ^[1-9][0-9]*$ ]]; then
    usage >&2
    exit 2
fi

place=$(tests/peers/install-moto.sh)
room=$(mktemp -d /tmp/keyside-check-aws.XXXXXX)
servers=()
cleanup() {
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
    rm -rf "$room"
}
trap cleanup EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# What is measured is what this file sets up, not what the caller's shell or a configuration of this machine says.
start() { # NAME COMMAND...
    env -i PATH=/usr/bin:/bin HOME="$room" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test \
        "${@:2}" >"$room/$1.log" 2>&1 &
    servers+=($!)
}
cat >"$room/keyside.toml" <<TOML
[agent]
socket = "$room/agent.sock"

[backend.cloud]
type = "aws"
region = "eu-central-1"
endpoint_url = "http://127.0.0.1:$port"
layout = "plain"
prefix = "many/"

[cache]
# Nothing but the checks may call.
ttl = "1h"
max_stale = "2h"
poll = "off"
TOML

start moto "$place/bin/moto_server" -H 127.0.0.1 -p "$port"
start agent "$keyside" --config "$room/keyside.toml" agent

{
    printf 'CPU: %s, %s of them\n' "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | sed -n 1p)" "$(nproc)"
    printf 'system: Linux %s; %s; moto and boto3 in %s\n' "$(uname -r)" "$("$keyside" --version)" "$(basename "$place")"
    printf 'load average before the run: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
    printf 'commit: %s, %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)" "$(date -u +%Y-%m-%d)"
}
if ! "$place/bin/python" bench/check_aws.py "http://127.0.0.1:$port" "$room/agent.sock" "$rounds"; then
    tail -n 20 "$room/moto.log" "$room/agent.log" >&2
    exit 1
fi
