#!/usr/bin/env bash
# Installs the real MariaDB that the tests of `zenml-sql` run against, once for each machine.
#
#   tests/peers/install-mariadb.sh     prints the path of its server on stdout; anything else goes to stderr
#
# It is the distribution's own package, which only root may install; nothing of it is started or left running. The tests
# start servers of their own, as whoever runs them, in directories of their own.
set -euo pipefail

peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}

say() { printf 'install-mariadb: %s\n' "$*" >&2; }

# Debian keeps servers in a directory that is not everybody's.
find_program() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$1"; }

complete() { find_program mariadbd >/dev/null && find_program mariadb-install-db >/dev/null; }

if ! complete; then
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        say 'only root can install mariadb-server with apt-get'
        exit 1
    fi
    mkdir -p "$peers"
    # One apt at a time: another installer may be at work beside this one.
    exec 8>"$peers/.apt.lock"
    flock 8
    if ! complete; then
        say "installing the distribution's mariadb-server"
        # No service is started: there may be nobody to end it.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
            trap 'rm -f "$policy"' EXIT
        fi
        {
            apt-get update -q
            DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends mariadb-server
        } >&2
        complete
    fi
fi
find_program mariadbd
