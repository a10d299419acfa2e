# CAML for 3D Slicer: everything a developer or a curious reader runs.
#
#   make demo         train a few minutes on procedural phantoms; pictures and figures in demo/index.html
#   make test         all quick tests; SUITE=all: the slow ones as well, which train, kill and resume
#   make acceptance   the training module's whole workflow on real scans (about an hour; needs ../shared)
#   make lint         ruff and mypy
#   make benchmarks   what docs/benchmarks.md reports (long)
#   make screenshots  the pictures in Resources/Screenshots (trains on phantoms first; Debian: libosmesa6)
#   make model-la     a left-atrium model like the one that ships, in build/models (hours; needs ../shared); ARGS=--install ships it
#   make model-vessels    the contrast-vessel model that ships, from procedural phantoms (hours)
#   make models-accuracy  the left-atrium models with 4, 8 and 16 labels, to be measured by others (hours)
#   make clean        remove the environment and everything made
#
# The first of them makes .venv once, with the versions of constraints.txt. Variables:
#
#   PYTHON      the interpreter to start from, Python 3.10 to 3.13          make test PYTHON=python3.12
#   TORCH_ARGS  pip's options for PyTorch alone. On Linux, pip's default is a GPU build of several gigabytes;
#               the CPU build suffices here. The page "Get Started" of PyTorch shows its address:
#                                                  make demo TORCH_ARGS="--index-url ADDRESS_OF_THE_CPU_BUILD"
#               (pip's own variables, such as PIP_INDEX_URL or PIP_FIND_LINKS, are honoured as well.)
#   VENV        where the environment lies                                  make test VENV=/tmp/caml
#   SUITE       quick or all: which tests; one that is slow is among all alone    make test SUITE=all ARGS="-k paused"
#   ARGS        more options for pytest, the demo, the benchmarks or the models   make test ARGS="-k model_file"

PYTHON ?= python3
VENV ?= .venv
TORCH_ARGS ?=
ARGS ?=
SUITE ?= quick

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test acceptance lint benchmarks screenshots model-la model-vessels models-accuracy clean

demo: $(READY)
	$(RUN) Testing/demo/run_demo.py $(ARGS)

SUITE_quick := -m "not slow"
SUITE_all :=

# Two files of tests side by side, with one processor thread each: they are many small computations.
test: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -m pytest Testing -q -n 2 --dist loadfile --no-loadscope-reorder $(SUITE_$(SUITE)) $(ARGS)

acceptance: $(READY)
	CAML_ACCEPTANCE=1 $(RUN) -m pytest Testing/Modules/acceptance -q $(ARGS)

lint: $(READY)
	$(RUN) -m pip install -q -c constraints.txt ruff mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

benchmarks: $(READY)
	$(RUN) Testing/benchmarks/run_benchmarks.py $(ARGS)

screenshots: $(READY)
	$(RUN) Testing/screenshots/make_screenshots.py $(ARGS)

# A model that was interrupted goes on with the same command; `make clean` removes what is not installed.
model-la: $(READY)
	$(RUN) Testing/models/train_models.py left-atrium $(ARGS)

model-vessels: $(READY)
	$(RUN) Testing/models/train_models.py contrast-vessels $(ARGS)

models-accuracy: $(READY)
	$(RUN) Testing/models/train_models.py la-04-labels la-08-labels la-16-labels $(ARGS)

# PyTorch goes first and alone, so that TORCH_ARGS concerns nothing else.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)" || \
	    { echo "Python 3.10 or newer is needed: make ... PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch; see the head of the Makefile where a download of gigabytes is unwelcome."
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt $(TORCH_ARGS) torch
	$(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) build demo .pytest_cache .mypy_cache .ruff_cache CAMLSegmentation/*.egg-info
	find CAMLSegmentation Testing -name __pycache__ -type d -prune -exec rm -rf {} +
