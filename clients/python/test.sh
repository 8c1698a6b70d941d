#!/usr/bin/env bash
# test.sh [arguments of pytest]: builds the wheel, installs it, and tests what is installed on real servers.
# RL_SERVER names the server, RL_MODULE the built module.
set -euo pipefail
. "$(dirname -- "$0")/environment.sh"

export RL_SERVER=${RL_SERVER:-$(scripts/server)} RL_MODULE=${RL_MODULE:-$PWD/target/release/libredis_rl.so}
[[ -f $RL_MODULE ]] || { echo "test.sh: there is no $RL_MODULE: run 'make build' first" >&2; exit 1; }

wheels=$PWD/target/clients/python/wheels
rm -rf "$wheels"
"$venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$wheels" \
    clients/python
"$venv/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps --no-index "$wheels"/*.whl

# It needs nothing that was not asked for.
"$venv/bin/python" -I -S - "$wheels"/*.whl <<'END'
import sys

sys.path.insert(0, sys.argv[1])
import redis_rl

assert "redis" not in sys.modules and sys.argv[1] in redis_rl.__file__, redis_rl.__file__
END

# Without PYTHONPATH and away from the sources: the installed package is tested.
cd clients/python/tests
unset PYTHONPATH
exec "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
