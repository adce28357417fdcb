#!/usr/bin/env bash
# Train the long runs under the protocol `small`: one at a time, on all cores, at low priority.
#
#     benchmarks/evidence.sh            # start the queue, or resume it where it was stopped
#     python run_lra.py status          # where each run stands
#
# Complete runs are skipped and stopped runs resume, if the code that computes them is the same. Use a separate clone,
# so that edits do not restart the runs.
set -euo pipefail
cd "$(dirname "$0")/.."
# Linux schedules sessions before it considers `nice`, so lower the priority of the session as well; this affects
# everything started in the same terminal.
if [ -w /proc/self/autogroup ]; then echo 19 >/proc/self/autogroup; fi

suite() { nice -n 19 .venv/bin/python run_lra.py suite "$@"; }

suite --protocol small --mixers cosformer --tasks listops text pathfinder
suite --protocol small --mixers cosformer --tasks image
suite --protocol small --mixers linear performer --tasks listops
