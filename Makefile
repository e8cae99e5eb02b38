# `make demo` and `make test` do all the set-up on a machine with python3 (3.11 or newer), make and git.
PYTHON ?= python3
CONCEPT ?= mushroom
SEED ?= 0
OUTPUT ?= demo
# Processes of the tests: one a core, two at least and four at most (a choice).
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 4 ? 4 : n)))
BIN := .venv/bin
READY := .venv/.ready
export HF_HUB_OFFLINE ?= 1
# On a busy machine threads that spin while they wait take the core that they wait for.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help venv demo test check bench clean

help:
	@echo "make demo   immunize, attack, measure, report (CONCEPT=$(CONCEPT) SEED=$(SEED) OUTPUT=$(OUTPUT))"
	@echo "make test   the tests (WORKERS=$(WORKERS))"
	@echo "make check  ruff and mypy"
	@echo "make bench  what a defence costs beside plain fine-tuning"
	@echo "make clean  remove .venv and caches"

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gift needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "no venv module; install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/gift demo --concept "$(CONCEPT)" --seed $(SEED) --output "$(OUTPUT)"

# Small tests gain nothing from a second thread, and much from a second process.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m gift.bench.speed

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
