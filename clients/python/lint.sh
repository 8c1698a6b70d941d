#!/usr/bin/env bash
# lint.sh: ruff and mypy --strict.
set -euo pipefail
. "$(dirname -- "$0")/environment.sh"

cd clients/python
"$venv/bin/ruff" format --quiet --check .
"$venv/bin/ruff" check --quiet .
MYPYPATH=src:tests "$venv/bin/mypy" --no-error-summary --cache-dir "$venv/mypy" src tests
