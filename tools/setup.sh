#!/bin/sh
# Create the virtual environment and install the pinned lock and the package itself. Quiet unless something fails.
set -eu
python=$1
venv=$2
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2
  exit 2
fi
echo "setting up $venv (once; a minute or two)" >&2
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
log="$venv/setup.log"
install() {
  if command -v uv >/dev/null 2>&1; then
    uv pip install --compile-bytecode --python "$venv/bin/python" "$@"
  else
    "$venv/bin/python" -m pip install --disable-pip-version-check "$@"
  fi
}
{ install --require-hashes -r requirements/all.txt && install --no-deps --no-build-isolation -e .; } >"$log" 2>&1 || {
  tail -n 20 "$log" >&2
  exit 3
}
