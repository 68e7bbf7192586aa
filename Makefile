# Two commands are enough: `make run` and `make test`. Both need only Python 3.11 or newer and git.
PYTHON ?= python3
PORT ?= 4000
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup run fmt check test coverage test-clients test-deploy dist test-dist release-check \
  release-login release-image release-chart release-github nightly fuzz fuzz-guided soak budget bench docs lock audit clean

help:
	@echo "make run            serve the built-in models: no key, no network (PORT=4000)"
	@echo "make setup          install headrace and the development tools into $(VENV)"
	@echo "make test, check    run the tests; ruff, mypy, pyright and import-linter"
	@echo "make clean          remove $(VENV) and what tools have written"
	@echo "The others are in the Makefile, each with a comment."

# Creates the virtual environment, or fails with a clear sentence if Python is too old.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "headrace needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)."; \
	  echo "Install one and run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# Installs what the service needs, locked and checked by hash, then headrace itself in editable mode.
$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "Installing headrace into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Adds the development tools.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "Installing the development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/dev.txt
	@touch $@

setup: $(VENV)/.dev

# Serves the built-in models: no key and no network needed. `make run PORT=4100`.
run: $(VENV)/.run
	@$(BIN)/headrace demo --port $(PORT)

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

test: $(VENV)/.dev
	$(BIN)/pytest -q -n auto --dist worksteal -m "not alone and not deploy"
	$(BIN)/pytest -q -m alone

# Fails where a line or a branch of the engine or of the wire formats is not reached by its own tests. Only cases that are
# written down count: none that hypothesis may draw, and none of the recordings that only some machines have.
COVERED := pipeline/*.py,stages/wire/*.py,stages/wire/**/*.py
coverage: $(VENV)/.dev
	$(BIN)/pytest -q -m "not hypothesis" --cov --cov-report= tests/test_engine tests/test_wire
	$(BIN)/coverage report --include='$(COVERED)' --skip-covered --show-missing --fail-under=100

# Installs the npm clients of clients/package-lock.json into a folder that `make clean` removes.
CLIENTS := $(VENV)/node-clients
$(CLIENTS)/.installed: clients/package.json clients/package-lock.json clients/.npmrc | $(BIN)/python
	@command -v npm >/dev/null || { echo "make test-clients needs Node.js 20 or newer, with npm."; exit 1; }
	@mkdir -p $(CLIENTS)
	@cp clients/package.json clients/package-lock.json clients/.npmrc $(CLIENTS)/
	npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund
	@touch $@

test-clients: $(VENV)/.dev $(CLIENTS)/.installed
	HEADRACE_NODE_CLIENTS=$(CURDIR)/$(CLIENTS) $(BIN)/pytest -q tests/test_clients

# Builds, installs and starts what is in deploy/, as somebody who deploys it would: minutes. What it needs besides Python is
# in .ci/packages.txt; without it the last line says what was skipped.
$(VENV)/.deploy: requirements/deploy.txt $(VENV)/.dev
	@echo "Installing what tests deploy/ into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/deploy.txt
	@touch $@

test-deploy: $(VENV)/.deploy
	$(BIN)/pytest -q -n 2 --dist loadfile -m deploy

# A release. `make dist` builds wheel, sdist, SBOM and checksums; `make test-dist` installs wheel and sdist with each Python
# that is found, and uses them (REQUIRE=--require-all: fails where one of the classifiers is missing).
DIST := dist
BUILD := build
RELEASE := PYTHONPATH=tests $(BIN)/python -m kit.release
dist: $(VENV)/.deploy
	@$(RELEASE) dist $(DIST)

test-dist: $(VENV)/.deploy
	@$(RELEASE) test-dist $(REQUIRE) $(DIST)

# Fails unless this version (without one: that of pyproject.toml) is the same everywhere and has its section in
# CHANGELOG.md, in the right form. Prints that section. A tag such as v1.2.3 is also understood.
VERSION ?=
export VERSION
release-check: $(VENV)/.run
	@$(RELEASE) check "$$VERSION"

# What only the workflow of a release runs (.github/workflows/release.yml), since only it may write there. The digest of
# what was pushed becomes an output of its step.
REGISTRY := ghcr.io
IMAGE := $(REGISTRY)/headrace/headrace
CHARTS := $(REGISTRY)/headrace/charts
OUTPUT := "$${GITHUB_OUTPUT:-/dev/stdout}"
release-login:
	@echo "$$GITHUB_TOKEN" | docker login $(REGISTRY) --username "$$GITHUB_ACTOR" --password-stdin

