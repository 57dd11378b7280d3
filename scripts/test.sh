#!/usr/bin/env bash
# Install what is missing and pass every check: linters, types, import contracts, then the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test

# What some tests need of the machine. Where it can't be had, they say why they are skipped.
need() { # need PACKAGE REASON COMMAND...: any one of the commands will do
  local package=$1 reason=$2 name
  shift 2
  for name in "$@"; do command -v "$name" >/dev/null && return; done
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing $package for $reason"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$package"; } \
      >/dev/null 2>&1 || echo "warning: $package could not be installed; $reason will be skipped"
  else
    echo "warning: no $package here and no right to install it; $reason will be skipped"
  fi
}
need chromium "the browser tests" chromium google-chrome chromium-browser
need g++ "the tests of compiled training" g++

# Two workers on two cores: one thread each. No model hub, no telemetry, no colours in what tests compare.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
unset MLFLOW_TRACKING_URI MLFLOW_RUN_ID MLFLOW_EXPERIMENT_NAME

bin=.venv/bin
failed=()
check() { # every linter speaks before the run stops
  echo "== $*"
  "$bin/$@" || failed+=("$1")
}
check ruff check .
check ruff format --check --quiet .
check mypy
check lint-imports --no-logo
if ((${#failed[@]})); then
  echo "error[CHECKS] failed: ${failed[*]}; the tests were not run" >&2
  exit 1
fi
echo "== pytest"
exec "$bin/python" -m pytest -n "${PYTEST_WORKERS:-2}" --dist worksteal "$@"
