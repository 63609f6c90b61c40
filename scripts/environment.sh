# Sourced by the other scripts: makes the project's virtual environment, .venv, when it is missing or stale.
#
#   . environment.sh
#   choose_environment VERSION LOWEST    # for a Python of this version, with the lower bounds of all packages; each may be ''
#   ensure_environment [dev]
#
# PYTHON says with which Python it is made, MNIST_TUNER_TENSORFLOW with which TensorFlow (tensorflow-cpu is half as large).
# uv installs where there is one, pip elsewhere.
#
# A finished installation leaves a stamp that names this folder and pyproject.toml's checksum. Only a whole installation that
# could be imported has one, so what a killed or failed one left behind is never trusted. A folder that was moved, a changed
# pyproject.toml, a Python that has gone, another PYTHON or another TensorFlow make the environment be built anew.
# shellcheck shell=sh

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

# With these packages would go elsewhere, or Python would look for its library elsewhere.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER UV_TARGET UV_PREFIX PYTHONHOME

say() { printf '%s\n' "$*" >&2; }

choose_environment() { # choose_environment VERSION LOWEST
    version=$1
    lowest=$2
    environment="$root/.venv${version:+-$version}${lowest:+-lowest}"
    python="$environment/bin/python"
    chosen=$(cat "$environment/tensorflow" 2>/dev/null || echo tensorflow) # what was chosen once stays
    tensorflow=${MNIST_TUNER_TENSORFLOW:-$chosen}
}
choose_environment '' ''

stamp_text() { printf '%s\n%s\n%s\n' "$root" "$(cksum <"$root/pyproject.toml")" "$1"; }

identity() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null; }

is_ready() { # is_ready base|dev
    [ -x "$python" ] && [ -f "$environment/stamp-$1" ] && [ "$(cat "$environment/stamp-$1")" = "$(stamp_text "$1")" ] || return 1
    [ "$tensorflow" = "$chosen" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity "$python")" ]
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

fits() { # fits PYTHON: TensorFlow has wheels for these versions
    found=$(python_version "$1") || return 1
    case "$found" in 3.11 | 3.12 | 3.13) [ -z "$version" ] || [ "$found" = "$version" ] ;; *) return 1 ;; esac
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && base=$PYTHON && return
        found=$(python_version "$PYTHON") || found='cannot be run'
        say "error: PYTHON is '$PYTHON' ($found): expected Python ${version:-3.11, 3.12 or 3.13}; set it to one, or unset it"
        exit 2
    fi
    for base in ${version:+"python$version"} python3 python3.13 python3.12 python3.11 "$HOME"/.pyenv/versions/3.*/bin/python3; do
        if fits "$base"; then return; fi
    done
    say "error: Python ${version:-3.11, 3.12 or 3.13} is needed and none was found; set PYTHON to one: PYTHON=/path/to/python3.12 $0"
    exit 1
}

requirements() { # requirements base|dev: one a line
    "$python" - "$root/pyproject.toml" "$1" "$lowest" "$tensorflow" <<'END'
import re, sys, tomllib

path, wanted, lowest, tensorflow = sys.argv[1:]
with open(path, "rb") as file:
    project = tomllib.load(file)["project"]
needed = list(project.get("dependencies", []))
if wanted == "dev":
    needed += [each for extra in project.get("optional-dependencies", {}).values() for each in extra]
for each in needed:
    each = re.sub(r"^tensorflow(?=\W)", tensorflow, each)
    if not each.startswith(project["name"]):
        print(re.sub(r">=([^,;]*)(,[^;]*)?", r"==\1", each) if lowest else each)
END
}

show() { # show COMMAND...: runs it; what it is at stands on the screen, and all that it says in the log
    "$@" >>"$log" 2>&1 &
    child=$!
    seconds=0
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        doing=$(grep -E '^ *(Collecting|Downloading|Using cached|Building|Installing|Resolved|Prepared) ' "$log" | tail -n 1 | cut -c 1-70)
        if [ -t 2 ]; then
            printf '\r\033[K%4d s %s' "$seconds" "$doing" >&2
        elif [ $((seconds % 20)) = 0 ]; then
            say "$(printf '%4d s %s' "$seconds" "$doing")"
        fi
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
    wait "$child"
}

install() { # install ARGUMENTS...: as pip takes them
    if command -v uv >/dev/null 2>&1; then
        show uv pip install --python "$python" "$@" && return
        say "uv failed (its messages: $(tail -n 1 "$log")); pip is tried ..."
    fi
    show "$python" -m pip install --disable-pip-version-check --no-input "$@"
}

give_up() { # give_up MESSAGE
    tail -n 15 "$log" >&2
    say "" "$1"
    if grep -qiE 'name resolution|connection|unreachable|dns error|sending request|proxy|timed out|versions: none' "$log"; then
        say "The network, or the package index, may be out of reach: behind a proxy set HTTPS_PROXY, for another index PIP_INDEX_URL."
    fi
    rm -rf "$environment"
    exit 1
}

ensure_environment() { # ensure_environment [dev]
    wanted=${1:-base}
    if is_ready dev || is_ready "$wanted"; then return 0; fi
    find_python
    if [ ! -d "${TMPDIR:-/tmp}" ]; then
        say "TMPDIR is '$TMPDIR', which is no folder: it is not used"
        unset TMPDIR
    fi

    # One installation at a time: mkdir is atomic. A lock whose owner has gone is taken over.
    lock="$environment.lock"
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
    child=''
    trap 'rm -rf "$lock"' EXIT
    echo $$ >"$lock/pid"
    trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 130' INT
    trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 143' TERM HUP
    if is_ready dev || is_ready "$wanted"; then
        rm -rf "$lock"
        trap - EXIT INT TERM HUP
        return 0
    fi

    log="$lock/log"
    : >"$log"
    if ! is_ready base; then
        say "Installing mnist_tuner into $environment (once; TensorFlow is large, this takes a minute) ..."
        rm -rf "$environment"
        "$base" -m venv "$environment" >"$log" 2>&1 || give_up \
            "error: '$base -m venv' failed (above); on Debian and Ubuntu: sudo apt install python3-venv"
    else
        say "Installing the development tools into $environment (once) ..."
    fi
    rm -f "$environment/stamp-"*
    requirements "$wanted" >"$lock/requirements" 2>>"$log" && install -r "$lock/requirements" &&
        install --no-deps -e "$root" || give_up \
        "error: the installation failed (its last lines are above); nothing half-made was kept. Mend the cause and start again."
    (cd / && "$python" -c 'import mnist_tuner; mnist_tuner.Trainer') >>"$log" 2>&1 || give_up \
        "error: what was installed cannot be imported (above); nothing was kept. Mend the cause and start again."
    printf '%s\n' "$tensorflow" >"$environment/tensorflow"
    stamp_text base >"$environment/stamp-base"
    [ "$wanted" = dev ] && stamp_text dev >"$environment/stamp-dev"
    rm -rf "$lock"
    trap - EXIT INT TERM HUP
}
