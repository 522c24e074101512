#!/usr/bin/env bash
# Everything that only a GPU can show, on a machine with one, a CUDA compiler, torch, Triton and pytest, and no network: what is
# most wanted comes first, rows reach $OUT as they are made, and no part outlives its limit or the deadline.
#
# Run from the root of the checkout. build/site may hold the compiled modules for this Python; else they are built here.
# GPU_RUN_BACKENDS ("cuda triton"): whose kernels are timed.
# PYTHON (python3), OUT (gpu_report), GPU_RUN_SECONDS (575), GPU_RUN_PARTS (all), GPU_RUN_DEVICE=cpu for a trial of the scripts.
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
export OUT=${OUT:-gpu_report} GPU_RUN_DEVICE=${GPU_RUN_DEVICE:-cuda} PYTHON=${PYTHON:-python3}
# One thread: a child of a process that has had more waits for ever for those that it has not.
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 PYTHONPATH=$PWD/build/site:$HERE TRITON_CACHE_DIR=$PWD/build/triton
DEADLINE=$(( $(date +%s) + ${GPU_RUN_SECONDS:-575} ))
REPORT=$OUT/report.txt
mkdir -p "$OUT"
: > "$REPORT"

part() {  # name, seconds at most, command …
  local name=$1 most=$2 left=$(( DEADLINE - $(date +%s) ))
  shift 2
  [[ $GPU_RUN_DEVICE == cuda ]] || most=600  # a trial is not in a hurry
  [[ -z ${GPU_RUN_PARTS:-} || " $GPU_RUN_PARTS " == *" ${name%% *} "* ]] || return
  (( left >= 12 )) || { echo "-- $name: no time left" | tee -a "$REPORT"; return; }
  (( most <= left - 5 )) || most=$(( left - 5 ))
  echo "== $name ($(date +%T), at most $most s)" | tee -a "$REPORT"
  timeout -k 5 "$most" "$@" 2>&1 | tee -a "$REPORT"
  local code=${PIPESTATUS[0]}
  echo "-- $name: exit $code" | tee -a "$REPORT"
  [[ $code == 0 ]] || failed="${failed:-} $name"
}

site() {  # no pip, no registry: the folders that setup.py maps, beside what was brought along
  mkdir -p build/site/alps_fast
  find build/site/alps_fast -name '*.py' -delete  # of a commit before, if any: of what was brought along only modules count
  cp -r alps_fast/. build/site/alps_fast/
  rm -rf build/site/alps_fast/kernels build/site/alps_fast/bench
  cp -r kernels build/site/alps_fast/kernels
  cp -r benchmarks build/site/alps_fast/bench
  local modules="alps_fast._cpu"
  [[ $GPU_RUN_DEVICE == cpu ]] || modules="$modules, alps_fast._cuda"
  $PYTHON -P -c "import $modules" || build
  $PYTHON -P -c "
import sys, numpy, torch, triton, alps_fast.bench, alps_fast.kernels, $modules
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else 'no GPU'
print(sys.version.split()[0], torch.__version__, triton.__version__, numpy.__version__, gpu)"
}

