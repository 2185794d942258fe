# make demo: train, evaluate and show the result on the embedded world.   make test: the tests.   Both make .venv first if it is missing.

PYTHON ?= python3
PIP_ARGS ?=
RUN = .venv/bin/python
IMAGE ?= coh_lightning
IMAGE_ARGS ?=
FAST = -m "not slow and not realdata"
FITS = sft_best sft_faultless coh coh_critiques

.PHONY: help demo $(FITS:%=demo-%) test test-all test-lowest test-newest bench image docs check format

help:
	@echo "make demo      train, evaluate and show the result on the embedded world (some minutes)"
	@echo "make test      the tests that need neither long nor data from elsewhere"
	@echo "make test-all  all tests; those on real data need COH_REAL_DATA=FOLDER"
	@echo "make test-lowest, make test-newest: as make test, with the lowest, or the newest, versions that pyproject.toml allows"
	@echo "make bench     speed and memory against other ways to compute the same (40 minutes); one of them: ONLY=hh"
	@echo "make image     the container image, in which the demo is run; for CUDA: make image IMAGE_ARGS='--build-arg TORCH_INDEX='"
	@echo "make docs      the documentation as a site, in docs/_build"
	@echo "make check     lint, format, types, known flaws of the pinned packages"
	@echo "make format    put the code into the common form"

.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(RUN) -m pip install $(PIP_ARGS) --constraint constraints.txt --editable ".[dev,docs,study,lora,trl,sweep,judge,gguf]"
	touch $@

# One folder for each call. Every command is an ordinary one and is printed as it begins; what a fit prints is in its log.
# All fits take the same number of steps, which see equally many tokens: equal compute. The table says how many epochs that is.
demo: DEMO := runs/demo/$(shell date +%Y%m%d-%H%M%S)
demo: $(FITS:%=demo-%)
	$(RUN) -m coh_lightning.cli.demo $(FITS:%=$(DEMO)/%)

MAKEFLAGS += --jobs=2 # fits, each with one thread
demo-sft_best: RECIPE = world_sft_best
demo-sft_faultless: RECIPE = world_sft_faultless
demo-coh: RECIPE = world
demo-coh_critiques: RECIPE = world_critiques
$(FITS:%=demo-%): demo-%: .venv/.installed
	mkdir -p $(DEMO)
	OMP_NUM_THREADS=1 $(RUN) -m coh_lightning fit --config conf/experiment/$(RECIPE).yaml --run.folder $(DEMO)/$* \
		> $(DEMO)/$*.log 2>&1 || { cat $(DEMO)/$*.log; exit 1; }

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
	.venv-newest/bin/python -m pip install $(PIP_ARGS) --editable ".[dev,study,lora,sweep,judge,gguf]"
	.venv-newest/bin/python -m pytest $(FAST)

# On one thread; with COH_REAL_DATA=FOLDER on real rows. Writes bench.json and the table of docs/speed.md.
bench: .venv/.installed
	OMP_NUM_THREADS=1 $(RUN) tests/benchmarks/bench.py $(ONLY)

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
