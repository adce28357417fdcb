#!/usr/bin/env bash
# Train the long runs of this suite, at low priority.
#
#     benchmarks/evidence.sh small      # the protocol of published figures: hours each, one run at a time
#     benchmarks/evidence.sh laptop     # mixers and recipes on ListOps, Text, Image and Pathfinder; as many runs at the
#                                       # same time as there are cores
#     benchmarks/evidence.sh cosformer  # its feature maps and decays under `laptop`, one run at a time
#     python run_lra.py status          # where each run stands
#
# The same command resumes the queue where it was stopped: complete runs are skipped and stopped runs continue, if the
# code that computes them is the same. Use a separate clone, so that edits do not restart the runs.
set -euo pipefail
cd "$(dirname "$0")/.."
lra() { nice -n 19 .venv/bin/python run_lra.py "$@"; }

small() {
    lra suite --protocol small --mixers cosformer --tasks listops text pathfinder
    lra suite --protocol small --mixers cosformer --tasks image
    lra suite --protocol small --mixers linear performer --tasks listops
}

laptop() {
    suite() { lra suite --parallel "$(nproc)" --protocol "$@"; }
    suite laptop --tasks pathfinder listops text image --mixers cosformer conv softmax
    suite laptop+shuffle --tasks listops --mixers cosformer softmax
    suite laptop+denoise --tasks text --mixers cosformer softmax
    suite laptop+spt --tasks text image --mixers cosformer softmax
    suite laptop --tasks listops image \
        --mixers gla mamba2 s5 retnet lion hgrn2 mlstm gated_deltanet longconv linear performer s4d lru
    suite laptop --tasks pathfinder listops text image --mixers cosformer --seeds 3
    local task
    for task in pathfinder listops text image; do
        lra train --protocol laptop --task "$task" --mixer conv --mixer-options kernel=5
    done
}

cosformer() {
    local task feature_map decay
    for task in listops image; do
        for feature_map in relu sigmoid silu elu; do
            for decay in none scalar vector; do
                lra train --protocol laptop --task "$task" --mixer cosformer \
                    --mixer-options "feature_map=$feature_map" "decay=$decay"
            done
        done
    done
}

case "${1:-}" in
small | laptop | cosformer)
    # Linux schedules sessions before it considers `nice`, so lower the priority of the session as well; this affects
    # everything started in the same terminal.
    if [ -w /proc/self/autogroup ]; then echo 19 >/proc/self/autogroup; fi
    "$1"
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
