# shellcheck shell=bash
# Sourced by test-fresh and test-package, after common.sh: fresh Debian systems, and what runs in them.
#
#     each root: bare system (*.tar) -> work/ -> the script again, in a process tree and with mounts of its own -> removed
#
# When the tree's first process ends, however it ends, the kernel kills all that was started in it and drops all that was mounted in
# it. Nothing but files is left, in target/fresh/: the bare systems, which are kept to be used again, what was printed (*.log), and
# work/, which is removed here, or by the next run if this one was killed.

state=$PWD/target/fresh
work=$state/work

skip() { say "${0##*/} is skipped: $*"; exit 0; }

# copy FILE... FOLDER: those files that there are.
copy() {
    local folder=${*: -1} file
    mkdir -p "$folder"
    for file in "${@:1:$#-1}"; do
        [[ ! -f $file ]] || cp -L "$file" "$folder/"
    done
}

# ---- inside a fresh system

# The variables of the environment that the system gets, as NAME=value.
variables=()

# Lets the system ROOT reach Debian's packages as this machine does.
reach_debian() {
    local root=$1 name scheme
    copy /etc/resolv.conf /etc/hosts "$root/etc"
    copy /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs"
    copy /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates"
    for name in $(compgen -e); do
        case $name in
            *TOKEN* | *PASSWORD*) continue ;;
            http_proxy | https_proxy | no_proxy | all_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | ALL_PROXY) ;;
            SSL_CERT_FILE | CURL_CA_BUNDLE | REQUESTS_CA_BUNDLE) ;;
            PIP_CERT | PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_PROXY | PIP_TRUSTED_HOST | PIP_DEFAULT_TIMEOUT) ;;
            CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTRIES_* | CARGO_SOURCE_*) ;;
            *) continue ;;
        esac
        variables+=("$name=${!name}")
        [[ ${!name} != /* ]] || copy "${!name}" "$root$(dirname "${!name}")"
    done

    apt-config dump Acquire | grep -vE '^Acquire::(IndexTargets|CompressionTypes|Changelogs|cdrom)' \
        >"$root/etc/apt/apt.conf.d/99machine"
    # sudo drops the variables.
    for scheme in http https; do
        name=${scheme}_proxy
        [[ -z ${!name:-} ]] || echo "Acquire::$scheme::Proxy \"${!name}\";" >>"$root/etc/apt/apt.conf.d/99machine"
    done
}

# within ROOT USER FOLDER PROGRAM...: runs a program in the system, as one of its users.
within() {
    local root=$1 user=$2 folder=$3 home=/root path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    shift 3
    [[ $user == root ]] || home=/home/$user path=/usr/local/bin:/usr/bin:/bin
    chroot --userspec="$user:$user" "$root" /usr/bin/env -i -C "$folder" HOME="$home" USER="$user" LANG=C.UTF-8 \
        PATH="/opt/rust/bin:$path" ${variables[@]+"${variables[@]}"} "$@"
}

# mount_system ROOT: what programs expect of a kernel.
mount_system() {
    mount -t proc proc "$1/proc"
    # The devices are the system's own, so nothing in it can harm this machine's.
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$1/dev/pts"
    mount -t tmpfs tmpfs "$1/dev/shm"
}

# apt_install ROOT PACKAGE...: from Debian.
apt_install() {
    within "$1" root / sh -c \
        'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$@"' - "${@:2}"
}

# give_up MESSAGE: on descriptor 3, which is what the script prints; all else goes to the log.
give_up() {
    tail -n 30 "$log" >&3
    echo "==== $name: FAILED: $*. All that was printed is in $log" >&3
    exit 1
}

# log_to NAME LOG: from here on a failure ends in give_up.
log_to() {
    name=$1 log=$2
    exec 3>&1 >"$log" 2>&1
    set -E
    trap 'give_up "line $LINENO of scripts/${0##*/}"' ERR
}

# ---- outside

# as_root ARGUMENTS...: goes on as root, by sudo if need be.
as_root() {
    [[ $(uname -s) == Linux ]] || skip "there is no debootstrap for this system"
    if [[ $EUID -ne 0 ]]; then
        have sudo || skip "it needs root, and there is no sudo"
        sudo ${CI:+-n} true || skip "it needs root, and sudo does not give it"
        exec sudo --preserve-env "$PWD/scripts/${0##*/}" "$@"
    fi
    unshare --mount --pid --fork true 2>/dev/null || skip "root may not mount here"
}

tree=
# Ends what was started, and removes what was unpacked.
clean_up() {
    [[ -z $tree ]] || { kill -KILL "$tree" && wait "$tree"; } 2>/dev/null || true
    # A process that is being killed may still write.
    for _ in {1..50}; do
        rm -rf --one-file-system "$work" 2>/dev/null && break || sleep 0.2
    done
    [[ ! -d $work ]] || say "$work could not be removed"
    # So that whoever builds here can remove it.
    [[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:$SUDO_GID" "$state"
}

# open_roots: once, before the first root is made. Two at a time would be in each other's way.
open_roots() {
    scripts/setup fresh || skip "debootstrap cannot be installed (above is why)"
    mkdir -p "$state"
    exec 9>"$state/lock"
    flock -n 9 || die "another test in fresh systems runs in this checkout"
    clean_up
    trap clean_up EXIT
    trap 'exit 130' HUP INT TERM
}

# in_tree PROGRAM...: runs it as the first process of a tree with mounts of its own. In the background: a trap waits for nothing else.
in_tree() {
    local status=0
    unshare --mount --pid --fork --kill-child -- "$@" </dev/null &
    tree=$!
    wait "$tree" || status=$?
    tree=
    return "$status"
}

# The Debian mirror that this machine's apt uses.
mirror() {
    local uris
    uris=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 2>/dev/null) || true
    awk '$1 == "Debian" || $NF ~ /\/debian\/?$/ { print $NF; found = 1; exit }
        END { if (!found) print "http://deb.debian.org/debian/" }' <<<"$uris"
}

# bare SUITE: makes the bare system, unless it is there.
bare() {
    local tar=$state/$1.tar mirror
    [[ ! -f $tar ]] || return 0
    mirror=$(mirror)
    say "making a bare Debian $1 from $mirror"
    in_tree debootstrap --variant=minbase "$1" "$work/bare" "$mirror" >"$state/debootstrap.log" 2>&1 ||
        { tail -n 5 "$state/debootstrap.log" >&2; die "debootstrap failed: see $state/debootstrap.log"; }
    # Into place in one step, so that nobody finds half a system.
    tar -C "$work/bare" --numeric-owner --one-file-system -cf "$work/tar" .
    mv "$work/tar" "$tar"
    rm -rf --one-file-system "$work/bare"
}

# in_roots NAME...: runs the script with --inside NAME ROOT LOG in a fresh system for each; the name up to a hyphen is its suite.
in_roots() {
    local name script=${0##*/} failed=
    for name; do
        mkdir -p "$work/$name"
        bare "${name%%-*}"
        tar -C "$work/$name" --numeric-owner -xpf "$state/${name%%-*}.tar"
        say "$script: $name (it prints to $state/$script-$name.log)"
        in_tree "$PWD/scripts/$script" --inside "$name" "$work/$name" "$state/$script-$name.log" || failed="$failed $name"
        rm -rf --one-file-system "${work:?}/$name"
    done
    [[ -z $failed ]] || die "$script failed:$failed"
}
