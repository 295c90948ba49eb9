#!/usr/bin/env bash
# Installs Prometheus' own Python client, whose parser reads the agent's metrics in the tests.
#
#   tests/peers/install-prometheus.sh     prints the path of its Python on stdout; anything else goes to stderr
#
# The virtual environment lies in ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}; it is made under another name and renamed
# when it works, so whoever looks there finds a whole one or none.
set -euo pipefail

version=0.23.1
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
venv=$peers/prometheus-client-$version

works() { "$1/bin/python" -c 'from prometheus_client.parser import text_string_to_metric_families' 2>/dev/null; }

if ! works "$venv"; then
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.prometheus-client-$version.lock"
    flock 9
    if ! works "$venv"; then
        printf 'install-prometheus: installing prometheus-client %s into %s\n' "$version" "$venv" >&2
        rm -rf "$venv" "$venv.new"
        python3 -m venv "$venv.new" >&2
        "$venv.new/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary :all: \
            "prometheus-client==$version" >&2
        works "$venv.new"
        mv "$venv.new" "$venv"
    fi
fi
printf '%s\n' "$venv/bin/python"
