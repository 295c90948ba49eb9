#!/usr/bin/env bash
# Installs moto, which stands for AWS Secrets Manager, STS and IAM in the tests.
#
#   tests/peers/install-moto.sh     prints its folder on stdout (bin/moto_server, bin/python with boto3); anything else
#                                   goes to stderr
#
# The virtual environment lies in ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}; it is made under another name and renamed
# when it works, so whoever looks there finds a whole one or none; its marker file tells from which pins it was made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

name=${1:-moto}
case $name in
moto) version=5.2.5 works='import boto3, moto.server, aws_profile_manager' ;;
ministack) version=1.5.33 works='import ministack' ;;
*)
    echo "usage: $0 [moto|ministack]" >&2
    exit 2
    ;;
esac
pins=$name-$version.txt
peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
venv=$peers/$name-$version
marker=$venv/.keyside-complete
wanted="$name $version $(sha256sum "$pins" | cut -d' ' -f1)"

complete() { [[ -x $venv/bin/python && -f $marker && $(<"$marker") == "$wanted" ]]; }

if ! complete; then
    mkdir -p "$peers"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$peers/.$name-$version.lock"
    flock 9
    if ! complete; then
        printf 'install-%s: installing %s %s into %s\n' "$name" "$name" "$version" "$venv" >&2
        rm -rf "$venv.new" "$venv.old"
        # Renamed first: a removal that is cut off leaves no half of one where tests look.
        [[ ! -e $venv ]] || mv "$venv" "$venv.old"
        python3 -m venv "$venv.new" >&2
        "$venv.new/bin/python" -m pip install --quiet --no-input --disable-pip-version-check -r "$pins" >&2
        "$venv.new/bin/python" -c "$works" >&2
        # Scripts name their interpreter by its path.
        grep -rlIZ --exclude-dir=lib "$venv.new" "$venv.new/bin" | xargs -0r sed -i "s|$venv\.new|$venv|g"
        printf '%s\n' "$wanted" >"$venv.new/.keyside-complete"
        mv "$venv.new" "$venv"
        rm -rf "$venv.old"
    fi
fi
printf '%s\n' "$venv"
