#!/usr/bin/env bash
# Prepares this checkout: the Debian packages that are missing, and a virtual environment in .venv
# with the Python packages of constraints.txt. Running it again changes nothing and takes no time.
#
# usage: scripts/setup.sh [--bench]
#   --bench   also the programs and packages that only benchmarks and experiments compare with
#   PYTHON=/path/to/python3   use this interpreter for .venv (3.11 or newer)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=.venv
readonly stamp=$venv/setup-stamp
extras=test,dev

say() { echo "setup: $*"; }
die() {
    echo "setup: error: $*" >&2
    exit 1
}

with_bench=no
case "${1-}" in
    '') ;;
    --bench)
        with_bench=yes
        extras=$extras,scale
        ;;
    *) die "unknown option '$1'; the only one is --bench." ;;
esac

# ovs-vswitchd, ethtool and their like live in sbin, which an ordinary user's PATH leaves out.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Runs a command silently; on failure prints the end of what it said, and the message.
quietly() {
    local message=$1
    shift
    "$@" >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        die "$message"
    }
}

# ------------------------------------------------------------------------------- what is missing

# Each program that the agent, the demo or the tests start, and the Debian package that brings it. A
# program that is there counts, wherever it came from: an OVS built from source stays untouched.
missing_packages() {
    local program package
    while read -r program package; do
        command -v "$program" >/dev/null || echo "$package"
    done <<'TABLE'
ovs-vswitchd openvswitch-switch
ovs-ofctl openvswitch-common
mnexec mininet
ethtool ethtool
ip iproute2
iperf3 iperf3
nats-server nats-server
TABLE
    # The options that the demo gives to ping are those of iputils, not of inetutils or busybox.
    ping -V 2>/dev/null | grep -q iputils || echo iputils-ping
    if [ "$with_bench" = yes ]; then
        command -v ovs-testcontroller >/dev/null || echo openvswitch-testcontroller
        # The fake switch is written in C and compiled at its first use.
        command -v cc >/dev/null || printf '%s\n' gcc libc6-dev
    fi
}

# Prints the version of an interpreter that can make a virtual environment; fails if it cannot. Its
# argument after the name is the first minor version of Python 3 that will not do.
python_version() {
    "$1" -I -c '
import sys, venv, ensurepip
if not (3, 11) <= sys.version_info < (3, int(sys.argv[1])):
    sys.exit(1)
print(sys.version.split()[0])' "$2" 2>/dev/null
}

# Prints the interpreter to use: a Python that the tests run on if there is one, else a newer one.
pick_python() {
    local below candidate
    if [ -n "${PYTHON-}" ]; then
        python_version "$PYTHON" 1000 >/dev/null && command -v "$PYTHON"
        return
    fi
    for below in 14 1000; do
        for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
            if python_version "$candidate" "$below" >/dev/null; then
                command -v "$candidate"
                return
            fi
        done
    done
    return 1
}

# What .venv must have been made from. A moved checkout has a moved .venv, whose scripts are broken.
fingerprint() {
    { "$1" -I -S -c 'import sys; print(sys.version)' && pwd && cat pyproject.toml constraints.txt scripts/setup.sh; } \
        2>/dev/null | sha256sum
}

# Prints what is to be done about .venv: nothing, update (the pinned packages changed), or create.
venv_task() {
    # Without a stamp the last run was cut short, and with another interpreter nothing in .venv fits.
    if ! [ -f "$stamp" ] || ! python_version "$venv/bin/python" 1000 >/dev/null; then
        echo create
    elif [ -n "${PYTHON-}" ] &&
        [ "$(python_version "$PYTHON" 1000)" != "$(python_version "$venv/bin/python" 1000)" ]; then
        echo create
    elif [ "$(<"$stamp")" != "$(fingerprint "$venv/bin/python")" ]; then
        echo update
    elif [ "$with_bench" = yes ] && ! "$venv/bin/python" -I -c 'import grpc' 2>/dev/null; then
        echo update
    else
        echo nothing
    fi
}

# -------------------------------------------------------------------------------- Debian packages

apt_get() {
    # The host's own services are not restarted on our account (NEEDRESTART_MODE=l), and a lock held
    # by unattended-upgrades on a fresh machine is waited for.
    scripts/as-root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
        apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"
}

install_packages() {
    local joined="$*"
    command -v apt-get >/dev/null || die "this machine has no apt-get;" \
        "install what Debian calls $joined by your system's own means and try again."
    [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null || die "the Debian packages $joined are missing" \
        "and installing them needs root: run as root, or run 'sudo -v' first and try again."
    say "installing Debian packages: $joined"
    quietly "apt-get update failed; is the network up, and are the package sources right?" \
        apt_get update

    # Debian starts these at once and at every boot, on a port of all addresses (6653, 4222). The
    # benchmarks and the tests start their own, so the services are kept from ever running.
    local service masked=()
    for service in openvswitch-testcontroller nats-server; do
        if [[ " $joined " == *" $service "* ]] && [ -d /run/systemd/system ]; then
            quietly "the $service service could not be masked." \
                scripts/as-root systemctl mask "$service.service"
            masked+=("$service")
        fi
    done
    quietly "apt-get could not install $joined; on Ubuntu, mininet needs the 'universe' component." \
        apt_get install --no-install-recommends "$@"
    for service in "${masked[@]}"; do
        quietly "the $service service could not be disabled." scripts/as-root sh -c \
            "systemctl unmask $service && systemctl disable $service"
        say "the service $service is disabled; nothing here needs it"
    done
    if [[ " $joined " == *" openvswitch-switch "* ]]; then
        say "the service openvswitch-switch is as Debian sets it up; the demo and the tests run their own"
    fi
}

mapfile -t packages < <(missing_packages)
task=$(venv_task)
if [ "$task" = create ] && ! pick_python >/dev/null; then
    [ -z "${PYTHON-}" ] || die "PYTHON=$PYTHON is no Python 3.11 or newer with the venv module."
    packages+=(python3 python3-venv)
fi
if [ "${#packages[@]}" -gt 0 ]; then
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -eq 0 ] || die "after their installation the programs of ${packages[*]} are" \
        "still not found on PATH ($PATH)."
fi

# --------------------------------------------------------------------------- virtual environment

if [ "$task" = create ]; then
    python=$(pick_python) || die "no Python 3.11 or newer with the venv module was found;" \
        "install one and name it: PYTHON=/path/to/python3 make setup"
    say "creating $venv with Python $(python_version "$python" 1000) ($python)"
    quietly "$python could not create $venv." "$python" -m venv --clear "$venv"
fi
if [ "$task" != nothing ]; then
    rm -f "$stamp"
    say "installing the Python packages into $venv (up to a few minutes the first time)"
    quietly "pip could not install the Python packages; is the network up?" \
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        -c constraints.txt -e ".[$extras]"
    fingerprint "$venv/bin/python" >"$stamp"
fi
say "ready"
