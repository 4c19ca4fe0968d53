# The environment of bin/featx, bin/test and bin/bench: sourced by them after ROOT is set; runs in bash 3.2 (macOS).
#
#   ensure_env LEVEL    makes, finishes or refreshes $ROOT/.venv; LEVEL is "core" or "dev" (every extra and the tools)
#
# The last thing written is the stamp: level, folder, Python, and the text of the two files that decide what is installed.
# While it says what it should, nothing is started, not even a Python.

VENV=$ROOT/.venv
STAMP=$VENV/featx-stamp

say() { printf 'featx set-up: %s\n' "$*" >&2; }

# What the stamp's last part should be, in $wanted (no subshell: this runs before every command).
_read_wanted() {
    local pyproject constraints
    IFS= read -r -d '' pyproject <"$ROOT/pyproject.toml"
    IFS= read -r -d '' constraints <"$ROOT/constraints.txt"
    wanted=$pyproject$constraints
}

_is_ready() {
    local level=$1 had_level had_root had_python had_text wanted
    [ -f "$STAMP" ] || return 1
    { IFS= read -r had_level; IFS= read -r had_root; IFS= read -r had_python; IFS= read -r -d '' had_text; } <"$STAMP"
    _read_wanted
    [ "$had_level" = "$level" ] || [ "$had_level" = dev ] || return 1
    [ "$had_root" = "$ROOT" ] && [ "$VENV/bin/python" -ef "$had_python" ] && [ "$had_text" = "$wanted" ]
}

# The level to set up: the one asked for, or dev if that was ever begun here (a refresh for bin/featx must not lose it).
_level() {
    local had_level=
    [ -f "$STAMP" ] && read -r had_level <"$STAMP"
    case $had_level in *dev) echo dev ;; *) echo "$1" ;; esac
}

_find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    say "no Python 3.11 or newer with its venv module was found (tried python3.13, python3.12, python3.11, python3)."
    say "Install one (Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python) and try again."
    return 1
}

# Holds the lock on descriptor 9 until this shell and everything that it started have ended, so that no lock is left
# behind by a kill. Python does it because macOS has no flock command.
_lock() {
    exec 9>"$ROOT/.venv.lock"
    "$1" - <<'PY'
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("featx set-up: another process is at it; waiting until it has finished", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
PY
}

# Whether the Python in .venv works, is the one it was made with, and made the folder where it is now.
_is_usable() {
    local had_level='' had_root='' had_python=''
    [ -f "$STAMP" ] && { IFS= read -r had_level; IFS= read -r had_root; IFS= read -r had_python; } <"$STAMP"
    [ -z "$had_root" ] || [ "$had_root" = "$ROOT" ] || return 1
    [ -z "$had_python" ] || [ "$VENV/bin/python" -ef "$had_python" ] || return 1
    "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# pip writes INSTALLER when all files of a package are there: without it a killed install would pass for a whole one.
_forget_half_installed() {
    local info
    for info in "$VENV"/lib/python*/site-packages/*.dist-info; do
        [ ! -d "$info" ] || [ -f "$info/INSTALLER" ] || rm -rf "$info"
    done
    rm -rf "$VENV"/lib/python*/site-packages/~*
}

_write_stamp() {
    local level=$1 wanted
    _read_wanted
    printf '%s\n%s\n%s\n%s' "$level" "$ROOT" \
        "$("$VENV/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" "$wanted" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
}

_install() {
    local level=$1 target="$ROOT[fast]" quiet=-qq
    [ "$level" = dev ] && target="$ROOT[dev]"
    [ -t 2 ] && quiet=--progress-bar=on
    "$VENV/bin/python" -m pip install --disable-pip-version-check $quiet \
        --constraint "$ROOT/constraints.txt" --editable "$target" >&2
}

_set_up() {
    local level python
    python=$(_find_python) || return 1
    _lock "$python" || return 1
    if _is_ready "$1"; then return; fi  # the process that we waited for has done it
    level=$(_level "$1")
    if _is_usable; then
        say "bringing $VENV up to date"
        _forget_half_installed
    else
        say "making $VENV with $("$python" --version) ($python)"
        rm -rf "$VENV"
        "$python" -m venv "$VENV" >&2 || return 1
    fi
    _write_stamp "unfinished-$level"
    if [ "$level" = dev ]; then
        say "installing featx, what it needs, every extra and the development tools (the first time takes minutes: torch is large)"
    else
        say "installing featx and what it needs (the first time takes minutes: torch is large)"
    fi
    _install "$level" || return 1
    _write_stamp "$level"
    say "done"
}

ensure_env() {
    _is_ready "$1" && return
    trap 'say "stopped; the same command goes on from here"; exit 130' INT
    if ! _set_up "$1"; then
        say "not finished; when the cause above is mended, the same command goes on from here"
        exit 1
    fi
    trap - INT
    exec 9>&-
}
