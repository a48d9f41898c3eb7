#!/usr/bin/env bash
# Make .venv with everything seedcnn needs, pinned by constraints.txt: with uv when it is there, else with venv and pip.
# EXTRAS names other extras of pyproject.toml than "all". The installer's own lines go to .venv/setup.log; its end is
# shown if it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
extras=${EXTRAS:-all}
venv=.venv
log=$venv/setup.log

if ! command -v "$python" >/dev/null; then
  echo "setup: $python was not found; seedcnn needs Python 3.11 or newer (set PYTHON=/path/to/python)" >&2
  exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $python is Python $version; seedcnn needs 3.11 or newer (set PYTHON=/path/to/python)" >&2
  exit 1
fi

install() {
  if command -v uv >/dev/null; then
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-120}
    { [ -x "$venv/bin/python" ] || uv venv --allow-existing --python "$python" "$venv"; } &&
      uv pip install --python "$venv/bin/python" -c constraints.txt -e ".[$extras]"
  else
    { [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"; } &&
      "$venv/bin/python" -m pip install --disable-pip-version-check --retries 5 --timeout 120 \
        -c constraints.txt -e ".[$extras]"
  fi
}

mkdir -p "$venv"
echo "setup: installing seedcnn[$extras] into $venv with Python $version; this takes two to ten minutes"
if ! install >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "setup: the installation failed; all that it said is in $log" >&2
  exit 1
fi
echo "setup: done in $SECONDS s"
