# make demo    install, then run all steps on synthetic data: data/output/submission.csv
# make test    the tests; ARGS goes to pytest (make test ARGS="tests/data -x")
# make test-cluster  training and preparing on Ray, torchrun and two hosts, with kills (minutes)
# make test-fuxictr  files, feature maps and metrics against the released FuxiCTR (Linux, minutes)
# make docs    build the documentation into site/; warnings are errors
# make lint    ruff and mypy
# make format  ruff's formatter and its safe fixes
# make clean   remove caches and the environment, not data or checkpoints

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
FUXICTR := .venv-fuxictr

.PHONY: demo test test-cluster test-fuxictr docs lint format clean

demo: $(READY)
	$(BIN)/tossctr run --config configs --expid FESeq_toy

test: $(DEV_READY)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# Not in parallel: each test starts processes.
test-cluster: $(DEV_READY)
	$(BIN)/python -m pytest -m cluster $(ARGS)

test-fuxictr: $(DEV_READY) $(FUXICTR)/.ready
	FUXICTR_PYTHON=$(FUXICTR)/bin/python $(BIN)/python -m pytest -m fuxictr $(ARGS)

docs: $(DEV_READY)
	$(BIN)/mkdocs build --strict --quiet

lint: $(DEV_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(DEV_READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(FUXICTR) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Reinstalled only if pyproject.toml or constraints.txt has changed. The demo needs no test tools.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# FuxiCTR in a separate environment that shares installed packages (torch is large). It does not pin
# polars, but needs functions that polars 2 has removed.
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(FUXICTR)/.ready: $(DEV_READY)
	$(PYTHON) -m venv $(FUXICTR)
	$(BIN)/python $(PURELIB) > "$$($(FUXICTR)/bin/python $(PURELIB))/shared.pth"
	$(FUXICTR)/bin/python -m pip install --quiet --constraint constraints.txt \
	    'fuxictr==2.3.10' 'polars<2' torch h5py
	touch $@
