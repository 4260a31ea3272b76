# Everything runs in .venv, which `make env` sets up from requirements/verified.txt.
# STACK=onedl uses .venv-onedl, with the maintained forks of requirements/onedl.txt.
# STACK=oldest and STACK=newest use the oldest and newest accepted versions, each with
# its own Python. STACK=timm adds timm, torchvision and transformers (.venv-timm), and
# runs only the tests that need them.
STACK ?= stock
PYTHON_oldest := python3.10
PYTHON_newest := python3.12
WANTED := $(or $(PYTHON_$(STACK)),python3.11)
PYTHON ?= $(shell command -v $(WANTED) || echo python3)
export STACK
VENV := .venv$(if $(filter-out stock,$(STACK)),-$(STACK))
VENV_PYTHON := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help env demo demo-seg test test-fast coverage lint docs bench gpu clean \
	distclean triton sanitize wheel

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  PYTHON=...      the $(WANTED) to make $(VENV) with (now $(PYTHON)),'
	@echo '                  or the one that has torch for CUDA, for make gpu'

env:  ## set up .venv; the first time builds mmcv (3 minutes on two cores)
	@$(PYTHON) tools/setup_environment.py

demo: env  ## train and evaluate a detector on drawn scenes (5 to 10 minutes on two cores)
	@$(VENV_PYTHON) tools/demo.py det

demo-seg: env  ## do the same with a segmentor
	@$(VENV_PYTHON) tools/demo.py seg

# One thread per process: threads of two processes on the same cores wait for each
# other. The files run in the order of tests/conftest.py, not by their number of tests.
PYTEST := OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto --dist loadfile \
	--no-loadscope-reorder

# The versions of Triton that only the tests need, beside .venv itself.
triton:
	@$(PYTHON) tools/setup_environment.py --triton

# What a stack's tests are limited to.
TESTS_timm := -m timm

test: triton  ## run the tests, with one process per core
	@$(PYTEST) $(TESTS_$(STACK))

test-fast: env  ## run all but the slow tests (two minutes on two cores)
	@$(PYTEST) -m 'not slow'

coverage: triton  ## run the tests; fail if the coverage of dcls_mm is below the minimum
	@$(PYTEST) --cov=dcls_mm

lint: env  ## run the linter; check format and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

docs: env  ## build the pages into docs/_build/html, with warnings as errors
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement requirements/docs.txt
	@$(VENV_PYTHON) -m sphinx -q -W --keep-going docs docs/_build/html
	@echo 'docs/_build/html/index.html is ready'

sanitize: env  ## test the compiled part under address and undefined sanitizers (1 minute)
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) benchmarks/sanitize_native.py

wheel: env  ## build the wheel into dist/, with the compiled part for this platform
	@$(VENV_PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --wheel-dir dist .
	@ls dist/dcls_mm-*.whl

bench: env  ## run all benchmarks, one after the other (15 minutes on two cores)
	@for name in construct convolve direct backbone sampling deploy; do \
		$(VENV_PYTHON) benchmarks/bench_$$name.py || exit; echo; \
	done

# `make env` installs torch for CPUs, so this runs in the environment at hand: that of
# PYTHON=..., or else of python3. Without a GPU it says so and fails.
gpu:  ## test and time the GPU path on this machine's GPU (8 minutes); see PYTHON
	@$(if $(filter file,$(origin PYTHON)),python3,$(PYTHON)) benchmarks/gpu/run.py

clean:  ## remove build products and tool caches
	rm -rf build dist docs/_build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## also remove .venv*; the mmcv wheel stays in the user's cache
	rm -rf .venv .venv-onedl .venv-oldest .venv-newest .venv-timm
