#!/usr/bin/env bash
# bench/gpu/run.sh OUTDIR: builds the package, runs the GPU tests, measures, reports. Offline, within 9 minutes.
#
# Needs a CUDA build of torch >= 2.10 with its Triton, and to build: a C++ compiler, nvcc, cmake, ninja, pybind11, setuptools.
# What is missing is said and left out. OUTDIR receives results.json (rewritten as it goes: a run that is cut off keeps
# what it measured), tables.txt, exponential.png, recurrence.png, costs.json, tests.log, sanitizer.log, run.log; the
# terminal a short table, last.
#
# Environment: PYTHON (python3), VFRNN_COMMIT (where there is no .git), VFRNN_DEVICE=cpu (a dry run on tiny cases),
# VFRNN_SECONDS (515, for everything but the report), VFRNN_CUDA_ARCHS (the GPU's own).
set -u
OUT=${1:?usage: bench/gpu/run.sh OUTDIR}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-python3}
DEVICE=${VFRNN_DEVICE:-cuda}
TOTAL=${VFRNN_SECONDS:-515}
QUICK=; [ "$DEVICE" = cpu ] && QUICK=--quick
LOG=$OUT/run.log
WORK=$(mktemp -d "${TMPDIR:-/tmp}/vfrnn-gpu.XXXXXX") || exit 2
trap 'rm -rf "$WORK"' EXIT
rm -f "$OUT"/{results.json,tables.txt,exponential.png,recurrence.png,costs.json,tests.log,sanitizer.log} && : >"$LOG"
if [ -z "${VFRNN_COMMIT:-}" ]; then
  VFRNN_COMMIT=$(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo unknown)
fi
export VFRNN_COMMIT PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=$WORK/matplotlib
unset VFRNN_BACKEND TRITON_INTERPRET PYTHONPATH

NOTES=()
note() { # one line of the head of the report
  NOTES+=(--note "$1")
  echo "[$SECONDS s] $1" | tee -a "$LOG"
}
left() { echo $((TOTAL - SECONDS)); }
at_most() { # the smaller of $1 and the time that is left when $2 seconds are kept for what follows
  local free=$(($(left) - $2))
  echo $(($1 < free ? $1 : free))
}

