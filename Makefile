# make demo: train, evaluate and show the result on the embedded world.   make test: the tests.   Both make .venv first if it is missing.

PYTHON ?= python3
PIP_ARGS ?=
RUN = .venv/bin/python
IMAGE ?= coh_lightning
IMAGE_ARGS ?=
FAST = -m "not slow and not realdata"

.PHONY: help demo test test-all test-lowest test-newest image docs check format

help:
	@echo "make demo      train, evaluate and show the result on the embedded world (some minutes)"
	@echo "make test      the tests that need neither long nor data from elsewhere"
	@echo "make test-all  all tests; those on real data need COH_REAL_DATA=FOLDER"
	@echo "make test-lowest, make test-newest: as make test, with the lowest, or the newest, versions that pyproject.toml allows"
	@echo "make image     the container image, in which the demo is run; for CUDA: make image IMAGE_ARGS='--build-arg TORCH_INDEX='"
	@echo "make docs      the documentation as a site, in docs/_build"
	@echo "make check     lint, format, types, known flaws of the pinned packages"
	@echo "make format    put the code into the common form"

.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(RUN) -m pip install $(PIP_ARGS) --constraint constraints.txt --editable ".[dev,docs,study,lora,trl,sweep,judge]"
	touch $@

# One folder for each call; every command is an ordinary one and is printed as it runs.
demo: DEMO := runs/demo/$(shell date +%Y%m%d-%H%M%S)
demo: .venv/.installed
	$(RUN) -m coh_lightning fit --config conf/experiment/world_sft_best.yaml --run.folder $(DEMO)/sft_best
	$(RUN) -m coh_lightning fit --config conf/experiment/world_sft_faultless.yaml --run.folder $(DEMO)/sft_faultless
	$(RUN) -m coh_lightning fit --config conf/quickstart.yaml --run.folder $(DEMO)/coh
	$(RUN) -m coh_lightning fit --config conf/experiment/world_critiques.yaml --run.folder $(DEMO)/coh_critiques
	$(RUN) -m coh_lightning.cli.demo $(DEMO)/sft_best $(DEMO)/sft_faultless $(DEMO)/coh $(DEMO)/coh_critiques

test: .venv/.installed
	$(RUN) -m pytest $(FAST)

test-all: .venv/.installed
	$(RUN) -m pytest

# What the dependencies depend on in turn is the newest in both. Without trl, which would raise the lowest version of datasets; its tests are skipped.
test-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install $(PIP_ARGS) uv
	.venv-lowest/bin/uv pip compile --quiet --resolution lowest-direct --extra dev --extra study --extra lora --extra sweep --extra judge --output-file .venv-lowest/versions.txt pyproject.toml
	.venv-lowest/bin/python -m pip install $(PIP_ARGS) --constraint .venv-lowest/versions.txt --editable ".[dev,study,lora,sweep,judge]"
	.venv-lowest/bin/python -m pytest $(FAST)

test-newest:
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install $(PIP_ARGS) --editable ".[dev,study,lora,sweep,judge]"
	.venv-newest/bin/python -m pytest $(FAST)

image:
	PYTHON=$(PYTHON) scripts/image.sh $(IMAGE) $(IMAGE_ARGS)

# A warning is an error. Links within the site are checked; nothing is fetched.
docs: .venv/.installed
	$(RUN) -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build
	@echo docs/_build/index.html

check: .venv/.installed
	.venv/bin/hadolint Dockerfile
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	$(RUN) tests/audit.py constraints.txt

format: .venv/.installed
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format
