# Sourced by the other scripts: words to say things with, and paths they share.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=$ROOT/.venv
TOOLS=$ROOT/build/tools
PEERS=$ROOT/build/peers
HELM=$ROOT/build/helm
STAMPS=$ROOT/build/stamps
LINK=/usr/local/bin/skep
ETC=${SKEP_ETC:-/etc/skep}
UNIT=/etc/systemd/system/skep.service
BASH_COMPLETION=/usr/local/share/bash-completion/completions/skep
ZSH_COMPLETION=/usr/local/share/zsh/site-functions/_skep

say() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

is_root() { [ "$(id -u)" = 0 ]; }
need_root() { is_root || fail "$1 needs root: run it with sudo."; }
has_systemd() { [ -d /run/systemd/system ]; }

# quietly NAME COMMAND…: run it, show its output only if it fails.
quietly() {
    local name=$1 log
    shift
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        fail "$name failed; its output is above."
    fi
    rm -f "$log"
}
