#!/usr/bin/env bash
# Installs what the scenarios in containers need, once for each machine: podman with runc, and an archive of a minimal
# Debian. No image registry is asked.
#
#   tests/peers/install-containers.sh     prints the archive's path on stdout; anything else goes to stderr
#
# The archive lies in ${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}/containers. It is made under another name and renamed
# when it is whole. The programs come from the machine's own packages, as root and where apt is; the scenarios keep
# podman's storage to themselves, so nothing of it is touched here or there.
set -euo pipefail

peers=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
directory=$peers/containers
base=$directory/base.tar
# What the archive is made from; a change here makes a new one.
recipe='minbase 1'

say() { printf 'install-containers: %s\n' "$*" >&2; }

stop() {
    say "$*"
    exit 1
}

((EUID == 0)) || stop 'only root may make a base image and start containers with users of their own'

# catatonit is what podman makes the first process of a pod from. runc, for crun refuses hybrid cgroups.
programs=(podman runc catatonit mmdebstrap unshare nsenter setpriv)
missing() { for program in "${programs[@]}"; do command -v "$program" >/dev/null || printf '%s ' "$program"; done; }

lacking=$(missing)
if [[ -n $lacking ]]; then
    command -v apt-get >/dev/null || stop "not here, and no apt to install them: $lacking"
    say "installing podman, for these are not here: $lacking"
    # One apt at a time: another installer may be at work beside this one.
    mkdir -p "$peers"
    exec 8>"$peers/.apt.lock"
    flock 8
    # A source of packages that does not answer is no reason to stop: it may not be the one that is needed.
    apt-get update -q >&2 || say 'apt-get update failed'
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
        podman runc catatonit mmdebstrap util-linux >&2
    exec 8>&-
    lacking=$(missing)
    [[ -z $lacking ]] || stop "still not here after the installation: $lacking"
fi

# The programs under test were built on this machine and are copied into the image, so its C library must be this one's.
# shellcheck source=/dev/null
suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
[[ -n $suite ]] || stop 'the release of this system is unknown, and with it the base image to make'
wanted="$suite $recipe"

complete() { [[ -s $base && -f $base.recipe && $(<"$base.recipe") == "$wanted" ]]; }

if ! complete; then
    mkdir -p "$directory"
    # Two runs on one machine: the second waits, then finds the work done.
    exec 9>"$directory/.lock"
    flock 9
    if ! complete; then
        say "making a minimal $suite"
        rm -f "$base" "$base.recipe"
        excluded=()
        for place in doc man info locale groff lintian; do
            excluded+=(--dpkgopt="path-exclude=/usr/share/$place/*")
        done
        mmdebstrap --quiet --variant=minbase --mode=root --aptopt='Acquire::Languages "none"' "${excluded[@]}" \
            "$suite" "$directory/new.tar" >&2
        mv "$directory/new.tar" "$base"
        printf '%s\n' "$wanted" >"$base.recipe"
    fi
fi
printf '%s\n' "$base"
