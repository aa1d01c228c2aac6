# make demo | test | test-matrix | check | bench | fuzz: each sets up .venv by itself; nothing is installed outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-matrix check bench fuzz clean
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "abgate needs Python >= 3.11; choose one with: make PYTHON=python3.12"; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python cannot make a virtual environment: install its venv package (Debian, Ubuntu: apt install python3-venv)"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -e '.[fast,torchserve,tensorflow,loadtest,report,dev]'
	@touch $@

# what only variants of models need, which the demo does without
$(VENV)/.variants: $(VENV)/.installed
	$(BIN)/pip install --disable-pip-version-check -e '.[variants]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/abgate demo

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/architecture

test: check $(VENV)/.variants
	$(BIN)/abgate models build digits mlp pair tokens
	$(BIN)/pytest -q -n 2 --dist loadfile --ignore tests/architecture  # that is `check`'s

test-matrix: $(VENV)/.installed
	$(BIN)/abgate models build digits pair tokens
	$(BIN)/pytest -q -m "matrix or not matrix" tests/matrix

bench: $(VENV)/.installed
	$(BIN)/python tools/bench.py
	$(BIN)/python tools/codec_cost.py
	$(BIN)/python tools/report_cost.py

# every decoder for so many minutes of processor time each; findings go to .abgate/fuzz. FUZZ=--unless-done takes off what
# ran before at the same source
MINUTES ?= 10
FUZZ ?=
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(FUZZ)

clean:
	rm -rf $(VENV) .abgate build *.egg-info