build() {  # for the GPU that is here, a source a core; then the CPU's kernels, which some tests compare with
  local tag include sm flags
  tag=$($PYTHON -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
  include="-Icsrc -I$($PYTHON -c 'import pybind11; print(pybind11.get_include())')"
  include="$include -I$($PYTHON -c "import sysconfig; print(sysconfig.get_path('include'))")"
  if [[ $GPU_RUN_DEVICE == cuda ]]; then
    sm=$($PYTHON -c "
import tomllib, torch
sm = '%d%d' % torch.cuda.get_device_capability()
nvcc = tomllib.load(open('csrc/cuda/nvcc.toml', 'rb'))
known = {a.rstrip('af'): a for a in nvcc['architectures']}
print(known.get(sm, sm), *nvcc['flags'])") || return
    read -r sm flags <<< "$sm"
    mkdir -p build/gpu
    ls csrc/bindings_cuda.cpp csrc/cuda/*.cu | xargs -P "$(nproc)" -I{} sh -c "nvcc -c $flags -cudart=static \
      -Xcompiler=-fPIC,-fvisibility=hidden -gencode=arch=compute_$sm,code=sm_$sm -lineinfo $include {} -o build/gpu/\$(basename {}).o" &&
    nvcc -shared -cudart=static build/gpu/*.o -o "build/site/alps_fast/_cuda$tag" || return
  fi
  ALPS_FAST_BUILD=cpu timeout 90 $PYTHON setup.py -q build_ext --build-lib build/site
}

forks() {  # whether a child can start CUDA after its parent has imported torch
  $PYTHON -P -c "
import os
os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'
import torch, torch.distributed.tensor, alps_fast
pid = os.fork()
if pid == 0:
    torch.zeros(1, device='cuda')
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
}

counters() {  # of a few launches, as text: index in timing.py, kernels by name, how many launches, after how many others
  ncu --clock-control none --set full --print-details all -k "regex:$2" -c "$3" --launch-skip "${4:-1}" $PYTHON -P "$HERE/one.py" "$1" \
    > "$OUT/ncu_$1.txt" 2>&1
}
export -f site build counters
export HERE

if [[ $GPU_RUN_DEVICE == cuda ]]; then
  nvidia-smi | head -15 | tee -a "$REPORT"
  nvidia-smi --query-gpu=name,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total --format=csv | tee -a "$REPORT"
fi
part site    100 bash -c site
if [[ $GPU_RUN_DEVICE == cuda ]] && ! forks > /dev/null 2>&1; then
  export GPU_RUN_INLINE=1
  echo "children cannot start CUDA: all in one process" | tee -a "$REPORT"
fi
part smoke    90 $PYTHON -P "$HERE/smoke.py"          # right at all?        14 s on an H200
part timing  130 $PYTHON -P "$HERE/timing.py" first   # eleven cases, each backend   60 s
part runs    130 $PYTHON -P "$HERE/runs.py" first     # whole runs                45 s
part kernels   60 $PYTHON -P "$HERE/kernels.py" first  # where a call's time goes
part more     90 $PYTHON -P "$HERE/timing.py" more    # other sizes               65 s
if [[ $GPU_RUN_DEVICE == cuda ]]; then
  part conv   130 $PYTHON -P "$HERE/conv.py"          # the kernels of conv_grad beside each other
  part tests 150 $PYTHON -P -m pytest -p no:benchmark -m gpu -v -n 12 --timeout 90 -p no:cacheprovider --junitxml="$OUT/tests.xml"  # 95 s by 8
  part scaling 100 $PYTHON -P -c "import sys; from alps_fast.cli import main; sys.exit(main())" bench --scaling "$OUT" --device cuda --no-progress --force
  part peak     60 $PYTHON -P "$HERE/peak.py"         # what is live when memory peaks
  part "ncu 0" 40 bash -c "counters 0 conv_tiles 3"   # 12 s each
  part "ncu 6" 50 bash -c "counters 6 langevin_sense_cg 8 8"
  part "ncu 5" 40 bash -c "counters 5 fourier 3"
  part "ncu 3" 40 bash -c "counters 3 langevin_sense 1"
  part "ncu 2" 40 bash -c "counters 2 ridge 1"
  part rest     100 $PYTHON -P "$HERE/runs.py" rest
  part memcheck  80 compute-sanitizer --tool memcheck --error-exitcode 9 --target-processes all \
    $PYTHON -P "$HERE/smoke.py" langevin_sense ridge_langevin
  part compiled 150 $PYTHON -P "$HERE/timing.py" compiled  # torch.compile as the baseline
  part unet      90 $PYTHON -P "$HERE/runs.py" "unet compiled"
fi
echo "== table"
grep -hE "^kind=(FAILED|KILLED)|ok=False" "$REPORT" | cut -c1-400 | head -30
grep -hE "^kind=(time|run)" "$REPORT" | cut -c1-220 | tail -60
rm -f "$OUT/ceilings.json"
if [[ -n ${failed:-} ]] || grep -qE "^kind=(FAILED|KILLED)|ok=False" "$REPORT"; then
  echo "not all is well:${failed:-} $(grep -cE "^kind=(FAILED|KILLED)|ok=False" "$REPORT") rows"
  exit 1
fi
