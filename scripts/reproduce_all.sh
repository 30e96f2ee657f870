#!/usr/bin/env bash
# Every run behind results/ and docs/reproduction.md, longest last; about seven hours of two cores. What is stored is kept, so
# it may be stopped at any time and started again. Then scripts/keep_results.py and scripts/reproduction.py make of it
# what is in the repository.
#
#   scripts/reproduce_all.sh long                                    whole runs, in the folder long/
#   python scripts/keep_results.py long
#   python scripts/keep_results.py long/runtime results/runtime
#   python scripts/reproduction.py
set -euo pipefail
cd "$(dirname "$0")/.."
store=${1:?usage: scripts/reproduce_all.sh FOLDER}
trained=random,random_lr_schedule,lorraine,baydin,ours_wd_lr,ours_wd_lr_m,ours_wd_hdlr_m,diff_through_opt

reproduce() { hpo-bench reproduce "$@" --scale paper --results "$store"; }
timed() { hpo-bench bench runtime --results "$store" --repetitions 12 $(printf -- '--method %s ' ${trained//,/ }) "$@"; }

# alone on the machine
timed --dataset uci_energy
timed --dataset fashion_mnist hyperparameter_updates=100

reproduce uci_main dataset=uci_energy
reproduce rivals dataset=uci_energy
reproduce hypergradient_error
reproduce proof_of_concept
reproduce full_horizon
reproduce short_horizon dataset=uci_energy,uci_kin8nm,uci_power
reproduce short_horizon dataset=fashion_mnist repetitions=20
reproduce multi_pass dataset=uci_energy
for seed in 0 50; do
    reproduce sensitivity repetitions=50 seed=$seed
    reproduce validation_share repetitions=50 seed=$seed
done
reproduce validation_share repetitions=100 seed=100
for seed in 0 10; do
    reproduce fashion_mnist repetitions=10 record_every=500 seed=$seed
done
for dataset in yacht boston concrete wine kin8nm power; do
    reproduce uci_main dataset=uci_$dataset
done
for seed in 0 100; do
    reproduce uci_main dataset=uci_naval repetitions=100 seed=$seed
done
