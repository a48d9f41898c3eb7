#!/usr/bin/env bash
# Make a virtual environment as a device would have it: seedcnn[device] and nothing else. Usage: device_venv.sh DIR
set -euo pipefail
case $1 in /*) venv=$1 ;; *) venv=$PWD/$1 ;; esac
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if command -v uv >/dev/null; then
  uv venv --quiet --clear --python "$python" "$venv"
  uv pip install --quiet --python "$venv/bin/python" -c constraints.txt '.[device]'
else
  "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt '.[device]'
fi
