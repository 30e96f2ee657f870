#!/usr/bin/env bash
# One command for a machine with a CUDA device and torch 2.9 or newer, without network: does a GPU give the numbers of a
# CPU (float64, float32, reference traces, repeated runs, chunks under a memory cap), and how fast is it? Under ten minutes.
#
#   scripts/gpu_check.sh [PYTHON]        (python3 by default; results of the speed table go to $OUT or a temporary folder)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

"$python" - <<'PYTHON'
import importlib.util as look
import sys

needed = ["torch", "hydra", "omegaconf", "typer", "rich", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "pytest"]
missing = [name for name in needed if look.find_spec(name) is None]
if missing:
    sys.exit(f"gpu_check: missing here: {', '.join(missing)} (pip install -c constraints.txt -e .[dev])")
import torch

if not torch.cuda.is_available():
    sys.exit(f"gpu_check: torch {torch.__version__} finds no CUDA device")
print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, Python {sys.version.split()[0]}")
PYTHON

"$python" -m pytest -q -p no:cacheprovider tests/gpu
"$python" -m pytest -q -p no:cacheprovider tests/test_golden.py

out=${OUT:-$(mktemp -d)}
for method in random ours_wd_lr_m diff_through_opt; do
    for dataset in diabetes ${HPO_BENCH_DATA_MIRROR:+uci_energy uci_kin8nm}; do
        "$python" -m hpo_bench run method="$method" dataset="$dataset" repetitions=200 device=cuda \
            hyperparameter_updates=40 results_dir="$out/results" >/dev/null
    done
done
"$python" - "$out/results" <<'PYTHON'
import sys

from hpo_bench.store import scan

print("| dataset | method | repetitions x updates | seconds | microseconds per update and repetition |\n|---|---|---|---|---|")
for run in scan(sys.argv[1]):
    updates = run.config["update_interval"] * run.config["hyperparameter_updates"]
    seconds = run.seconds["total"]
    print(f"| {run.dataset} | {run.method} | {len(run.seeds)} x {updates} | {seconds:.2f} "
          f"| {1e6 * seconds / updates / len(run.seeds):.2f} |")
PYTHON
