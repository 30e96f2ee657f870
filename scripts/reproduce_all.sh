#!/usr/bin/env bash
# Every run behind results/ and docs/reproduction.md, in one command that may be stopped at any time and started again:
# what is stored is not computed twice.
#
#   scripts/reproduce_all.sh [--hours N] FOLDER      whole runs, in FOLDER
#
# With --hours it stops after so long. Either way it ends with what is left out, and with 0 if that is nothing.
# About twenty hours of two cores; what says most for its hours comes first. Then
#
#   python scripts/keep_results.py FOLDER
#   python scripts/keep_results.py FOLDER/runtime results/runtime
#   python scripts/reproduction.py
#
# make of it what is in the repository.
set -euo pipefail

usage() {
    echo "usage: scripts/reproduce_all.sh [--hours N] FOLDER" >&2
    exit 2
}

hours=
while [ $# -gt 0 ]; do
    case $1 in
        --hours) [ $# -gt 1 ] || usage; hours=$2; shift 2 ;;
        --hours=*) hours=${1#--hours=}; shift ;;
        -h | --help) sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p;}' "$0"; exit 0 ;;
        -*) usage ;;
        *) [ -z "${store:-}" ] || usage; store=$1; shift ;;
    esac
done
[ -n "${store:-}" ] || usage
if [ -n "$hours" ] && ! [[ $hours =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
    echo "--hours $hours: must be a number of hours, such as 8 or 0.5" >&2
    exit 2
fi
mkdir -p "$store"
store=$(cd "$store" && pwd)
cd "$(dirname "$0")/.."

begun=$SECONDS
allowed=$([ -z "$hours" ] || awk -v hours="$hours" 'BEGIN { print int(3600 * hours) }')
left_out=()
failed=()

# Run a command within the time that is left, or note that it is left out.
step() {
    local remaining=
    if [ -n "$allowed" ]; then
        remaining=$((allowed - (SECONDS - begun)))
        if [ "$remaining" -le 0 ]; then
            left_out+=("$*")
            return
        fi
    fi
    echo "== $*"
    local code=0
    # An interrupt lets what is computed be stored; nobody waits for more than two minutes.
    if [ -n "$remaining" ]; then
        timeout --foreground --signal=INT --kill-after=120 "$remaining" "$@" || code=$?
    else
        "$@" || code=$?
    fi
    if [ "$code" -eq 0 ]; then
        return
    fi
    if [ -n "$remaining" ] && [ $((allowed - (SECONDS - begun))) -le 0 ]; then
        left_out+=("$* (begun)")
    elif [ "$code" -ge 128 ]; then
        exit "$code" # somebody stopped it
    else
        failed+=("$*")
    fi
}

reproduce() { step hpo-bench reproduce "$@" --results "$store"; }

trained="random random_lr_schedule lorraine baydin ours_wd_lr ours_wd_lr_m ours_wd_hdlr_m diff_through_opt"
timed() { step hpo-bench bench runtime --results "$store" $(printf -- '--method %s ' $trained) "$@"; }

# How long one training takes: alone on the machine, so before everything else.
timed --repetitions 12 --dataset uci_energy
timed --repetitions 12 --dataset fashion_mnist hyperparameter_updates=100
timed --repetitions 5 --scale cpu --dataset penn_treebank hyperparameter_updates=1
timed --repetitions 5 --scale cpu --dataset cifar10 hyperparameter_updates=1

# The paper's experiments on the UCI sets.
reproduce proof_of_concept --scale paper
reproduce hypergradient_error --scale paper
reproduce uci_main --scale paper
reproduce sensitivity --scale paper
reproduce short_horizon --scale paper
reproduce full_horizon --scale paper
reproduce validation_share --scale paper

# What the paper has not.
reproduce horizons --scale paper
reproduce rivals --scale paper
reproduce any_update --scale paper

# Searches; Bayesian optimisation on Fashion-MNIST is a quarter of all hours, and comes last.
reproduce multi_pass --scale paper dataset=uci_energy,uci_kin8nm,uci_power

# The larger sets: Fashion-MNIST as in the paper, the two others as far as two cores go.
reproduce fashion_mnist --scale paper
reproduce penn_treebank --scale cpu
reproduce cifar10 --scale cpu
reproduce batchnorm --scale paper
reproduce multi_pass --scale paper

for command in ${failed[@]+"${failed[@]}"}; do echo "failed: $command" >&2; done
for command in ${left_out[@]+"${left_out[@]}"}; do echo "left out: $command"; done
if [ ${#failed[@]} -gt 0 ]; then
    exit 1
fi
if [ ${#left_out[@]} -gt 0 ]; then
    echo "run the same command again to go on"
    exit 3
fi
echo "nothing is left out"
