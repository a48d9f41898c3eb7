#!/usr/bin/env bash
# Make .venv with everything seedcnn needs, pinned by constraints.txt: with uv when it is there, else with venv and pip.
# EXTRAS names other extras of pyproject.toml than "all".
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
extras=${EXTRAS:-all}
venv=.venv

if ! command -v "$python" >/dev/null; then
  echo "setup: $python was not found; seedcnn needs Python 3.11 or newer (set PYTHON=/path/to/python)" >&2
  exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $python is Python $version; seedcnn needs 3.11 or newer (set PYTHON=/path/to/python)" >&2
  exit 1
fi

if command -v uv >/dev/null; then
  export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-120}
  [ -x "$venv/bin/python" ] || uv venv --python "$python" "$venv"
  uv pip install --python "$venv/bin/python" -c constraints.txt -e ".[$extras]"
else
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --retries 5 --timeout 120 -c constraints.txt -e ".[$extras]"
fi
