# Sourced by the other scripts: makes the project's virtual environment, .venv, when it is missing or stale.
#
#   . environment.sh && ensure_environment [dev]
#
# A finished installation leaves a stamp that names this folder and pyproject.toml's checksum. Only a whole installation has
# one, so what a killed or failed one left behind is never trusted. A folder that was moved, a changed pyproject.toml or a
# Python that has gone makes the environment be built anew.
# shellcheck shell=sh

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
python="$root/.venv/bin/python"

say() { printf '%s\n' "$*" >&2; }

stamp_text() { printf '%s\n%s\n%s\n' "$root" "$(cksum <"$root/pyproject.toml")" "$1"; }

is_ready() { # is_ready base|dev
    [ -x "$python" ] && [ -f "$root/.venv/stamp-$1" ] && [ "$(cat "$root/.venv/stamp-$1")" = "$(stamp_text "$1")" ]
}

find_python() { # TensorFlow has wheels for these versions
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

give_up() { # give_up LOG MESSAGE
    tail -n 15 "$1" >&2
    say "" "$2"
    rm -rf "$root/.venv"
    rm -f "$1"
    exit 1
}

ensure_environment() {
    wanted=${1:-base}
    if is_ready dev || is_ready "$wanted"; then return 0; fi

    # One installation at a time: mkdir is atomic. A lock whose owner has gone is taken over.
    lock="$root/.venv.lock"
    waited=0
    until mkdir "$lock" 2>/dev/null; do
        [ -d "$lock" ] || { say "error: cannot write to $root"; exit 1; }
        owner=$(cat "$lock/pid" 2>/dev/null || echo '')
        if [ -n "$owner" ] && kill -0 "$owner" 2>/dev/null; then
            [ "$waited" = 0 ] && say "Waiting for the installation of process $owner (if there is none: rm -r '$lock') ..."
        elif [ -n "$owner" ] || [ "$waited" -ge 5 ]; then
            rm -rf "$lock"
        fi
        waited=$((waited + 1))
        sleep 1
    done
    trap 'rm -rf "$lock"' EXIT
    echo $$ >"$lock/pid"
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if is_ready dev || is_ready "$wanted"; then
        rm -rf "$lock"
        trap - EXIT INT TERM HUP
        return 0
    fi

    base=$(find_python) || {
        say "error: Python 3.11, 3.12 or 3.13 is needed and none was found; set PYTHON to one: PYTHON=/path/to/python3.12 $0"
        exit 1
    }
    log=$(mktemp)
    extra=''
    [ "$wanted" = dev ] && extra='[dev]'
    if ! is_ready base; then
        say "Installing mnist_tuner into $root/.venv (once; TensorFlow is large, this takes a minute) ..."
        rm -rf "$root/.venv"
        "$base" -m venv "$root/.venv" >"$log" 2>&1 || give_up "$log" \
            "error: '$base -m venv' failed (above); on Debian and Ubuntu: sudo apt install python3-venv"
    else
        say "Installing the development tools into $root/.venv (once) ..."
    fi
    rm -f "$root/.venv/stamp-"*
    "$python" -m pip install --disable-pip-version-check -e "$root$extra" >"$log" 2>&1 || give_up "$log" \
        "error: the installation failed (pip's last lines are above); nothing half-made was kept. Mend the cause and start again."
    stamp_text base >"$root/.venv/stamp-base"
    [ "$wanted" = dev ] && stamp_text dev >"$root/.venv/stamp-dev"
    rm -rf "$lock" "$log"
    trap - EXIT INT TERM HUP
}
