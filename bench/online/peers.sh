#!/bin/sh
# Feast's own environment, .peers beside this script (or $1).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here/.peers}
[ -d "$to" ] || python3.11 -m venv "$to"
"$to/bin/python" -m pip install --quiet --require-hashes -r "$here/peers.txt"
"$to/bin/python" -c "from importlib.metadata import version; print('feast', version('feast'), 'redis', version('redis'))"
