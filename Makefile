# Everything a developer does, one word each. `make help` lists them.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test fast lint types format golden bench bench-full table3 sqnr depth whitepaper quartdepth pareto clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Reinstalled when the project's requirements change; a half-made environment has no stamp and is made anew.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP) ## set up, then send an image through a depth model on the simulated chip
	@$(BIN)/python -m benchmarks.demo

test: $(STAMP) ## every test, the slow ones too (what CI runs)
	@$(BIN)/python -m pytest -n auto

# With bytecode, even where the shell forbids it: to rewrite the asserts of all tests takes longer than many of them.
fast: $(STAMP) ## a thin part of every test
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto -m 'not slow'

lint: $(STAMP) ## ruff: rules and formatting of imports
	@$(BIN)/ruff check .

types: $(STAMP) ## basedpyright, strict on isa, compiler and runtime
	@$(BIN)/basedpyright

format: $(STAMP) ## apply ruff's safe fixes
	@$(BIN)/ruff check --fix .

golden: $(STAMP) ## rewrite the generated files and golden expectations (then read the diff)
	@$(BIN)/python -m isa.manual docs/isa.md
	@$(BIN)/python -m quartic.manual docs/api.md
	@QUARTIC_UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/golden tests/test_docs.py

bench: $(STAMP) ## measure the reference networks and rewrite benchmarks/results
	@$(BIN)/python -m benchmarks.bench

table3: $(STAMP) ## time Metric3D beside the rows of QuartDepth's Table 3; rows that are known are kept
	@$(BIN)/python -m benchmarks.table3

bench-full: $(STAMP) ## verify every network at every width, bit by bit (hours; goes on where it stopped), and measure
	@$(BIN)/python -m benchmarks.networks
	@$(BIN)/python -m benchmarks.bench --full

sqnr: $(STAMP) ## noise of every network at 16 bits, layer by layer; rows of these sources are kept
	@$(BIN)/python -m benchmarks.sqnr

depth: $(STAMP) ## measure the depth model at every recipe, float against simulated chip, with a picture
	@$(BIN)/python -m benchmarks.depth.evaluate

whitepaper: $(STAMP) ## Tables 2 to 6 of the quantization whitepaper on small networks; rows that are known are kept
	@$(BIN)/python -m benchmarks.whitepaper

quartdepth: $(STAMP) ## QuartDepth's tables on two depth networks (most of an hour; rows that are known are kept)
	@$(BIN)/python -m benchmarks.quartdepth

pareto: $(STAMP) ## assign widths to the depth model at several budgets: simulated energy against depth error
	@$(BIN)/python -m benchmarks.depth.pareto

clean: ## remove the environment and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
