# make serve   the service at http://127.0.0.1:3000 with the embedded model
# make test    everything that is promised, checked
# make train   the default recipe, into models/default
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# This version's processor build is small; a plain `torch` may bring gigabytes of CUDA.
TORCH ?= torch==2.13.0

.PHONY: serve test train lint clean

serve: $(VENV)/base
	$(BIN)/sayso serve

test: $(VENV)/dev lint
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: $(VENV)/dev
	$(BIN)/sayso-train fit --config configs/default.yaml --output models/default

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[train,dev]'
	touch $@ $(VENV)/base
