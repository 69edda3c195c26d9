# docv-archive. Start with `make demo`; `make` alone lists the targets.
# Everything is made inside the working copy (.uv, .venv). Nothing is installed into the system's Python.

PYTHON ?= python3
# The certificate authority of a company is in the system's store.
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

demo: venv       ## watch it archive evaluations: no key, no server, no Docker
	@$(BIN)/docv-archive demo

# Keep the files of pytest's rewritten assertions for the next run, whatever the environment says.
test: venv       ## run all tests, in two processes more than there are cores, since many tests wait
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --dist worksteal -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 2)')

faults: venv     ## inject faults for some hours, and print the results
	@$(BIN)/pytest --faults=long tests/faults tests/scripts/test_cli_misconfigurations.py tests/scripts/quarantine/test_retry_command.py
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest tests/tasks/ledger/test_ledger_invariants.py

fuzz: venv       ## read damaged bundles for ten minutes; new answers join tests/corpus
	@$(BIN)/python -m tests.fuzzing --seconds 600 --keep

.venv-stores/.made: $(UV) constraints/stores.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-stores
	@$(UV) pip install --quiet --python .venv-stores --require-hashes -r constraints/stores.txt
	@touch $@

stores: venv .venv-stores/.made  ## run the tests of S3 on LocalStack, and on an S3 that must be refused (some minutes)
	@$(BIN)/python -m tests.stores

.venv-bench/.made: $(UV) constraints/bench.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-bench
	@$(UV) pip install --quiet --python .venv-bench --require-hashes -r constraints/bench.txt
	@touch $@

bench: venv .venv-bench/.made  ## compare the cost of an evaluation with other implementations (half an hour); OPTIONS="--only floor --only batches --size 4.6 --rounds 2"
	@$(BIN)/python -m tests.bench.contest $(OPTIONS)

bench-conditions: venv  ## measure latency, rate limits, memory and a million evaluations (hours); PARTS="latency rate"
	@$(BIN)/python -m tests.bench.conditions $(PARTS)

bench-intake: venv  ## measure how fast backfills, webhooks and live events are accepted (some minutes)
	@$(BIN)/python -m tests.bench.intake

bench-archive: venv  ## measure audit, verify and retention plan, in a folder and over S3 (some minutes)
	@$(BIN)/python -m tests.bench.archive

check: venv      ## check lint, format, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: venv     ## format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

pins: $(UV)      ## pin every dependency again, with hashes
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
