#!/usr/bin/env bash
# The tests of files, the command line and all that NumPy computes, under the oldest versions that pyproject.toml allows, torch but
# its own. They are installed by themselves into build/ and come before the environment's own.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
read -ra oldest <<< "$("$python" - << 'EOF'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
wanted = project["dependencies"] + project["optional-dependencies"]["mri"]
print(*(w.replace(">=", "==") for w in wanted if ">=" in w and not w.startswith("torch")))
EOF
)"
site=build/oldest/$(echo "${oldest[*]}" | md5sum | cut -c-8)
test -d "$site/numpy" || "$python" -m pip install -q --target "$site" "${oldest[@]}"
export PYTHONPATH=$PWD/$site
"$python" -c "import numpy, safetensors; print('==', '${oldest[*]}:', numpy.__version__, safetensors.__version__)"
# what old versions call is deprecated in the newest of what they call
OMP_WAIT_POLICY=passive "$python" -m pytest -q -p no:cacheprovider -W ignore::DeprecationWarning tests/test_io.py \
  tests/test_pictures.py tests/test_cli.py tests/test_posterior.py tests/test_energies.py tests/test_lost_work.py tests/test_fuzz.py \
  tests/test_scaling.py tests/test_langevin_fourier.py tests/test_exact.py
