#!/usr/bin/env bash
# Installs Microsoft's own Python client of Key Vault and a certificate authority for the fake vault (azure_fake.py), beside
# the real ZenML, whose own secrets store uses that client.
#
#   tests/peers/install-azure.sh     prints the directory of both on stdout; anything else goes to stderr
#
# The directory lies in ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}: bin/python, ca.pem, server.pem, server.key, and in the
# file zenml-python the path of ZenML's. It is made under another name and renamed when it works, so whoever looks there
# finds a whole one or none.
set -euo pipefail

pins=(azure-keyvault-secrets==4.12.0 azure-identity==1.27.0 azure-core==1.41.0)
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
place=$peers/azure-1

zenml=$("$(dirname "${BASH_SOURCE[0]}")/install-zenml.sh")

works() {
    [[ -s $1/ca.pem && -s $1/server.key ]] &&
        openssl verify -CAfile "$1/ca.pem" "$1/server.pem" >/dev/null 2>&1 &&
        "$1/bin/python" -c 'import azure.identity, azure.keyvault.secrets' 2>/dev/null
}

# The authority's key is thrown away: nobody can make another certificate that it vouches for.
certify() {
    local scratch=$1/certify
    mkdir "$scratch"
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout "$scratch/ca.key" -out "$1/ca.pem" \
        -subj '/CN=keyside test authority' -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign
    openssl req -newkey rsa:2048 -nodes -keyout "$1/server.key" -out "$scratch/server.csr" -subj /CN=localhost
    printf '%s\n' subjectAltName=DNS:localhost,IP:127.0.0.1 basicConstraints=CA:FALSE extendedKeyUsage=serverAuth \
        >"$scratch/extensions"
    openssl x509 -req -in "$scratch/server.csr" -CA "$1/ca.pem" -CAkey "$scratch/ca.key" -CAcreateserial -days 3650 \
        -out "$1/server.pem" -extfile "$scratch/extensions"
    # Tests run as other users too.
    chmod 644 "$1/server.key"
    rm -r "$scratch"
}

if ! works "$place"; then
    command -v openssl >/dev/null || { printf 'install-azure: openssl is not here\n' >&2; exit 1; }
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.azure.lock"
    flock 9
    if ! works "$place"; then
        printf 'install-azure: installing %s into %s\n' "${pins[*]}" "$place" >&2
        rm -rf "$place" "$place.new"
        python3 -m venv "$place.new" >&2
        "$place.new/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary :all: \
            "${pins[@]}" >&2
        certify "$place.new" 2>"$place.new/certify.log" || { cat "$place.new/certify.log" >&2; exit 1; }
        works "$place.new"
        mv "$place.new" "$place"
    fi
fi
printf '%s' "$zenml" >"$place/zenml-python"
printf '%s\n' "$place"
