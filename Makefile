# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
TORCH := torch==2.13.0
PY    ?= $(shell command -v python3.11 || (python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && command -v python3))
STAMP     := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help install demo test long check bench crash clean test-deps lock
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@if [ -z "$(PY)" ]; then \
	  echo "sre-bot needs Python 3.11, and none was found. Install it (Debian: apt-get install python3.11 python3.11-venv) or name it: make PY=/path/to/python3.11" >&2; exit 1; fi
	@echo "[1/4] creating $(VENV) with $$($(PY) --version)"
	@$(PY) -m venv $(VENV) || { rm -rf $(VENV); echo "The venv module is missing: apt-get install python3.11-venv" >&2; exit 1; }

# torch is installed first and alone: asked for by another package, pip would take the CUDA build and its 2.7 GB.
$(STAMP): pyproject.toml requirements.lock | $(BIN)/python
	@echo "[2/4] looking for a CPU build of torch (embeddings; the bot works without it)"
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  if $(BIN)/pip install -q --dry-run --no-deps $(TORCH_ARGS) --report $(VENV)/torch.json $(TORCH) >/dev/null 2>&1 \
	     && { [ -n "$(TORCH_ARGS)$(ALLOW_CUDA)" ] || $(BIN)/python -c 'import json,platform,sys; r=json.load(open("$(VENV)/torch.json"))["install"][0]; v=r["metadata"]["version"]; sys.exit(0 if "+cpu" in v or (platform.system(), platform.machine()) != ("Linux", "x86_64") else 1)'; }; then \
	    $(BIN)/pip install -q --no-deps $(TORCH_ARGS) $(TORCH); \
	  else echo "      only the CUDA build (2.7 GB) is to be had here, so it is left out: runbooks are searched by words."; \
	       echo "      To add it: make install TORCH_ARGS='--index-url <a CPU index>', or ALLOW_CUDA=1"; fi; }
	@echo "[3/4] installing pinned packages (one to three minutes the first time)"
	@extras=demo,kubernetes,aws,fast; if $(BIN)/pip show -q torch 2>/dev/null; then extras=$$extras,ml; fi; \
	  $(BIN)/pip install -q -c requirements.lock -e ".[$$extras]" || { echo "Installation failed: see pip's message above. A network to a package index is needed once." >&2; exit 1; }
	@touch $@
	@echo "[4/4] ready: $(BIN)/sre-bot --help"

$(DEV_STAMP): $(STAMP)
	@echo "installing the test tools"
	@$(BIN)/pip install -q -c requirements.lock -e ".[dev]"
	@touch $@

install: $(STAMP)  ## set up .venv, nothing else

demo: $(STAMP)  ## the whole loop on this machine: a local Slack, services, faults, the bot
	@exec $(BIN)/sre-bot demo

APT := $(shell [ "$$(id -u)" = 0 ] && echo apt-get || echo sudo apt-get)
test-deps: $(DEV_STAMP)
	@missing=""; command -v chromium >/dev/null || missing="$$missing chromium"; command -v prometheus >/dev/null || missing="$$missing prometheus"; \
	  command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	  if [ -n "$$missing" ]; then echo "installing$$missing from Debian's packages (browser and Prometheus tests use the real ones)"; \
	    { $(APT) update -qq && DEBIAN_FRONTEND=noninteractive $(APT) install -y -qq --no-install-recommends $$missing; } >$(VENV)/apt.log 2>&1 \
	    || { tail -5 $(VENV)/apt.log >&2; echo "Install by hand: apt-get install$$missing" >&2; exit 1; }; fi

# The first half runs three files at a time (they wait more than they reckon); the second starts whole worlds, which need
# the machine for themselves.
test: test-deps check  ## every check and every test
	@$(BIN)/python -m pytest -n 3 --dist loadfile -m "not whole and not long"
	@$(BIN)/python -m pytest -m "whole and not long"

long: test-deps  ## what `make test` has no time for: eight tests of a minute or three each
	@$(BIN)/python -m pytest -m long

# Some replicas die at a system call (strace) or live an hour off (libfaketime); without these two packages those trials
# are left out, or done with the bot's own clock. One trial again: make crash SEED=1 ONLY=17
crash: $(DEV_STAMP)  ## hundreds of trials with kill -9, cut networks, dead servers (TRIALS=300 SEED=1 ONLY=N)
	@missing=""; command -v strace >/dev/null || missing="$$missing strace"; ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$$missing libfaketime"; \
	  if [ -n "$$missing" ]; then echo "installing$$missing from Debian's packages"; \
	    { $(APT) update -qq && DEBIAN_FRONTEND=noninteractive $(APT) install -y -qq --no-install-recommends $$missing; } >$(VENV)/apt.log 2>&1 || true; fi
	@$(BIN)/python -m tests.crash --trials $(or $(TRIALS),300) --seed $(or $(SEED),1) $(if $(ONLY),--only $(ONLY)) $(CRASH)

# The marks of detection on labelled curves need a folder of them: make bench DETECTION_DATA=/path/to/folder
bench: $(DEV_STAMP)  ## speed and quality, each figure beside a named baseline (BENCH="engine rank" for some)
	@DETECTION_DATA="$(DETECTION_DATA)" $(BIN)/python -m tests.bench $(BENCH)

check: $(DEV_STAMP)  ## ruff, ruff format, mypy --strict, import-linter, vulture, bandit
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/vulture
	@$(BIN)/bandit -q -ll -r -c pyproject.toml bot pipeline executors knowledge_base migrations

lock: $(BIN)/python  ## renew requirements.lock
	@$(BIN)/pip install -q uv && $(BIN)/uv pip compile -q --python-version 3.11 --no-header --no-annotate --all-extras \
	  --no-emit-package torch --no-emit-package sre-bot --find-links $${PIP_FIND_LINKS:-.} -c <(echo torch==2.13.0+cpu) pyproject.toml -o requirements.lock

clean:  ## remove the virtual environment and the demo's data
	@rm -rf $(VENV) .sre-bot
