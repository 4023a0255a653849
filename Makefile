# Every verb a contributor needs. Only python3 (3.11 or newer) and make have to be there beforehand.
# ARGS goes to the program behind a verb: make test ARGS='-k times'

VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

# Stamps, so that a second call does nothing until the requirements change.
RUN_STAMP = $(VENV)/.stamp-run
TEST_STAMP = $(VENV)/.stamp-test
BENCH_STAMP = $(VENV)/.stamp-bench

.PHONY: help setup demo test check bench soak faults simulate damage fuzz constraints clean

help: ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

setup: $(RUN_STAMP) ## make .venv and install replicator into it

demo: setup ## the whole story in half a minute, on local files
	@$(BIN)/replicator demo $(ARGS)

test: $(TEST_STAMP) ## the default test run
	@$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(TEST_STAMP) ## lint, format, types, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

bench: $(BENCH_STAMP) ## measure what the README claims, beside the rival
	@$(BIN)/python -m benchmarks $(ARGS)

MINUTES = $(if $(HOURS),$(shell expr $(HOURS) '*' 60),10)
soak: $(TEST_STAMP) ## every scenario in turn, for MINUTES=10 or HOURS=8; the slow tests from an hour on
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

faults: $(TEST_STAMP) ## every crash at every durability point, nothing left out: half an hour
	@$(BIN)/python -m pytest -m slow --timeout 0 -n 2 tests/simulation $(ARGS)

SEEDS = 1000
FIRST = 1
simulate: $(TEST_STAMP) ## lives from seeds, every invariant after every step: SEEDS=1000 FIRST=1
	@$(BIN)/python -m tests.simulation.simulate --seeds $(SEEDS) --first $(FIRST) $(ARGS)

damage: $(TEST_STAMP) ## write docs/DAMAGE.md: what becomes of every kind of damage
	@$(BIN)/python -m tests.support.damage_table

SECONDS = 60
fuzz: $(TEST_STAMP) ## feed every parser with what nobody wrote, for SECONDS=60
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

# The one verb that needs uv. --universal keeps the markers, so one file serves every Python and system.
constraints: ## pin the newest versions that fit pyproject.toml
	@uv pip compile --quiet --upgrade --universal --all-extras --no-annotate --no-header \
		--output-file constraints.txt pyproject.toml

clean: ## remove all that was built or cached
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name .git -prune -o \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +

# A candidate has to run, not only to be on PATH: version managers leave stubs for versions that are not
# selected. A .venv whose interpreter is gone, too old or without pip is made anew.
$(RUN_STAMP): pyproject.toml constraints.txt
	@python=; \
	for candidate in python3.14 python3.13 python3.12 python3.11 python3; do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'replicator needs Python 3.11 or newer, and no python3 on PATH is' >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		echo "making $(VENV) with $$python" >&2; \
		$$python -m venv --clear $(VENV); \
	fi
	@$(PIP) --editable .
	@touch $@

$(TEST_STAMP): $(RUN_STAMP)
	@$(PIP) --editable '.[test,bench]'
	@$(BIN)/python -m tests.support.servers.azure
	@touch $@

$(BENCH_STAMP): $(RUN_STAMP)
	@$(PIP) --editable '.[bench]'
	@touch $@
