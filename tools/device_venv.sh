#!/usr/bin/env bash
# Make a virtual environment as a device would have it: seedcnn[device] and nothing else, not even pip. Usage:
# device_venv.sh DIR. The installer's own lines go to DIR.log; its end is shown if it fails.
set -euo pipefail
case $1 in /*) venv=$1 ;; *) venv=$PWD/$1 ;; esac
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
log=$venv.log

install() {
  if command -v uv >/dev/null; then
    uv venv --clear --python "$python" "$venv" &&
      uv pip install --python "$venv/bin/python" -c constraints.txt '.[device]'
  else
    "$python" -m venv --clear --without-pip "$venv" &&
      .venv/bin/python -m pip --python "$venv/bin/python" install --no-compile --disable-pip-version-check \
        -c constraints.txt '.[device]'
  fi
}

if ! install >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "device_venv: the installation failed; all that it said is in $log" >&2
  exit 1
fi
