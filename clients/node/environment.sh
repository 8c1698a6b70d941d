# shellcheck shell=sh
# Sourced by test.sh and bench.sh, with $work set to the name of a folder of their own: builds the package, installs the
# tarball into a fresh folder as users do, compiles the programs of test/ against that, and goes there: they are in out/.
#
# Needs Node 18 or later, npm, and target/release/libredis_rl.so (make build), or another module that RL_MODULE names.
# package-lock.json pins the libraries. To raise their versions: change them in package.json, run `npm install` here,
# and commit the new package-lock.json.
here=$PWD
root=$(cd ../.. && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/clients/$work

if [ -z "${RL_MODULE:-}" ]; then
    RL_MODULE=${CARGO_TARGET_DIR:-$root/target}/release/libredis_rl.so
    [ "$(uname -s)" != Darwin ] || RL_MODULE=${RL_MODULE%.so}.dylib
fi
[ -f "$RL_MODULE" ] || { echo "${0##*/}: there is no $RL_MODULE yet: run 'make build' first" >&2; exit 1; }
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
    npm install --offline --no-audit --no-fund --no-package-lock --omit=peer --loglevel=error "$tarball" >&2
    [ "$(ls node_modules)" = redis-rl ] || { echo "${0##*/}: the package brings others along" >&2; exit 1; }
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
