# Two commands for a fresh machine: `make demo`, `make test`. Both create and use .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard csrc/*.* csrc/*/*.*) CMakeLists.txt setup.py pyproject.toml

.PHONY: help demo test test-slow build sanitize bench bench-check lint format wheel clean
.DEFAULT_GOAL := help

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# What pyproject.toml's [build-system] asks for, then the project without build isolation: one torch,
# not two, and a rebuild after a change in csrc/ that takes seconds.
BUILD_REQUIRES := "setuptools>=77" "torch>=2.10" "pybind11>=2.13" "cmake>=3.25" ninja numpy

$(VENV)/.venv: Makefile
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) \
	  else f"error: Python 3.11 or newer is needed, {sys.executable} is {v}; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(BUILD_REQUIRES)
	@touch $@

$(VENV)/.installed: $(VENV)/.venv $(NATIVE)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[demo,test]"
	@touch $@

build: $(VENV)/.installed  ## .venv with the project, native libraries built in place

demo: $(VENV)/.installed   ## explain real photographs, score them, write demo/index.html
	$(BIN)/gag-fast demo --out demo

test: $(VENV)/.installed   ## the tests (add ARGS="-k noise")
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/.installed  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

sanitize: $(VENV)/.installed   ## operator tests under AddressSanitizer and UBSan
	PATH="$(abspath $(BIN)):$$PATH" bash tests/sanitize.sh

bench: $(VENV)/.installed  ## every benchmark, tables into benchmarks/results/
	$(BIN)/python -m benchmarks.all

bench-check: $(VENV)/.installed  ## the regression gate: ratios against benchmarks/bounds.json
	$(BIN)/python -m benchmarks.gate

wheel: $(VENV)/.installed  ## dist/gag_fast-*.whl
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip wheel --no-build-isolation --no-deps -w dist .

# The versions are those of pyproject.toml's `dev`: what is well formed is the same on every machine.
LINTERS := "ruff==0.17.6" "mypy==2.4.1" "clang-format==19.1.7"
NATIVE_SOURCES := $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu')

$(VENV)/.linters: $(VENV)/.venv
	$(BIN)/python -m pip install --quiet $(LINTERS)
	@touch $@

lint: $(VENV)/.linters     ## ruff, clang-format and mypy; needs torch's types, not the project built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo clang-format --dry-run -Werror csrc tests
	@$(BIN)/clang-format --dry-run -Werror $(NATIVE_SOURCES)
	$(BIN)/mypy

format: $(VENV)/.linters   ## ruff's fixes and format, clang-format
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	@echo clang-format -i csrc tests
	@$(BIN)/clang-format -i $(NATIVE_SOURCES)

clean:           ## everything that can be made again
	rm -rf build dist demo *.egg-info gag_fast/*.so $(VENV)/.installed
