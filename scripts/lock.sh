#!/usr/bin/env bash
# Resolve the whole tree anew and write constraints.txt, requirements.lock and requirements-cuda.lock.
#
#   scripts/lock.sh            keep the pinned versions, add what is missing
#   scripts/lock.sh --upgrade  take the newest versions that pyproject.toml admits
#
# Needs pip-tools (`pip install pip-tools`) and a CPU wheel of torch that pip can find (see README, "Which build of torch").
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.13.0
PYTHON=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pins="$work/pins.txt"
: >"$pins"
if [[ "${1:-}" != "--upgrade" && -f constraints.txt ]]; then
  grep -vE '^(#|$)' constraints.txt >"$pins"
fi
sed -i '/^torch==/d' "$pins"
echo "torch==$TORCH" >>"$pins"

compile() { # compile OUT [options] SOURCE: no host, path or extra of this machine gets into the file
  local out=$1
  shift
  "$PYTHON" -m piptools compile --quiet --strip-extras --allow-unsafe --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -c "$pins" -o "$out" "$@"
}

drop_self() { # the project itself stands in the output, because one extra names another
  awk '/^# (WARNING: pip install will|Consider using a hashable)/ {next} /^llmfw( |$)/ {next}
       /^# The following packages are considered/ {next} {print}' "$1"
}

# 1. everything with hashes, on the CPU build
compile "$work/cpu.lock" --generate-hashes --extra test --extra docs pyproject.toml
# 2. what the registry's CUDA build of torch brings along on Linux, with the registry's own hashes
echo "torch==$TORCH" >"$work/torch.in"
PIP_FIND_LINKS='' PIP_CONFIG_FILE=/dev/null compile "$work/cuda.lock" --generate-hashes "$work/torch.in"
# 3. the names and versions alone, every extra and the build tools
printf 'pip\nsetuptools\nwheel\npip-tools\n' >"$work/tools.in"
compile "$work/all.txt" --all-extras pyproject.toml "$work/tools.in"

"$PYTHON" scripts/write_locks.py "$TORCH" <(drop_self "$work/cpu.lock") "$work/cuda.lock" <(drop_self "$work/all.txt")
