# make demo | build | test | test-all | bench | lint | format | clean
# Everything happens in the environment .venv, which is created on the first call.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
BIN    := $(VENV)/bin
SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py pyproject.toml

.PHONY: demo build test test-all test-isa test-triton-aot test-wheel bench lint format clean

# Train a vector-field RNN on handwritten digits, beside the one-line orthogonal nn.RNN and an LSTM.
demo: build
	$(BIN)/vfrnn train --task digits --model vfrnn torch-orthogonal lstm --hidden-size 128

build: $(VENV)/.built

test: $(VENV)/.test-tools
	$(BIN)/python -m pytest -q tests
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -q tests/test_triton_ops.py tests/test_triton_field_flow.py tests/test_triton_skew_expm.py

# What is slow or needs further tools: style and types, every instruction set, the Triton kernels compiled for every
# architecture, the wheel in an environment of its own.
test-all: lint test-isa test-triton-aot test-wheel

test-isa: $(VENV)/.test-tools
	for isa in baseline avx2 avx512; do \
	  if VFRNN_ISA=$$isa $(BIN)/python -c "import torch, vfrnn_kernels; torch.ops.vfrnn_kernels.cpu_isa()" 2>/dev/null; then \
	    echo "VFRNN_ISA=$$isa"; VFRNN_ISA=$$isa $(BIN)/python -m pytest -q tests/test_recurrence.py tests/test_skew_expm.py || exit 1; \
	  else echo "VFRNN_ISA=$$isa: this CPU lacks it, skipped"; fi; \
	done

# Registers, spills and shared memory of every Triton kernel; the first time takes minutes, then Triton's cache has them.
test-triton-aot: $(VENV)/.test-tools
	$(BIN)/python -m tests.triton_resources 80 90 100

# The wheel, installed alone in a new environment, imported from an empty folder.
test-wheel: $(VENV)/.test-tools
	rm -rf build/wheel && mkdir -p build/wheel/empty
	$(BIN)/pip wheel -q --no-build-isolation --no-deps -w build/wheel .
	$(BIN)/torch-abi-audit $$($(BIN)/python -c "import vfrnn_kernels.loader as l; print(l.PACKAGE)")/libvfrnn_cpu.so
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/pip install -q $(TORCH) build/wheel/*.whl
	cd build/wheel/empty && ../venv/bin/vfrnn doctor

bench: $(VENV)/.test-tools
	$(BIN)/python -m bench.ratios $(if $(OUT),--out $(OUT))

lint: $(VENV)/.lint-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp')
	$(BIN)/mypy

format: $(VENV)/.lint-tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp')

clean:
	rm -rf $(VENV) build dist *.egg-info python/*.egg-info vfrnn_kernels/*.so

$(VENV)/.tools: Makefile
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed to build (package g++ or clang)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH) "setuptools>=77" "cmake>=3.24" ninja "pybind11>=2.13"
	touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	$(BIN)/pip install -q --no-build-isolation -e ".[train]"
	touch $@

$(VENV)/.test-tools: $(VENV)/.built
	$(BIN)/pip install -q --no-build-isolation -e ".[test]"
	touch $@

$(VENV)/.lint-tools: $(VENV)/.test-tools
	$(BIN)/pip install -q --no-build-isolation -e ".[lint]"
	touch $@
