#!/usr/bin/env bash
# bench/gpu/run.sh triage|measure OUTDIR: the two calls for a GPU that is there for some minutes. Offline.
#
#   triage   (4 minutes) which kernels are right: doctor, every check of tests/backends/triage.py, compute-sanitizer on
#            one case per route beside them, then E(128), R1 and R6 as a first look at speed
#   measure  (6 minutes) every workload against its peers, what barriers and launches cost, tables and pictures
#
# Needs a CUDA build of torch >= 2.10 with its Triton. `make carried` builds the libraries on a machine that has nvcc, in
# build/carried, which then travels with the tree; only what fits one Python is built here (a C++ compiler, cmake, ninja,
# pybind11). Without build/carried, all of it is (nvcc too). What is missing is said and left out.
# OUTDIR receives everything as it happens: doctor.txt, triage.txt, failures.txt, sanitizer.log, results.json (a run that
# is cut off keeps what it measured), tables.txt, exponential.png, recurrence.png, costs.json, run.log.
#
# Environment: PYTHON (python3), VFRNN_COMMIT (where there is no .git), VFRNN_SECONDS (240; 360), VFRNN_CUDA_ARCHS (the
# GPU's own). A dry run on tiny cases: VFRNN_DEVICE=cpu, or VFRNN_CUDA_SIMULATED as for the tests (CONTRIBUTING.md).
set -u
PART=${1:-}
case $PART in triage) TOTAL=${VFRNN_SECONDS:-240} ;; measure) TOTAL=${VFRNN_SECONDS:-360} ;; *) PART= ;; esac
if [ -z "$PART" ] || [ $# -ne 2 ]; then
  echo "usage: bench/gpu/run.sh triage|measure OUTDIR" >&2
  exit 2
fi
mkdir -p "$2" && OUT=$(cd "$2" && pwd) || exit 2
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-python3}
DEVICE=${VFRNN_DEVICE:-cuda}
[ -n "${VFRNN_CUDA_SIMULATED:-}" ] && DEVICE=cpu
QUICK=; [ "$DEVICE" = cpu ] && QUICK=--quick
LOG=$OUT/run.log
WORK=$(mktemp -d "${TMPDIR:-/tmp}/vfrnn-gpu.XXXXXX") || exit 2
trap 'rm -rf "$WORK"' EXIT
: >"$LOG"
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
  echo $(($1 < free ? $1 : free > 1 ? free : 1))
}

