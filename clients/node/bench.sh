#!/bin/sh
# Each library's own Redis store and redis-rl's, side by side: prints a Markdown table, in about two minutes.
# RL_SERVER names another server, RL_MODULE another module.
set -eu
cd "$(dirname -- "$0")"
work=node-bench
. ./environment.sh
exec node --enable-source-maps out/bench.js
