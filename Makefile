PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo docs test test-slurm lint types format bench

demo: .venv/installed        ## train a small language model on the Python standard library
	$(BIN)/python train.py experiment=demo
	@run=$$(ls -d runs/demo/* | tail -1); printf '%s\n' '' 'Next, after `source .venv/bin/activate`:' \
	  "  lmlab generate $$run   write with this model" \
	  "  python train.py data=text 'data.paths=[input.txt]'            train on your own text" \
	  '  python train.py -m sweep=position hydra/launcher=submitit_local   a first ablation: 12 runs of half a minute' \
	  "  python train.py init_from=$$run budget.steps=600   train this model further"

docs: .venv/installed-docs   ## the documentation: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: .venv/installed-dev    ## all tests but those on a Slurm
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not slurm'

test-slurm: .venv/installed-dev   ## sweeps on a real two-node Slurm, which it starts (slurm-wlm, munge, root)
	$(BIN)/python -m pytest -m slurm

lint: .venv/installed-dev    ## style and formatting
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/installed-dev   ## static types
	$(BIN)/mypy

format: .venv/installed-dev  ## fix what can be fixed automatically
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: .venv/installed-dev   ## measure against the peers
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/tokenizer.py

NATIVE := pyproject.toml CMakeLists.txt $(wildcard src/lmlab/*/_core/*)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: $(NATIVE) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: $(NATIVE) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed

.venv/installed-docs: $(NATIVE) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ .venv/installed
