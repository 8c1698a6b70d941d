# Sourced by the scripts beside it: goes to the project's folder, and makes $venv, a virtual environment with the
# versions of requirements.txt.

CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 1

venv=$PWD/target/clients/python/venv
if ! cmp -s clients/python/requirements.txt "$venv/requirements.txt"; then
    echo "redis-rl: installing what the Python client is tested with into $venv" >&2
    rm -rf "$venv"
    mkdir -p "$(dirname -- "$venv")"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
    # Last, so that an environment that has it is whole.
    cp clients/python/requirements.txt "$venv/requirements.txt"
fi
