#!/usr/bin/env bash
# Installs the real ZenML that the scenarios run against, once for each machine.
#
#   tests/peers/install-zenml.sh     prints the path of its Python on stdout; anything else goes to stderr
#
# The virtual environment lies in ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}. It is made under another name and renamed
# when it works, so whoever looks there finds a whole one or none; its marker file tells from which pins it was made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=0.98.0
pins=zenml-$version.txt
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
venv=$peers/zenml-$version
marker=$venv/.keyside-complete
wanted="zenml $version $(sha256sum "$pins" | cut -d' ' -f1)"

say() { printf 'install-zenml: %s\n' "$*" >&2; }

complete() { [[ -x $venv/bin/python && -f $marker && $(<"$marker") == "$wanted" ]]; }

# Imports what the scenarios import: a file that is missing shows here and not in the middle of a test.
works() { # VENV
    env -i HOME="$scratch" PATH=/usr/bin:/bin ZENML_ANALYTICS_OPT_IN=false ZENML_CONFIG_PATH="$scratch/zenml" \
        "$1/bin/python" -c "
import importlib.metadata
assert importlib.metadata.version('zenml') == '$version'
import fastapi, sqlmodel, uvicorn
from zenml.client import Client" >&2
}

make_venv() { # VENV
    # A Python without ensurepip is what Debian installs by default; its own package mends that.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null && [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        say "python3 has no venv module: installing Debian's python3-venv"
        # One apt at a time: another installer may be at work beside this one.
        exec 8>"$peers/.apt.lock"
        flock 8
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv; } >&2
        exec 8>&-
    fi
    python3 -m venv "$1" >&2
    "$1/bin/python" -m pip install --quiet --no-input --disable-pip-version-check -r "$pins" >&2
}

if ! complete; then
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.zenml-$version.lock"
    flock 9
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if ! complete; then
        if [[ ! -e $marker ]] && works "$venv" 2>/dev/null; then
            say "taking over the zenml $version that is in $venv"
        else
            say "installing zenml $version into $venv"
            rm -rf "$venv" "$venv.new"
            make_venv "$venv.new"
            works "$venv.new" || { say "the installed zenml $version cannot be imported"; exit 1; }
            # Scripts name their interpreter by its path.
            grep -rlIZ --exclude-dir=lib "$venv.new" "$venv.new/bin" | xargs -0r sed -i "s|$venv\.new|$venv|g"
            mv "$venv.new" "$venv"
        fi
        printf '%s\n' "$wanted" >"$marker"
    fi
fi
printf '%s\n' "$venv/bin/python"
