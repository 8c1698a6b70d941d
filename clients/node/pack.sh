#!/bin/sh
# pack.sh FOLDER: builds the package as users get it, and prints the path of its tarball in that folder.
set -eu
folder=$(CDPATH='' cd -- "${1:?usage: pack.sh FOLDER}" && pwd)
cd "$(dirname -- "$0")"

# What is locked, unless it is there already.
if ! cmp -s package-lock.json node_modules/.locked; then
    npm ci --no-audit --no-fund --loglevel=error >&2
    cp package-lock.json node_modules/.locked
fi

npm run --silent build >&2
echo "$folder/$(npm pack --silent --pack-destination "$folder" --loglevel=error)"
