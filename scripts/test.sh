#!/usr/bin/env bash
# Install what is missing and pass every check: linters, types, import contracts, then the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test

# What some tests need of the machine: a program, and the Debian package that brings it. Where it can't be had, they
# say why they are skipped.
wanted=(
  "chromium|google-chrome|chromium-browser:chromium" "g++:g++"
  # the sandbox, its languages and its analysers
  bwrap:bubblewrap runsc:runsc python3:python3 node:nodejs tsc:node-typescript javac:openjdk-17-jdk-headless gcc:gcc
  rustc:rustc go:golang-go perl:perl ruby:ruby php:php-cli luac5.4:lua5.4 mcs:mono-mcs mono:mono-runtime
  Rscript:r-base-core ocamlc:ocaml-nox cppcheck:cppcheck flawfinder:flawfinder shellcheck:shellcheck luacheck:lua-check
  clippy-driver:rust-clippy checkstyle:checkstyle rubocop:rubocop phpcs:php-codesniffer perlcritic:libperl-critic-perl
  go-staticcheck:go-staticcheck valgrind:valgrind
)
have_system() { # have_system PROGRAM|PROGRAM...: in the system's own folders, which sandboxes see
  local name
  for name in ${1//|/ }; do [[ -x /usr/bin/$name || -x /usr/local/bin/$name || -x /usr/sbin/$name ]] && return; done
  return 1
}
absent=()
for one in "${wanted[@]}"; do have_system "${one%%:*}" || absent+=("${one##*:}"); done
if ((${#absent[@]})); then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing ${absent[*]}"
    apt-get -qq update >/dev/null 2>&1 || true
    # together, and one by one where that fails: what can't be had costs its own tests only
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${absent[@]}" >/dev/null 2>&1 ||
      for one in "${absent[@]}"; do
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$one" >/dev/null 2>&1 ||
          echo "warning: $one could not be installed; the tests that need it will be skipped"
      done
  else
    echo "warning: no ${absent[*]} here and no right to install them; the tests that need them will be skipped"
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
