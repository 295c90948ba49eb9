#!/usr/bin/env bash
# Installs the real ZenML 0.43.1, whose REST API is the older one, once for each machine; and beside it the clients that
# its classes write to AWS, Google Cloud, Azure and Vault with.
#
#   tests/peers/install-zenml-0.43.sh     prints the path of its Python on stdout; anything else goes to stderr
#
# It runs on Python 3.8 to 3.10 only. As install-zenml.sh: made under another name, renamed when it works, and marked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=0.43.1
pins=zenml-$version.txt
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
venv=$peers/zenml-$version
marker=$venv/.keyside-complete
wanted="zenml $version $(sha256sum "$pins" | cut -d' ' -f1)"

say() { printf 'install-zenml-0.43: %s\n' "$*" >&2; }

complete() { [[ -x $venv/bin/python && -f $marker && $(<"$marker") == "$wanted" ]]; }

works() { # VENV
    env -i HOME="$scratch" PATH=/usr/bin:/bin ZENML_ANALYTICS_OPT_IN=false ZENML_CONFIG_PATH="$scratch/zenml" \
        "$1/bin/python" -W ignore::FutureWarning -c "
import importlib.metadata
assert importlib.metadata.version('zenml') == '$version'
import bcrypt, fastapi, passlib, uvicorn
import azure.identity, azure.keyvault.secrets, boto3, google.cloud.secretmanager, hvac" >&2
}

# The pins were made with 3.9; the others are tried because somebody may have nothing else. A shim of pyenv stands for
# versions that are not chosen, and fails.
old_python() {
    local candidate
    for candidate in "$(command -v python3.9)" "$HOME"/.pyenv/versions/3.9.*/bin/python \
        "$(command -v python3.10)" "$HOME"/.pyenv/versions/3.10.*/bin/python \
        "$(command -v python3.8)" "$HOME"/.pyenv/versions/3.8.*/bin/python; do
        if [[ -x $candidate ]] && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

if ! complete; then
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.zenml-$version.lock"
    flock 9
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if ! complete; then
        python=$(old_python) || { say "ZenML $version needs Python 3.8, 3.9 or 3.10 with venv, and there is none"; exit 1; }
        say "installing zenml $version into $venv"
        rm -rf "$venv.new" "$venv.old"
        # Renamed first: a removal that is cut off leaves no half of one where tests look.
        [[ ! -e $venv ]] || mv "$venv" "$venv.old"
        "$python" -m venv "$venv.new" >&2
        "$venv.new/bin/python" -m pip install --quiet --no-input --disable-pip-version-check -r "$pins" >&2
        works "$venv.new" || { say "the installed zenml $version cannot be imported"; exit 1; }
        # Scripts name their interpreter by its path.
        grep -rlIZ --exclude-dir=lib "$venv.new" "$venv.new/bin" | xargs -0r sed -i "s|$venv\.new|$venv|g"
        mv "$venv.new" "$venv"
        printf '%s\n' "$wanted" >"$marker"
        rm -rf "$venv.old"
    fi
fi
printf '%s\n' "$venv/bin/python"
