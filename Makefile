# Everything starts here: `make` lists the targets. Needs Python 3.11 or newer and make; the rest goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
DEMO := runs/demo
DEMO_PAIRS := runs/demo-pairs.jsonl
BENCH := runs/bench

.PHONY: help demo test check bench clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: export HF_HUB_OFFLINE := 1
demo: $(INSTALLED) $(DEMO_PAIRS)  ## adapt MiniLM to Python's own docstrings, offline, in under five minutes
	$(BIN)/acclimate adapt $(DEMO_PAIRS) --out $(DEMO) --config examples/docstrings.toml
	$(BIN)/acclimate search $(DEMO) "wait until every thread has finished" --compare
	$(BIN)/acclimate search $(DEMO) "remove the whitespace at both ends of a text" --compare
	$(BIN)/acclimate search $(DEMO) "read a file line by line without loading it whole" --compare
	$(BIN)/acclimate index $(DEMO)
	$(BIN)/acclimate evaluate $(DEMO) --index
	$(BIN)/acclimate search $(DEMO) "undo the escaping of HTML entities"
	@echo "The report: $(DEMO)/report.html"

# One OpenMP thread per test process: two processes are faster than two threads, and sums come out the same every time.
# A file's tests stay in one process, so that what they share (a model, a run) is made once.
test: $(READY)  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) $(DEMO_PAIRS)  ## the benchmarks in small sizes, beside sentence-transformers, on the demo's data
	$(BIN)/acclimate prepare $(DEMO_PAIRS) --out $(BENCH)
	$(BIN)/python benchmarks/encode.py --texts 500
	$(BIN)/python benchmarks/mixed.py --rounds 5
	$(BIN)/python benchmarks/train.py --examples 256
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/mine.py $(BENCH)/dataset --limit 300
	$(BIN)/python benchmarks/recipe.py $(BENCH)/dataset --pairs 600

clean:  ## remove .venv and what the tools left; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/acclimate.egg-info

$(DEMO_PAIRS): examples/docstrings.py | $(INSTALLED)
	$(BIN)/python examples/docstrings.py --out $@

# Two steps, each with a marker: the package and what it needs, which is enough for `make demo`; then what tests and checks
# need. Editable, so that neither has to be repeated when the source changes.
# torch goes in first: it is the one big package, and a failure there should come before the sixty small ones.
$(INSTALLED): pyproject.toml constraints.txt
	@found=""; for name in "$(PYTHON)" python3.11 python3 python; do \
		if [ -n "$$name" ] && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found="$$name"; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "make: no Python 3.11 or newer among python3.11, python3, python; give one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(READY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
