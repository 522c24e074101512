#!/usr/bin/env bash
# The Triton kernels' tests under every Triton that a CUDA build of torch 2.11 to 2.14 brings: interpreted, compiled for four GPUs, and
# as PTX. Each version is installed by itself into build/ and comes before the environment's own. Some minutes a version.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift
failed=()
for version in "$@"; do
  site=build/triton-versions/$version
  test -d "$site/triton" || "$python" -m pip install -q --no-deps --target "$site" "triton==$version"
  echo "== triton $version"
  PYTHONPATH=$PWD/$site TRITON_CACHE_DIR=$PWD/build/triton-versions/cache OMP_WAIT_POLICY=passive \
    "$python" -m pytest -q -n 2 tests/test_triton.py tests/test_profile.py || failed+=("$version")
done
test ${#failed[@]} -eq 0 || { echo "failed under triton ${failed[*]}"; exit 1; }
