# Sourced by the scripts beside it: how they speak and compare versions. Plain POSIX sh, run in the project's folder.

CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

# Messages go to standard error: what a script prints on standard output is its result.
say() { echo "redis-rl: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# at_least 7.0.15 7.0.5: true.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | LC_ALL=C sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$2" ]
}

# identify PROGRAM...: what a server binary says it is: "Redis 7.0.15", "Valkey 9.1.2". The file's name does not tell: some systems
# have valkey-server under the name redis-server.
identify() {
    "$@" --version 2>/dev/null | sed -n 's/^\([A-Za-z]*\) server v=\([0-9.]*\).*/\1 \2/p'
}

oldest_redis=7.0.5
oldest_valkey=8.0.0

# good_enough Redis 7.0.15: whether the module runs on it. Of an unknown server, which says nothing, it is false.
good_enough() {
    case ${1:-} in
        Redis) at_least "$2" $oldest_redis ;;
        Valkey) at_least "$2" $oldest_valkey ;;
        *) false ;;
    esac
}

# crates redis-rl normal,build: by what edges of cargo's a package of this workspace depends on which crates. Each is a line: libc v0.2.1
crates() {
    cargo tree --locked --package "$1" --edges "$2" --prefix none --format '{p}' | sed 's/ (.*//' | grep -v "^$1 " | LC_ALL=C sort -u
}
