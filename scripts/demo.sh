#!/usr/bin/env bash
# Install what is missing and run the main job; further arguments go to `llmfw fit`, e.g. scripts/demo.sh ld_dpo.alpha=1.0
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh demo
exec .venv/bin/llmfw fit --plugin ld_dpo "$@"
