#!/usr/bin/env bash
# bench.sh: prints a table of each library's own Redis store and redis-rl's; see bench.py.
# RL_SERVER names the server, RL_MODULE the built module.
set -euo pipefail
. "$(dirname -- "$0")/environment.sh"

export RL_SERVER=${RL_SERVER:-$(scripts/server)} RL_MODULE=${RL_MODULE:-$PWD/target/release/libredis_rl.so}
[[ -f $RL_MODULE ]] || { echo "bench.sh: there is no $RL_MODULE: run 'make build' first" >&2; exit 1; }

PYTHONPATH=$PWD/clients/python/src exec "$venv/bin/python" -W "ignore:Using \`httpx\` with" clients/python/bench.py
