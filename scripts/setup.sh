#!/usr/bin/env bash
# Make .venv/ in the checkout and install llmfw with its pinned tree into it: scripts/setup.sh demo|test
#
# PYTHON       an interpreter of version 3.11 or newer (default: the first one found)
# TORCH_INDEX  a package index that has the build of torch you want (default: where pip looks anyway)
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-demo}
fail() {
  echo "error[SETUP] $1" >&2
  exit 2
}
[[ $extra == demo || $extra == test ]] || fail "unknown set of packages '$extra'; use demo or test"

modern='import sys; sys.exit(sys.version_info < (3, 11))'
if [[ ! -x .venv/bin/python ]]; then
  python=""
  candidates=(python3 python3.13 python3.12 python3.11 python)
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "$modern" 2>/dev/null; then
      python=$candidate
      break
    fi
  done
  [[ -n $python ]] || fail "no Python 3.11 or newer found; install one or name it: PYTHON=/path/to/python3.12 make $extra"
  echo "Making .venv with $("$python" --version)"
  # made beside and renamed, so that an interruption leaves no half environment; ensurepip's own words are not needed
  rm -rf .venv
  "$python" -m venv .venv || {
    rm -rf .venv
    fail "'$python -m venv' failed; install Python's venv package (on Debian: python3-venv)"
  }
fi

# What was installed is known by the files that decide it; the second call is then a matter of milliseconds.
want=$(cat pyproject.toml constraints.txt scripts/setup.sh | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
have() { [[ -f .venv/.llmfw-$1 && $(<".venv/.llmfw-$1") == "$want" ]]; }
if have "$extra" || have test; then
  exit 0
fi

pip() { PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip -qq "$@"; } # -qq: errors only
pin() { grep -E "^$1==" constraints.txt; }

echo "Installing (minutes the first time): torch, then everything pinned in constraints.txt"
pip install "$(pin pip)" "$(pin setuptools)" "$(pin wheel)"
# torch first and alone: otherwise a dependency may bring another build of it
pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(pin torch)" -c constraints.txt
pip install --no-build-isolation -c constraints.txt -e ".[$extra]"
echo "$want" >".venv/.llmfw-$extra"
