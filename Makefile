# Everything runs from .venv, made here by Python's own venv and pip; nothing global is touched. `make help` lists the targets.

VENV := .venv
RUN := $(VENV)/bin
# Tried in this order, each by running it: a name on PATH may be a shim that fails. `make PYTHON=… install` takes just that one.
PYTHON ?= python3.13 python3.12 python3.11 python3 python
# Wheels only: building a package from source would fetch a build backend that no hash covers. What is never imported need
# not be compiled.
PIP_INSTALL := $(RUN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PIP_PINNED := $(PIP_INSTALL) --require-hashes --only-binary :all:
PIP_PROJECT := $(PIP_INSTALL) --no-deps --no-build-isolation
# Neither may lead the virtual environment to modules from elsewhere.
unexport PYTHONPATH
unexport PYTHONHOME
# Without them every child process of the tests would compile both packages anew.
unexport PYTHONDONTWRITEBYTECODE
# As many tests at a time as there are processors.
PARALLEL := -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install test coverage unit integration e2e long chaos history lint fmt typecheck security bench build demo docker-up docker-down lock ferretdb clean

help:  ## list the targets
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*  ## \(.*\)$$/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '%-14s %s\n' "$$name" "$$text"; done

# --- setting up ------------------------------------------------------------------------------------------------------

install: $(VENV)/.project  ## set up .venv from the pinned requirements

# Rebuilt from nothing when a pin changes, so that no package of an earlier list can hide a missing one.
$(VENV)/.requirements: requirements/dev.txt
	@for candidate in $(PYTHON); do \
		if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
		then found=$$candidate; break; fi; done; \
	if [ -z "$$found" ]; then \
		echo 'No Python 3.11 or later with venv and ensurepip among: $(PYTHON).' >&2; \
		echo 'Install one (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)' >&2; \
		exit 1; fi; \
	echo "installing the pinned requirements into $(VENV) ($$("$$found" --version))"; \
	"$$found" -m venv --clear $(VENV)
	@$(PIP_PINNED) -r requirements/dev.txt
	@touch $@

$(VENV)/.project: $(VENV)/.requirements pyproject.toml
	@$(PIP_PROJECT) --editable .
	@$(RUN)/python -m pip --disable-pip-version-check check
	@touch $@

lock:  ## pin the requirements anew from pyproject.toml (needs uv; UPGRADE=1 takes newer versions)
	@command -v uv >/dev/null || { echo 'make lock needs uv: https://docs.astral.sh/uv/ (pipx install uv)' >&2; exit 1; }
	$(UV_COMPILE) --python-version 3.10 $(if $(UPGRADE),--upgrade) --extra server --extra postgresql --extra mongodb --group dev -o requirements/dev.txt
	$(UV_COMPILE) --python-version 3.11 -c requirements/dev.txt --extra server --extra postgresql --extra mongodb --extra opentelemetry --group build -o requirements/server.txt
	$(UV_COMPILE) --python-version 3.10 -c requirements/dev.txt --group sdk-test -o requirements/sdk-test.txt
	echo 'python-config-client==0.1.2' | $(subst pyproject.toml,-,$(UV_COMPILE)) --python-version 3.10 -c requirements/dev.txt \
		-o requirements/peer.txt
# One list for every Python and platform, and no word of where the packages came from.
UV_COMPILE = uv pip compile --quiet pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

# --- trying it -------------------------------------------------------------------------------------------------------

demo: install  ## show the whole of it: publish, fetch, watch, refuse, export
	@$(RUN)/python -m examples.demo

docker-up:  ## build and start the service in Docker (needs CONFIG_SERVER_MASTER_KEY)
	docker compose up --build --detach --wait

# Stopping needs no key, yet compose refuses to read the file without one.
docker-down:  ## stop it; the data volume stays
	CONFIG_SERVER_MASTER_KEY="$${CONFIG_SERVER_MASTER_KEY:-unused}" docker compose down

# --- tests -----------------------------------------------------------------------------------------------------------

test: install  ## every test but the long ones
	$(RUN)/pytest $(PARALLEL) -m "not long"

coverage: install  ## the same with branch coverage of both packages, which must not fall below the limit
	@$(RUN)/coverage erase
	$(RUN)/coverage run -m pytest $(PARALLEL) -m "not long"
	@$(RUN)/coverage combine --quiet
	@$(RUN)/coverage report

unit: install  ## the tests that need no socket, store or child process
	$(RUN)/pytest -m "not e2e and not integration"

integration: install  ## the tests on a real store, shell or child process
	$(RUN)/pytest -m integration

e2e: install  ## the tests with a real server on a real socket
	$(RUN)/pytest -m e2e

long: install  ## the tests that take minutes: chaos and its mutants, rounds of SIGKILL, every benchmark once
	$(RUN)/pytest -p no:logging -m long

chaos: install  ## more of the chaos suite: ROUNDS=5000, SEED=…; FIRST=… plays a round again
	CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(SEED) CHAOS_FIRST=$(FIRST) CHAOS_WORLDS=$(WORLDS) \
		$(RUN)/pytest -p no:logging tests/chaos -k "nothing_hangs"
chaos: ROUNDS ?= 1000
# The second of today, so that every run sees another course of events; a failure tells its own.
chaos history: SEED ?= $(shell date +%s)
chaos: FIRST ?= 0
chaos: WORLDS ?= 3

history: install  ## more runs of the judged histories on three replicas: RUNS=200 SEED=…
	HISTORY_RUNS=$(RUNS) HISTORY_SEED=$(SEED) $(RUN)/pytest -p no:logging -s tests/history -k "told_holds"
history: RUNS ?= 100

bench: install  ## every benchmark, each beside its peer
	$(RUN)/python -m benchmarks

# --- servers for the tests -------------------------------------------------------------------------------------------

FERRETDB_VERSION := v1.24.0
FERRETDB := .cache/ferretdb/ferretdb
# Only the SQLite backend, in Go alone; the version that `go install` would leave out must stand in a file of its own.
ferretdb: $(FERRETDB)  ## build FerretDB v1, a server for the tests of the store in MongoDB (needs Go 1.22 or later)

$(FERRETDB):
	@command -v go >/dev/null || { echo 'make ferretdb needs Go 1.22 or later: https://go.dev/dl/ (Debian: apt-get install golang)' >&2; exit 1; }
	@case "$$(go env GOVERSION)" in go1.[0-9]|go1.[0-9].*|go1.1[0-9]*|go1.2[01]*) \
		echo "make ferretdb needs Go 1.22 or later; this is $$(go env GOVERSION): https://go.dev/dl/" >&2; exit 1;; esac
	@rm -rf $(@D) && mkdir -p $(@D)
	@module=$$(go mod download -json github.com/FerretDB/FerretDB@$(FERRETDB_VERSION) | sed -n 's/^\t"Dir": "\(.*\)",*$$/\1/p'); \
		test -n "$$module" || { echo 'github.com/FerretDB/FerretDB could not be downloaded; is there a Go module proxy?' >&2; exit 1; }; \
		cp -R "$$module" $(@D)/source && chmod -R u+w $(@D)/source
	@echo $(FERRETDB_VERSION) > $(@D)/source/build/version/version.txt
	cd $(@D)/source && CGO_ENABLED=0 go build -trimpath -tags ferretdb_no_postgresql -ldflags '-s -w' -o ../built ./cmd/ferretdb
	@$(@D)/built --version
	@rm -rf $(@D)/source && mv $(@D)/built $@