release-image:
	@mkdir -p $(BUILD)
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) docker buildx build --platform linux/amd64,linux/arm64 \
	  --build-arg VERSION="$${VERSION#v}" --build-arg REVISION="$$(git rev-parse HEAD)" --provenance mode=max --sbom true \
	  --file deploy/docker/Dockerfile --tag $(IMAGE):"$${VERSION#v}" --metadata-file $(BUILD)/image.json --push .
	@sed -n 's/.*"containerimage.digest": *"\(sha256:[0-9a-f]*\)".*/digest=\1/p' $(BUILD)/image.json >> $(OUTPUT)

release-chart:
	@rm -rf $(BUILD)/chart && mkdir -p $(BUILD)/chart
	helm package deploy/helm/headrace --destination $(BUILD)/chart
	helm push $(BUILD)/chart/headrace-*.tgz oci://$(CHARTS) > $(BUILD)/chart.txt 2>&1 || { cat $(BUILD)/chart.txt; exit 1; }
	@sed -n 's/^Digest: *\(sha256:[0-9a-f]*\)$$/digest=\1/p' $(BUILD)/chart.txt >> $(OUTPUT)

release-github: $(VENV)/.run
	@mkdir -p $(BUILD)
	@$(RELEASE) check "$$VERSION" > $(BUILD)/notes.md
	gh release create "v$${VERSION#v}" --verify-tag --title "headrace $${VERSION#v}" --notes-file $(BUILD)/notes.md $(DIST)/*

# Tries 20,000 examples of each property; CI tries 500. Plays 100 chats against each vendor's double; CI plays 3,
# `make test` alone 1. Runs 20,000 simulated worlds (docs/simulator.md); CI runs 2,000, `make test` alone 60.
nightly: $(VENV)/.dev
	HEADRACE_WORLDS=20000 $(BIN)/pytest -q tests/simulator
	HYPOTHESIS_PROFILE=nightly $(BIN)/pytest -q tests/test_wire
	HEADRACE_CHATS=100 $(BIN)/pytest -q tests/test_chats

	$(MAKE) fuzz COUNT=1000000 SEED=$$(date +%Y%m%d)

# Tries COUNT odd inputs each of request bodies, upstream streams and HTTP bytes. What fails is kept in .fuzz/.
COUNT ?= 50000
SEED ?= 0
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz bodies --count $(COUNT) --seed $(SEED)
	$(BIN)/python -m tests.fuzz streams --count $(COUNT) --seed $(SEED)
	$(BIN)/python -m tests.fuzz http --count $(COUNT) --seed $(SEED)

# The same for one target, with inputs chosen by coverage: make fuzz-guided TARGET=bodies. Ends at the first that fails.
TARGET ?= bodies
fuzz-guided: $(VENV)/.dev requirements/fuzz.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/fuzz.txt
	$(BIN)/python -m tests.fuzz $(TARGET) --guided --count $(COUNT) --seed $(SEED)

# Runs mixed load with random faults for MINUTES, then looks for what is left. SOAK=--paced: 5 000 streams at a model's pace.
MINUTES ?= 10
soak: $(VENV)/.run
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(SOAK)

# Holds the service to the limits of benchmarks/budgets.toml, in half a minute.
budget: $(VENV)/.run
	$(BIN)/python -m benchmarks.bench_budget

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# Writes the generated pages (docs/stages.md, errors.md and reliability.md); a test fails if they are stale.
docs: $(VENV)/.dev
	$(BIN)/python -m pipeline.gateway docs --write docs
	$(BIN)/python tests/kit/reliability_page.py

# Locks the newest versions that pyproject.toml allows.
lock: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  pyproject.toml requirements/build.in --output-file requirements/run.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --extra watch --extra http2 pyproject.toml --constraint requirements/run.txt --output-file requirements/image.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  requirements/build.in --constraint requirements/run.txt --output-file requirements/build.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --group dev pyproject.toml --constraint requirements/run.txt --output-file requirements/dev.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --group deploy --constraint requirements/run.txt --constraint requirements/dev.txt --output-file requirements/deploy.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --python-version 3.11 requirements/audit.in --output-file requirements/audit.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --group fuzz --output-file requirements/fuzz.txt

# Checks all locked packages for published advisories. Fails if there are some (1), and if its index of advisories cannot
# be reached (3); a line for each file says which. Not a part of CI, which may have no network.
AUDIT := $(VENV)/audit
$(AUDIT)/.installed: requirements/audit.txt | $(BIN)/python
	@$(BIN)/python -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/audit.txt
	@touch $@

audit: $(AUDIT)/.installed
	@$(AUDIT)/bin/python tests/kit/audit.py

clean:
	rm -rf $(VENV) .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
