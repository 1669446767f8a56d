#!/bin/sh
# The peers' own environment, .peers beside this script (or $1): Evidently.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here/.peers}
[ -d "$to" ] || uv venv --quiet --python 3.11 "$to"
uv pip install --quiet --python "$to" --require-hashes -r "$here/peers.txt"
"$to/bin/python" -c "import importlib.metadata as m; print('evidently', m.version('evidently'), 'pandas', m.version('pandas'))"
