# `make` alone lists the targets. A fresh machine needs python3 (3.11 or later), make and git.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PROTOS := $(shell find protos -name '*.proto' -o -name 'generate.py' | sort)

.DEFAULT_GOAL := help
.PHONY: help install gen up test lint lint-protos types bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}'

$(BIN)/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/installed: pyproject.toml uv.lock | $(BIN)/uv
	$(BIN)/uv sync --quiet --frozen --compile-bytecode
	@touch $@

gen/descriptors.binpb: $(PROTOS) .venv/installed
	$(BIN)/python protos/generate.py 2>/dev/null || $(BIN)/python protos/generate.py

install: .venv/installed gen/descriptors.binpb ## set up .venv and the generated code

gen: .venv/installed ## build stubs, typing stubs and the descriptor set from protos/
	$(BIN)/python protos/generate.py

up: install ## start the whole system on this machine and print how to reach it (Ctrl-C stops it)
	@$(BIN)/millrace up

test: install ## run the whole test suite
	$(BIN)/pytest -n auto

lint: install lint-protos ## check style, import contracts and the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

lint-protos: install
	$(BIN)/buf lint gen/descriptors.binpb

types: install ## check types, strictly
	$(BIN)/mypy

bench: install ## measure our rpcs as ratios to an echo and to the same SQL by pgbench
	$(BIN)/python -m bench

clean: ## remove what was built here
	rm -rf .venv gen .mypy_cache .ruff_cache .pytest_cache .hypothesis
