#!/bin/sh
# Tests the package as users get it: builds the tarball, installs it into a fresh folder and runs the tests against that,
# on real servers with the built module. Arguments are names of tests, like `express client`; without any, all run.
#
# Needs target/release/libredis_rl.so (make build), Node 18 or later and npm. package-lock.json pins what it tests with.
# To raise those versions: change them in package.json, run `npm install` here, and commit the new package-lock.json.
set -eu
cd "$(dirname -- "$0")"
root=$(cd ../.. && pwd)
here=$PWD
work=${CARGO_TARGET_DIR:-$root/target}/clients/node

RL_MODULE=${CARGO_TARGET_DIR:-$root/target}/release/libredis_rl.so
[ "$(uname -s)" != Darwin ] || RL_MODULE=${RL_MODULE%.so}.dylib
[ -f "$RL_MODULE" ] || { echo "test.sh: there is no $RL_MODULE yet: run 'make build' first" >&2; exit 1; }
RL_SERVER=$("$root/scripts/server")
RL_VECTORS=$root/clients/vectors.json
RL_EXAMPLES=$work/fresh/out/readme
export RL_MODULE RL_SERVER RL_VECTORS RL_EXAMPLES

rm -rf "$work"
mkdir -p "$work/alone" "$work/fresh/test"
tarball=$(./pack.sh "$work")

# By itself it needs nothing: neither a framework nor a Redis client.
echo '{ "private": true }' >"$work/alone/package.json"
(
    cd "$work/alone"
    npm install --offline --no-audit --no-fund --no-package-lock --omit=peer --loglevel=error "$tarball"
    [ "$(ls node_modules)" = redis-rl ] || { echo "test.sh: the package brings others along" >&2; exit 1; }
    for entry in redis-rl redis-rl/express-rate-limit redis-rl/fastify-rate-limit redis-rl/nestjs-throttler; do
        node --input-type=module -e "await import('$entry')"
        node --input-type=commonjs -e "require('$entry')"
    done
)

# The frameworks are found in the folder above; the package is the installed one.
ln -s "$here/node_modules" "$work/node_modules"
mv "$work/alone/node_modules" "$work/fresh/node_modules"
cp test/*.ts test/*.cts "$work/fresh/test/"
cp test/tsconfig.json "$work/fresh/tsconfig.json"
node scripts/readme.mjs README.md "$work/fresh/test/readme"
echo '{ "private": true, "type": "module" }' >"$work/fresh/package.json"
cd "$work/fresh"
node "$here/node_modules/typescript/bin/tsc" -p .

if [ $# -eq 0 ]; then
    set -- out/*.test.js out/*.test.cjs
else
    for name; do
        set -- "$@" "out/$name.test.js"
        shift
    done
fi
exec node --enable-source-maps --test "$@"
