# Everything a developer or a newcomer types. `make demo` and `make test` work on a clean machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := demo_output

.PHONY: demo test slurm-test gpu lint format bench docs clean

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(INSTALL) -e '.[dev,bids-test]'
	touch $@

# The main job on the sample cohort.
demo: $(VENV)/.base
	rm -rf $(DEMO)
	$(BIN)/lesionsynth run recipes/lesionmix.yaml --input sample_data --output $(DEMO) -j auto
	@echo "The expanded data set is in $(DEMO)/."

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

# The scripts of docs/how-to/hpc on a Slurm of one node, which is installed and started here: needs root and apt.
slurm-test: $(VENV)/.dev
	tests/slurm/one_node.sh
	$(BIN)/python -m pytest tests/slurm -s

# Parity of CPU and GPU, on a machine with a CUDA device and CuPy (extra cuda12 or cuda13).
GPU_PYTHON ?= $(BIN)/python
gpu:
	$(GPU_PYTHON) -m pytest -m gpu
	$(GPU_PYTHON) benchmarks/gpu.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every target beside its peer or floor. The peers have an environment of their own.
BENCH := .venv-bench/bin/python
.venv-bench/.made: pyproject.toml constraints.txt benchmarks/requirements.txt
	test -x $(BENCH) || $(PYTHON) -m venv .venv-bench
	$(BENCH) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r benchmarks/requirements.txt
	touch $@

BENCH_OPTIONS ?=
bench: .venv-bench/.made
	$(BENCH) benchmarks/run.py $(BENCH_OPTIONS)

# Regenerate the reference pages that a test compares with the code.
docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .venv-bench $(DEMO) build dist *.egg-info
