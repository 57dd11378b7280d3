#!/usr/bin/env bash
# Install what is missing and pass every check: linters, types, import contracts, then the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test

# The report's page is looked at in a real browser. Where none can be had, the test says why it is skipped.
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null && ! command -v chromium-browser >/dev/null; then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing chromium for the browser tests"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends chromium; } \
      >/dev/null 2>&1 || echo "warning: chromium could not be installed; the browser tests will be skipped"
  else
    echo "warning: no chromium here and no right to install it; the browser tests will be skipped"
  fi
fi

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
