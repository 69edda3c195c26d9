# docv-archive. Start with `make demo`; `make` alone lists the targets.
# Everything is made inside the working copy (.uv, .venv); the system's Python is only read.

PYTHON ?= python3
# A company's own certificate authority stands in the system's store.
export UV_SYSTEM_CERTS ?= 1
UV := .uv/bin/uv
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help venv demo test faults fuzz stores bench bench-conditions bench-intake bench-archive check format pins picture samples reference clean

help:            ## list the targets
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

venv: .venv/.made  ## make .venv with everything pinned, and the command in .venv/bin/docv-archive

$(UV): constraints/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "docv-archive needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints/uv.txt
	@touch $@

.venv/.made: $(UV) pyproject.toml constraints/develop.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv
	@$(UV) pip install --quiet --compile-bytecode --python .venv --require-hashes -r constraints/develop.txt
	@$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv       ## the main job before your eyes: no key, no server, no Docker
	@$(BIN)/docv-archive demo

# What pytest makes of assertions is kept for the next time, whatever the environment says of such files.
test: venv       ## all tests; one process more than there are cores, since many tests wait
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --dist worksteal -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')

faults: venv     ## break things on purpose, at length (an hour), and print the figures
	@$(BIN)/pytest --faults=long tests/faults tests/scripts/test_cli_misconfigurations.py tests/scripts/quarantine/test_retry_command.py
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest tests/tasks/ledger/test_ledger_laws.py

fuzz: venv       ## ten minutes of damaged bundles for the reader of bundles; what is new joins tests/corpus
	@$(BIN)/python -m tests.fuzzing --seconds 600 --keep

.venv-stores/.made: $(UV) constraints/stores.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-stores
	@$(UV) pip install --quiet --python .venv-stores --require-hashes -r constraints/stores.txt
	@touch $@

stores: venv .venv-stores/.made  ## the tests of S3 on LocalStack, and an S3 that must be refused (some minutes)
	@$(BIN)/python -m tests.stores

.venv-bench/.made: $(UV) constraints/bench.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-bench
	@$(UV) pip install --quiet --python .venv-bench --require-hashes -r constraints/bench.txt
	@touch $@

bench: venv .venv-bench/.made  ## what an evaluation costs, next to others and a floor (an hour); OPTIONS="--only floor --only batches --size 4.6 --rounds 2"
	@$(BIN)/python -m tests.bench.contest $(OPTIONS)

bench-conditions: venv  ## latency, a rate to be kept, memory and a million (hours); PARTS="latency rate"
	@$(BIN)/python -m tests.bench.conditions $(PARTS)

bench-intake: venv  ## what the ways in can take: backfills, webhooks, live events beside a backfill (some minutes)
	@$(BIN)/python -m tests.bench.intake

bench-archive: venv  ## how fast an archive is asked and read back, in a folder and over S3 (some minutes)
	@$(BIN)/python -m tests.bench.archive

check: venv      ## lint, format, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: venv     ## put the code into shape
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

pins: $(UV)      ## pin every dependency anew, with hashes
	@echo 'uv' | $(UV) pip compile --quiet --no-header --no-annotate --generate-hashes --universal --python-version 3.11 --upgrade -o constraints/uv.txt -
	@$(UV) pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --upgrade -o constraints/runtime.txt pyproject.toml
	@$(UV) pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --upgrade --constraint constraints/runtime.txt --extra tracing -o constraints/tracing.txt pyproject.toml
	@$(UV) pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --constraint constraints/tracing.txt --extra develop -o constraints/develop.txt pyproject.toml
	@$(UV) pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --upgrade --extra bench -o constraints/bench.txt pyproject.toml
	@$(UV) pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 --upgrade -o constraints/stores.txt constraints/stores.in

picture: venv    ## draw docs/demo.svg from a real run of the demo, and docs/page.png (needs chromium; some minutes)
	@$(BIN)/docv-archive demo --picture docs/demo.svg
	@$(BIN)/python -m tests.page_picture

samples: venv    ## draw the sample documents that the simulator delivers
	@$(BIN)/python -m tests.samples

reference: venv  ## write the generated parts of docs/configuration.md and docs/commands.md
	@$(BIN)/python -m tests.reference

clean:           ## remove what make made
	@rm -rf .uv .venv .venv-bench .venv-stores .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
