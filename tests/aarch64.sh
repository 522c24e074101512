#!/usr/bin/env bash
# alps_fast._cpu for aarch64, and its tests, on another processor: compiled by a cross compiler, run by Debian's Python for aarch64 in
# qemu. All of it lies in build/aarch64. No process may start another: what it would start is no program of this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 torch=$2 here=$PWD/build/aarch64
shift 2
for tool in qemu-aarch64-static aarch64-linux-gnu-g++ mmdebstrap; do
  command -v $tool > /dev/null || {
    echo "no $tool: apt-get install qemu-user-static g++-aarch64-linux-gnu mmdebstrap" >&2
    exit 1
  }
done
mkdir -p "$here"
rm -rf "$here"/*.new
test -d "$here/root" || {
  mmdebstrap --quiet --variant=extract --architectures=arm64 --include=libgomp1,libpython3-dev,libstdc++6,python3 bookworm "$here/root.new"
  mv "$here/root.new" "$here/root"
}
export QEMU_LD_PREFIX=$here/root PATH=$PWD/$(dirname "$python"):$PATH
export QEMU_CPU=neoverse-n1 # on qemu's own choice torch's transposed convolutions stop at an illegal instruction
emulated() { qemu-aarch64-static "$here/root/usr/bin/python3" "$@"; }
site=$here/$torch
test -d "$site" || {
  # pip of the environment, run by the other Python, fetches what that needs
  emulated "$("$python" -c "import pip; print(*pip.__path__)")" install -q --no-compile --target "$site.new" "$torch" pytest \
    pybind11 'setuptools>=77' $("$python" -c "import tomllib
print(*(w for w in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if not w.startswith('torch')))")
  mv "$site.new" "$site"
}
export PYTHONPATH=$here/lib:$site
export CXX="aarch64-linux-gnu-g++ -Werror -isystem $here/root/usr/include/python3.11 -idirafter $here/root/usr/include"
ALPS_FAST_BUILD=cpu emulated setup.py -q build --build-base "$here/temp" --build-lib "$here/lib"
OMP_NUM_THREADS=1 emulated -P -m pytest -q -p no:cacheprovider "$@"