if [ "$DEVICE" = cuda ]; then
  ARCH=$("$PYTHON" -c '
import torch
major, minor = torch.cuda.get_device_capability()
print(f"{major}{minor}" + ("a" if major == 9 else ""))' 2>>"$LOG") || { echo "no CUDA device: $(tail -n 1 "$LOG")"; exit 1; }
  export VFRNN_CUDA_ARCHS=${VFRNN_CUDA_ARCHS:-$ARCH}
fi
VFRNN_CUDA=OFF
command -v nvcc >/dev/null && [ "$DEVICE" = cuda ] && VFRNN_CUDA=ON
export VFRNN_CUDA

# The sources travel to a folder of their own, so that what is imported is what was built, and no build is left behind.
mkdir -p "$WORK/source" "$WORK/site"
(cd "$ROOT" && cp -r CMakeLists.txt LICENSE README.md pyproject.toml setup.py bench csrc python tests vfrnn_kernels \
  "$WORK/source/")
rm -rf "$WORK"/source/vfrnn_kernels/*.so

# ---- build -----------------------------------------------------------------------------------------------------------
with_pip() {
  timeout "$(at_most 200 60)" "$PYTHON" -m pip install -q --no-index --no-build-isolation --no-deps --no-compile \
    --disable-pip-version-check --target "$WORK/site" "$WORK/source"
}

plain() {
  cp -r "$WORK/source/vfrnn_kernels" "$WORK/source/python/vfrnn" "$WORK/site/" &&
    cp -r "$WORK/source/bench" "$WORK/site/vfrnn_bench"
}

with_cmake() { # where setuptools or pip are too old
  plain && timeout 30 cmake -S "$WORK/source" -B "$WORK/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release \
      -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
      -DTORCH_ROOT="$("$PYTHON" -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parent)")" \
      -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" -DCMAKE_INSTALL_PREFIX="$WORK/site/vfrnn_kernels" \
      -DVFRNN_CUDA="$VFRNN_CUDA" -DVFRNN_CUDA_ARCHS="${VFRNN_CUDA_ARCHS:-}" &&
    timeout "$(at_most 150 60)" cmake --build "$WORK/cmake" --target install
}

# Without its compiled part the package still has the Triton kernels.
if with_pip >>"$LOG" 2>&1; then
  note "build: with pip, done after $SECONDS s"
elif rm -rf "$WORK"/site/* && with_cmake >>"$LOG" 2>&1; then
  note "build: pip failed (run.log says why), with cmake done after $SECONDS s"
else
  note "build: FAILED (run.log says why); the Triton kernels are measured without it"
  rm -rf "$WORK"/site/* && plain
fi
[ -e "$WORK/site/vfrnn_kernels/libvfrnn_cuda.so" ] || note "backend cuda: not built ($(command -v nvcc || echo no nvcc))"

# What the design rests on: barriers, pushes between the blocks of a cluster, launches.
if [ "$VFRNN_CUDA" = ON ]; then
  timeout 60 nvcc -std=c++17 -O3 -gencode "arch=compute_$VFRNN_CUDA_ARCHS,code=sm_$VFRNN_CUDA_ARCHS" -I "$WORK/source/csrc" \
    "$WORK/source/bench/gpu/costs.cu" -o "$WORK/costs" >>"$LOG" 2>&1 &&
    timeout 30 "$WORK/costs" >"$OUT/costs.json" 2>>"$LOG" || note "costs.cu: failed (run.log says why)"
fi

mkdir -p "$WORK/run" && mv "$WORK/source/"{bench,tests,pyproject.toml} "$WORK/run/" && cd "$WORK/run" || exit 2
export PYTHONPATH=$WORK/site:$WORK/run

bench() { # part, seconds: in a process of its own, again behind a kernel that broke the device or did not return
  local part=$1 end=$((SECONDS + $2)) try status
  shift 2
  for try in 1 2 3 4; do
    local budget=$((end - SECONDS))
    [ "$budget" -lt 5 ] && return
    timeout -k 5 $((budget + 40 < $(left) ? budget + 40 : $(left))) \
      "$PYTHON" -m vfrnn_bench.gpu "$OUT" "$part" --device "$DEVICE" --seconds "$budget" $QUICK "$@" >>"$LOG" 2>&1
    status=$?
    [ $status -eq 0 ] && echo "[$SECONDS s] $part: measured" && return
    note "$part: process ended with code $status (try $try)"
  done
}

bench ceilings 20

# ---- tests -----------------------------------------------------------------------------------------------------------
TESTS="tests/backends/test_gpu.py tests/backends/test_gpu_ops.py tests/backends/test_gpu_field_flow.py"
TEST_SECONDS=$(at_most 200 150)
has() { "$PYTHON" -c "import $1" 2>/dev/null; }
if [ "$TEST_SECONDS" -lt 20 ]; then
  note "tests: no time left for them"
elif ! has pytest; then
  note "tests: NOT RUN, there is no pytest"
else
  # Several processes share the GPU: most of the time goes to compiling kernels. -W default: a newer torch's warning is
  # listed, and fails nothing here.
  OPTIONS="-q --tb=short --show-capture=no -W default -p no:cacheprovider -p no:benchmark --durations=10"
  has xdist && OPTIONS="$OPTIONS -n $(($(nproc) > 10 ? 10 : $(nproc)))"
  has pytest_timeout || OPTIONS="$OPTIONS -o addopts=-ra" # else the option that sets its limit is an error
  # An interrupt lets pytest report what it has.
  timeout -s INT -k 15 "$TEST_SECONDS" "$PYTHON" -m pytest $OPTIONS $TESTS >"$OUT/tests.log" 2>&1
  status=$?
  counts=$(grep -aE '[0-9]+ (passed|failed|skipped|errors?)\b.* in [0-9.]+s' "$OUT/tests.log" | tail -n 1 | tr -d =)
  [ $status -eq 124 ] && counts="CUT OFF after $TEST_SECONDS s: $counts"
  note "tests (exit code $status): ${counts:-see tests.log}"
  while IFS= read -r line; do
    note "$line"
  done < <(grep -aE '^(FAILED|ERROR)' "$OUT/tests.log" | cut -c1-230 | head -n 12)
fi

# ---- compute-sanitizer: one small case per route -----------------------------------------------------------------------
if [ "$VFRNN_CUDA" = ON ] && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    timeout "$(at_most 40 200)" compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m vfrnn_bench.gpu.sanitized \
      >>"$OUT/sanitizer.log" 2>&1
    note "compute-sanitizer $tool: exit code $? (0: clean, 124: out of time); $(tail -n 1 "$OUT/sanitizer.log" | cut -c1-120)"
  done
else
  note "compute-sanitizer: NOT RUN, it or the CUDA kernels are not there"
fi

# ---- measurements, most important first ------------------------------------------------------------------------------
bench exponential "$(at_most 75 120)"
bench recurrence "$(at_most 90 70)"
bench steps "$(at_most 45 45)"
bench fields "$(at_most 30 30)"
bench loops "$(at_most 75 25)"

# ---- report ----------------------------------------------------------------------------------------------------------
echo
timeout 60 "$PYTHON" -m vfrnn_bench.gpu "$OUT" report "${NOTES[@]}" 2>>"$LOG"
echo "all of it: $OUT/tables.txt; $SECONDS s"
