# Everything a person or CI runs. No activation, nothing global: all of it happens in .venv.
#
#   make demo         the whole road on a real slide; `make demo DEMO_ARGS="slide.svs --mpp 0.5"` takes yours
#   make test         the test suite; `make test TEST_ARGS="-k tiling"` takes a part
#   make lint types docs
#   make interop      only the tests that open what we write in other projects' readers
#   make bench        the benchmarks; of those of which something is asked: make bench BENCH_ARGS=--asked
#   make bench-peers  these with every peer, in environments of their own, and the page of what is asked
#   make soma         tests beside tiledbsoma, in the same environment
#   make spatialdata  tests beside spatialdata, in an environment of its own
#   make check        what CI runs, in CI's order
#   make constraints  resolve constraints.txt anew
#   make floors       the test suite on the oldest releases that pyproject.toml allows
#
# PYTHON chooses the interpreter the environment is made with: `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt
# What turns the package into an installed one; pinned like the rest, so no isolated build fetches another.
BUILD_TOOLS := pip hatchling editables
# Exactly this: a range would let pip choose a build for other hardware over a CPU wheel it has at hand.
TORCH := 2.13.0

.PHONY: demo test lint types docs interop soma spatialdata bench bench-peers check constraints floors format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/microtome demo $(DEMO_ARGS)

# As many processes as there are processors, four at most: each holds torch and a gigabyte.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(TEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# Not --quiet: that hides the warnings from --strict as well.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

interop: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m interop $(TEST_ARGS)

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# The peers run in processes of their own, with what they ask for (benchmarks/outside.py): nothing of it is
# beside us, and none of it is part of CI. Of zarr 3.4 only where there is a newer interpreter.
NEWER ?= python3.13
bench-peers: $(VENV)/.installed-test build/peers-venv/.installed build/zarr-venv/.installed
	$(BIN)/python -m benchmarks --asked $(BENCH_ARGS)

build/peers-venv/.installed: benchmarks/peers-pins.txt
	$(PYTHON) -m venv --clear build/peers-venv
	build/peers-venv/bin/python -m pip --disable-pip-version-check --quiet install torch==$(TORCH)
	build/peers-venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --requirement $<
	@touch $@

build/zarr-venv/.installed: benchmarks/zarr-pins.txt
	if $(NEWER) -c '' 2>/dev/null; then \
		$(NEWER) -m venv --clear build/zarr-venv && \
		build/zarr-venv/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<; \
	else mkdir -p build/zarr-venv && echo "no $(NEWER) here: zarr 3.4 is left out; make NEWER=... names another"; fi
	@touch $@

# What tiledbsoma needs is pinned beside what everything else does, and is no part of CI.
PEERS := .venv-bench/bin/python
PEERS_INSTALL := $(PEERS) -m pip --disable-pip-version-check --quiet install \
	--constraint constraints.txt --constraint constraints-bench.txt

soma: .venv-bench/.installed
	$(PEERS) -m pytest tests/interop/test_soma.py $(TEST_ARGS)

.venv-bench/.installed: constraints.txt constraints-bench.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv-bench
	$(PEERS_INSTALL) --upgrade $(BUILD_TOOLS)
	$(PEERS_INSTALL) --no-build-isolation pytest hypothesis --editable '.[bench,bench-soma]'
	@touch $@

# spatialdata 0.7 wants a dask below 2026.1.2, ngff-zarr one from there on. Here it has what it wants;
# beside the other tests it stands without being asked, which all that is tested of it bears.
SPATIALDATA := .venv-spatialdata/bin/python
SPATIALDATA_INSTALL := $(SPATIALDATA) -m pip --disable-pip-version-check --quiet install \
	--constraint constraints-spatialdata.txt
spatialdata: .venv-spatialdata/.installed
	$(SPATIALDATA) -m pytest -m interop tests/interop/test_spatialdata_*.py \
		tests/sources/test_zarr_stores.py tests/cli/test_exporting.py $(TEST_ARGS)

.venv-spatialdata/.installed: constraints-spatialdata.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv-spatialdata
	$(SPATIALDATA_INSTALL) --upgrade $(BUILD_TOOLS) setuptools
	$(SPATIALDATA_INSTALL) --no-build-isolation torch==$(TORCH) pytest hypothesis --editable '.[spatialdata,geometry]'
	@touch $@

# The tests last: their summary is what a reader of the log looks for.
check: lint types docs
	$(MAKE) test

# ---------------------------------------------------------------- the environment

# New pins make a new environment; a change of pyproject.toml alone installs into the one that is there.
$(VENV)/.made: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "microtome needs CPython 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
		     "Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making $(VENV) (the first installation takes a few minutes)"
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --upgrade $(BUILD_TOOLS)
	@touch $@

# One environment in layers, each pinned by the same file: what a user runs, the tests and the other
# readers they need, the tools of a developer. `make demo` does not wait for the last two.
$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(INSTALL) --no-build-isolation --editable '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed constraints-beside.txt
	$(INSTALL) --no-build-isolation --editable '.[all,bench,interop,test]'
	$(PIP) install --no-deps --requirement constraints-beside.txt
	@touch $@

# A clean environment with everything in it, frozen. Local build tags (+cpu) are cut off: the same
# pin must fit whichever build of that version a machine has.
constraints:
	$(PYTHON) -m venv --clear build/constraints-venv
	build/constraints-venv/bin/python -m pip install --quiet --upgrade $(BUILD_TOOLS)
	build/constraints-venv/bin/python -m pip install --quiet --no-build-isolation torch==$(TORCH) --editable '.[dev]'
	{ echo "# Every package that make demo, make test and CI install, on CPython 3.11 and Linux."; \
	  echo "# Made by: make constraints"; \
	  build/constraints-venv/bin/python -m pip freeze --all --exclude-editable | sed 's/+.*//' | LC_ALL=C sort -f; } > constraints.txt
	rm -rf build/constraints-venv

# The oldest of what is named, the newest of what those bring along; torch as pinned, since its old
# builds are for other hardware too.
FLOORS := build/floors-venv/bin
floors:
	$(PYTHON) -m venv --clear build/floors-venv
	$(FLOORS)/python -m pip install --quiet uv $(BUILD_TOOLS)
	$(FLOORS)/uv pip compile --quiet --python $(FLOORS)/python --resolution lowest-direct \
		pyproject.toml --extra report --extra test --output-file build/floors.txt
	$(FLOORS)/python -m pip install --quiet --requirement build/floors.txt torch==$(TORCH)
	$(FLOORS)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(FLOORS)/python -m pytest $(TEST_ARGS)

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis
