#!/usr/bin/env bash
# What needs a GPU, in at most 8 minutes on one card: the tests of tests/gpu, and what trees are worth there.
#   scripts/gpu.sh OUTPUT_FOLDER [WHEELS_FOLDER]
# Without an index of packages: WHEELS_FOLDER has those that are missing (pip download --no-deps --dest WHEELS_FOLDER ...).
# First look whether it runs at all, on any machine: python tests/benchmarks/gpu.py --toy
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?give a folder for what is measured}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:$PWD/tests HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [ $# -gt 1 ]; then
    "$python" -m pip install --no-index --no-deps --find-links "$2" "$2"/*.whl
fi
{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    "$python" -c 'import torch, transformers, lightning; print(torch.__version__, transformers.__version__, lightning.__version__)'
    date -u
} 2>&1 | tee "$out/machine.txt"
timeout 210 "$python" tests/benchmarks/gpu.py --minutes 3 --output "$out/gpu.json" 2>&1 | tee "$out/benchmark.txt"
status=${PIPESTATUS[0]}
timeout 240 "$python" -m pytest -q -p no:cacheprovider tests/gpu 2>&1 | tee "$out/tests.txt"
tests=${PIPESTATUS[0]}
[ "$status" = 0 ] && [ "$tests" = 0 ]
