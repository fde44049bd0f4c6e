# The index of commands; `make` alone lists them.

PYTHON ?= python3
# The version the tests ran with. TORCH=torch takes the newest; for a CPU or CUDA build of your platform
# point pip at its wheel index, e.g. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make venv
TORCH ?= torch==2.13.0

PORTRAIT ?= tbd_core/assets/sample/portrait.png
SPEECH ?= tbd_core/assets/sample/speech.wav
EMOTION ?= happy
INTENSITY ?= moderate

# Real recordings and portraits for `make proof`, any number of files.
RECORDINGS ?=
PORTRAITS ?=

# Processes that `make test` is shared among, at most 8; each computes on one core.
JOBS ?= auto

# A ComfyUI checkout, and a Python that has its requirements beside ours.
COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
COMFY_PYTHON ?= $(PY)
export COMFYUI_PATH

PY := .venv/bin/python
READY := .venv/.ready

.PHONY: help venv demo test test-slow test-comfy workflows pictures lint tiny proof clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY)  ## make .venv and install everything into it (once)

$(READY): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python %d.%d found; 3.10 or newer is needed: make venv PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[standalone,dev]"
	@touch $@

demo: $(READY)  ## draw output/demo.mp4 and its contact sheet (PORTRAIT= SPEECH= EMOTION= INTENSITY=)
	@mkdir -p output
	$(PY) -m tbd_core generate --portrait "$(PORTRAIT)" --speech "$(SPEECH)" \
		--emotion "$(EMOTION)" --intensity "$(INTENSITY)" --output output/demo.mp4
	$(PY) -m tbd_core contact-sheet output/demo.mp4

test: $(READY)  ## run the fast tests (CPU, no network; JOBS=)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile

test-slow: $(READY)  ## run the slow tests too, which start other processes
	$(PY) -m pytest -m slow

test-comfy: $(READY)  ## run the nodes in a real ComfyUI (COMFYUI_PATH= COMFY_PYTHON=)
	$(COMFY_PYTHON) -m pytest -o pythonpath= -m comfy tests/comfy

workflows: $(READY)  ## write workflows, help tables and English words anew from the nodes (COMFYUI_PATH= COMFY_PYTHON=)
	$(COMFY_PYTHON) tests/golden/take_object_info.py
	$(PY) workflows/build.py
	$(PY) locales/build.py

pictures: $(READY)  ## take thumbnails and help pictures in a real ComfyUI (COMFYUI_PATH= COMFY_PYTHON= CHROMIUM=)
	$(COMFY_PYTHON) tests/comfy/take_pictures.py
	$(PY) locales/build.py

lint: $(READY)  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY) tbd_core

tiny: $(READY)  ## train the bundled model anew, over the shipped one (wants espeak-ng); stopped half-way, the same command goes on
	$(PY) -m tbd_core train

proof: $(READY)  ## measure the bundled model into docs/proof.md, 10 min on 2 cores (RECORDINGS= PORTRAITS=)
	$(PY) -m tbd_core evaluate --proof docs $(if $(RECORDINGS),--speech $(RECORDINGS)) $(if $(PORTRAITS),--portraits $(PORTRAITS))

clean:  ## remove .venv and caches; output/ and runs/ stay
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
