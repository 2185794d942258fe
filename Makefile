# make demo: train, evaluate and show the result on the embedded world.   make test: the tests.   Both make .venv first if it is missing.

PYTHON ?= python3
PIP_ARGS ?=
RUN = .venv/bin/python

.PHONY: help demo test test-all check format

help:
	@echo "make demo      train, evaluate and show the result on the embedded world (some minutes)"
	@echo "make test      the tests that need neither long nor data from elsewhere"
	@echo "make test-all  all tests; those on real data need COH_REAL_DATA=FOLDER"
	@echo "make check     lint, format, types"
	@echo "make format    put the code into the common form"

.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(RUN) -m pip install $(PIP_ARGS) --constraint constraints.txt --editable ".[dev,study,lora,trl,sweep]"
	touch $@

# One folder for each call; every command is an ordinary one and is printed as it runs.
demo: DEMO := runs/demo/$(shell date +%Y%m%d-%H%M%S)
demo: .venv/.installed
	$(RUN) -m coh_lightning fit --config conf/quickstart.yaml --config conf/demo/sft_best.yaml --run.folder $(DEMO)/sft_best
	$(RUN) -m coh_lightning fit --config conf/quickstart.yaml --config conf/demo/sft_faultless.yaml --run.folder $(DEMO)/sft_faultless
	$(RUN) -m coh_lightning fit --config conf/quickstart.yaml --run.folder $(DEMO)/coh
	$(RUN) -m coh_lightning fit --config conf/quickstart.yaml --config conf/demo/coh_critiques.yaml --run.folder $(DEMO)/coh_critiques
	$(RUN) -m coh_lightning.demo $(DEMO)/sft_best $(DEMO)/sft_faultless $(DEMO)/coh $(DEMO)/coh_critiques

test: .venv/.installed
	$(RUN) -m pytest -m "not slow and not realdata"

test-all: .venv/.installed
	$(RUN) -m pytest

check: .venv/.installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .venv/.installed
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format