# --- checks ----------------------------------------------------------------------------------------------------------

lint: install  ## ruff, its formatter, and who may import whom
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports

fmt: install  ## format, and mend what ruff can mend
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

typecheck: install  ## mypy --strict; the SDK once more as Python 3.10 sees it
	$(RUN)/mypy --strict -p config_client -p config_service -p examples -p benchmarks
	$(RUN)/mypy --strict --python-version 3.10 -p config_client
	$(RUN)/mypy --strict .ci/audit.py .ci/check_wheel.py
	$(if $(wildcard tests/typing/*.py),$(RUN)/mypy --strict $(wildcard tests/typing/*.py))

security: install  ## bandit, and the pinned requirements against the vulnerability database
	$(RUN)/bandit --quiet --recursive --configfile pyproject.toml config_client config_service
	$(RUN)/python .ci/audit.py requirements/dev.txt

build: install  ## wheel and sdist in dist/, then a look into the wheel and an installation of it
	@rm -rf dist
	$(RUN)/python -m build --no-isolation
	$(RUN)/python .ci/check_wheel.py dist

clean:  ## remove everything that was generated, .venv included; data and .env stay
	rm -rf $(VENV) .cache build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find config_client config_service tests examples benchmarks .ci -type d -name __pycache__ -prune -exec rm -rf {} +
