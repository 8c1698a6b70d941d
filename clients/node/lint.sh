#!/bin/sh
# Checks the types of the sources and their style. Formatting is part of the style: at most 120 characters in a line.
set -eu
cd "$(dirname -- "$0")"
if ! cmp -s package-lock.json node_modules/.locked; then
    npm ci --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.locked
fi
node node_modules/typescript/bin/tsc -p . --noEmit
node node_modules/prettier/bin/prettier.cjs --check --log-level warn .
node node_modules/eslint/bin/eslint.js --max-warnings 0 .
long=$(grep -rnE '^.{121,}$' src test scripts eslint.config.js || true)
[ -z "$long" ] || { echo "lint.sh: longer than 120 characters:" >&2; echo "$long" >&2; exit 1; }
