#!/usr/bin/env bash
# Install the real engines that the live tests talk to, in an environment of their own, and say where they are.
# The tests start and stop them; a test whose engine is absent skips and names the line below that installs it.
set -euo pipefail
cd "$(dirname "$0")/.."
engines=.engines
python=${PYTHON:-python3.11}
if [ ! -f "$engines/.ready" ]; then
  "$python" -m venv "$engines"
  if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python "$engines/bin/python" --require-hashes -r requirements/engines.txt
  else
    "$engines/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/engines.txt
  fi
  touch "$engines/.ready"
fi
echo "engines: $engines/bin" >&2