if [ "$DEVICE" = cuda ]; then
  ARCH=$("$PYTHON" -c '
import torch
major, minor = torch.cuda.get_device_capability()
print(f"{major}{minor}" + ("a" if major == 9 else ""))' 2>>"$LOG") || { echo "no CUDA device: $(tail -n 1 "$LOG")"; exit 1; }
  export VFRNN_CUDA_ARCHS=${VFRNN_CUDA_ARCHS:-$ARCH}
fi

# ---- what is run, in a folder of its own: nothing is left behind ---------------------------------------------------------
SITE=$WORK/site
mkdir -p "$SITE"
cp -r "$ROOT/vfrnn_kernels" "$ROOT/python/vfrnn" "$SITE/" && cp -r "$ROOT/bench" "$SITE/vfrnn_bench"
cp -r "$ROOT/tests" "$ROOT/pyproject.toml" "$WORK/"
rm -f "$SITE"/vfrnn_kernels/*.so

build() { # of CMake's targets, or all of them
  cmake -S "$ROOT" -B "$WORK/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DVFRNN_VERSION=0 \
    -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
    -DTORCH_ROOT="$("$PYTHON" -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parent)")" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" -DCMAKE_INSTALL_PREFIX="$SITE/vfrnn_kernels" "$@" >>"$LOG" 2>&1
}
VFRNN_CUDA=OFF
command -v nvcc >/dev/null && [ "$DEVICE" = cuda ] && VFRNN_CUDA=ON
if [ -e "$ROOT/build/carried/libvfrnn_cpu.so" ]; then
  cp "$ROOT"/build/carried/libvfrnn_*.so "$SITE/vfrnn_kernels/"
  build -DVFRNN_CUDA=OFF && timeout 40 cmake --build "$WORK/cmake" --target _host >>"$LOG" 2>&1 &&
    cp "$WORK"/cmake/_host*.so "$SITE/vfrnn_kernels/" || note "_host: not built (run.log says why); the kernels need it not"
  note "libraries: carried, after $SECONDS s"
elif build -DVFRNN_CUDA=$VFRNN_CUDA -DVFRNN_CUDA_ARCHS="${VFRNN_CUDA_ARCHS:-}" &&
  timeout "$(at_most 200 60)" cmake --build "$WORK/cmake" --target install >>"$LOG" 2>&1; then
  note "libraries: built here, after $SECONDS s"
else
  note "libraries: NOT BUILT (run.log says why); the Triton kernels are tried without them"
fi
export PYTHONPATH=$SITE:$WORK
cd "$WORK" || exit 2
timeout "$(at_most 60 30)" "$PYTHON" -m vfrnn doctor >"$OUT/doctor.txt" 2>&1
note "doctor: exit code $?; $(grep -aE '^ *cuda ' "$OUT/doctor.txt" | head -n 1 | tr -s ' ' | cut -c1-160)"

bench() { # part, seconds: in a process of its own, again behind a kernel that broke the device or did not return
  local part=$1 end=$((SECONDS + $2)) try status
  for try in 1 2 3 4; do
    local budget=$((end - SECONDS))
    [ "$budget" -lt 5 ] && return
    timeout -k 5 $((budget + 40 < $(left) ? budget + 40 : $(left))) \
      "$PYTHON" -m vfrnn_bench.gpu "$OUT" "$part" --device "$DEVICE" --seconds "$budget" $QUICK >>"$LOG" 2>&1
    status=$?
    [ $status -eq 0 ] && echo "[$SECONDS s] $part: measured" && return
    note "$part: process ended with code $status (try $try)"
  done
}

if [ "$PART" = triage ]; then
  # The sanitizer goes on beside the checks: neither is timed.
  if [ "$DEVICE" = cuda ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      (
        timeout "$(at_most 110 60)" compute-sanitizer --tool "$tool" --error-exitcode 9 \
          "$PYTHON" -m vfrnn_bench.gpu.sanitized >"$WORK/$tool.log" 2>&1
        echo "compute-sanitizer $tool: exit code $? (0: clean, 9: errors, 124: out of time)" >>"$WORK/$tool.log"
      ) &
    done
  else
    note "compute-sanitizer: NOT RUN, it or the GPU is not there"
  fi
  cores=$(nproc)
  "$PYTHON" -m tests.backends.triage "$OUT" --seconds "$(at_most 110 60)" --workers $((cores > 10 ? 10 : cores)) 2>&1 |
    tee -a "$LOG"
  wait
  for tool in memcheck racecheck; do
    [ -e "$WORK/$tool.log" ] || continue
    cat "$WORK/$tool.log" >>"$OUT/sanitizer.log"
    note "$(tail -n 1 "$WORK/$tool.log")"
  done
  bench ceilings "$(at_most 15 50)"
  bench first "$(at_most 50 15)"
else
  if [ "$VFRNN_CUDA" = ON ]; then
    timeout 60 nvcc -std=c++17 -O3 -gencode "arch=compute_$VFRNN_CUDA_ARCHS,code=sm_$VFRNN_CUDA_ARCHS" -I "$ROOT/csrc" \
      "$ROOT/bench/gpu/costs.cu" "$ROOT/csrc/common/gpu.cu" -o "$WORK/costs" >>"$LOG" 2>&1 &&
      timeout 30 "$WORK/costs" >"$OUT/costs.json" 2>>"$LOG" || note "costs.cu: failed (run.log says why)"
  fi
  # The most important first.
  bench ceilings "$(at_most 15 200)"
  bench recurrence "$(at_most 100 130)"
  bench exponential "$(at_most 75 90)"
  bench steps "$(at_most 45 65)"
  bench fields "$(at_most 30 45)"
  bench loops "$(at_most 60 20)"
fi

echo
timeout 60 "$PYTHON" -m vfrnn_bench.gpu "$OUT" report "${NOTES[@]}" 2>>"$LOG"
echo "all of it: $OUT; $SECONDS s"
