#!/usr/bin/env bash
# One command for a machine with a CUDA device and torch 2.9 or newer, without network: does a GPU give the numbers of a
# CPU (float64, float32, reference traces, repeated runs, replayed graphs, chunks under a memory cap), and how fast is it
# beside the goals of scripts/gpu_goals.py?
#
#   scripts/gpu_check.sh [PYTHON]        python3 by default
#
# What the machine's Python lacks can come from a folder of wheels, .whl beside this checkout or $WHEELS. Made where
# there is a network (all three are pure Python, one of them is built from its source):
#
#   python3 -m pip wheel --no-deps -c constraints.txt -w .whl hydra-core omegaconf antlr4-python3-runtime
#
# SHARE=0.1 makes a tenth of the weight updates of each goal and foretells the rest (everything: half an hour).
# HPO_BENCH_DATA_MIRROR names a folder with the data; what is not there is replaced by random numbers of its shape, and
# the UCI sets are then left out of the goals by the error that names the missing file.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
wheels=${WHEELS:-.whl}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if compgen -G "$wheels/*.whl" >/dev/null; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
fi

"$python" - <<'PYTHON'
import importlib.util as look
import sys

needed = [
    "torch", "hydra", "omegaconf", "typer", "rich", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "pytest",
]
missing = [name for name in needed if look.find_spec(name) is None]
if missing:
    sys.exit(f"gpu_check: missing here: {', '.join(missing)}; the head of this script says how to bring them")
import torch

if not torch.cuda.is_available():
    sys.exit(f"gpu_check: torch {torch.__version__} finds no CUDA device")
print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, Python {sys.version.split()[0]}")
PYTHON

"$python" -m pytest -q -p no:cacheprovider tests/gpu tests/test_golden.py
"$python" scripts/gpu_goals.py --share "${SHARE:-1}"
