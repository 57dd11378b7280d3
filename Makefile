.PHONY: help setup demo test lint format lock hooks-lock docs site clean
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
setup: ## make .venv/ and install the pinned tree
	@bash scripts/setup.sh demo
demo: ## install and run LD-DPO on a real model with real preference pairs; ARGS="ld_dpo.alpha=1.0"
	@bash scripts/demo.sh $(ARGS)
test: ## install and pass every check and test; ARGS="-k losses"
	@bash scripts/test.sh $(ARGS)
lint: ## linters, types and import contracts alone
	@bash scripts/setup.sh test
	.venv/bin/ruff check . && .venv/bin/ruff format --check --quiet . && .venv/bin/mypy && .venv/bin/lint-imports --no-logo
format: ## lay the code out
	.venv/bin/ruff check --fix . ; .venv/bin/ruff format .
lock: ## resolve all versions anew
	bash scripts/lock.sh
hooks-lock: ## write llmfw/core/hooks.lock after a change of the contract
	.venv/bin/python scripts/hooks_lock.py
docs: ## write the generated parts of docs/
	.venv/bin/python scripts/write_docs.py
site: ## build the documentation site into build/site/
	@bash scripts/setup.sh test
	.venv/bin/python scripts/build_site.py
clean: ## remove caches; keeps .venv/ and runs/
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
