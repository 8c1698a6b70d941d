#!/bin/sh
# Tests the package as users get it, on real servers with the built module. Arguments are names of tests, like
# `express client`; without any, all run. RL_SERVER names another server, RL_MODULE another module.
set -eu
cd "$(dirname -- "$0")"
work=node
. ./environment.sh

if [ $# -eq 0 ]; then
    set -- out/*.test.js out/*.test.cjs
else
    for name; do
        set -- "$@" "out/$name.test."*js
        shift
    done
fi
exec node --enable-source-maps --test "$@"
