# Every target makes .venv first. PYTHON chooses the interpreter, CONSTRAINTS the tested versions, PIP_EXTRA options of
# pip, such as an index of CPU or CUDA builds of torch.
PYTHON ?= python3
CONSTRAINTS ?= constraints/tested.txt
PIP_EXTRA ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: sweep test bench --full lint format clean

# The main job on the embedded audio: builds a small base once, searches, prints the front and a pick.
sweep: $(VENV)/ready
	$(BIN)/python sweeps/bio.py --smoke --ray local --name smoke-bio --resume

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest

# Every bench of speed side by side with what one would use instead; `make bench -- --full` measures all sizes.
bench: $(VENV)/ready-dev
	$(BIN)/python bench/speed.py runs/bench $(filter --full,$(MAKECMDGOALS))

--full:
	@:

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python tools/budgets.py

format: $(VENV)/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_EXTRA) --constraint $(CONSTRAINTS) --editable .
	touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/pip install --quiet $(PIP_EXTRA) --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
