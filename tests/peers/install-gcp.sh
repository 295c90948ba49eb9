#!/usr/bin/env bash
# Installs what the stand-in of Google's Secret Manager is made of: the official Python client, beside the real ZenML whose
# own class writes into it.
#
#   tests/peers/install-gcp.sh     prints the path of its Python on stdout; anything else goes to stderr
#
# The virtual environment lies in ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}; it is made under another name and renamed
# when it works, so whoever looks there finds a whole one or none; its marker file tells from which pins it was made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=2.32.0
pins=gcp-$version.txt
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
venv=$peers/gcp-$version
marker=$venv/.keyside-complete

zenml=$(./install-zenml.sh)
packages=$("$zenml" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
wanted="gcp $version $(sha256sum "$pins" | cut -d' ' -f1) $packages"

complete() { [[ -x $venv/bin/python && -f $marker && $(<"$marker") == "$wanted" ]]; }

# Imports what the tests import: a file that is missing shows here and not in the middle of a test.
works() { # VENV
    env -i HOME="$scratch" PATH=/usr/bin:/bin ZENML_ANALYTICS_OPT_IN=false ZENML_CONFIG_PATH="$scratch/zenml" \
        "$1/bin/python" -c "
import importlib.metadata
assert importlib.metadata.version('google-cloud-secret-manager') == '$version'
import google_crc32c, cryptography
from zenml.zen_stores.secrets_stores.gcp_secrets_store import GCPSecretsStore" >&2
}

if ! complete; then
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.gcp-$version.lock"
    flock 9
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if ! complete; then
        printf 'install-gcp: installing the official client %s into %s\n' "$version" "$venv" >&2
        rm -rf "$venv" "$venv.new"
        "$zenml" -m venv "$venv.new" >&2
        "$venv.new/bin/python" -m pip install --quiet --no-input --disable-pip-version-check -r "$pins" >&2
        # ZenML's packages come after its own: where both have one, this one counts.
        own=$("$venv.new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        printf '%s\n' "$packages" >"$own/zenml.pth"
        works "$venv.new"
        # Scripts name their interpreter by its path.
        grep -rlIZ --exclude-dir=lib "$venv.new" "$venv.new/bin" | xargs -0r sed -i "s|$venv\.new|$venv|g"
        mv "$venv.new" "$venv"
        printf '%s\n' "$wanted" >"$marker"
    fi
fi
printf '%s\n' "$venv/bin/python"
