#!/usr/bin/env bash
# Long runs under the protocol `small`: one at a time, on all cores, at low priority.
#
#     benchmarks/evidence.sh            # start the queue, or resume it where it was stopped
#     python run_lra.py status          # where each run stands
#
# A run that is complete is skipped and one that was stopped resumes, as long as the code that computes it is the
# same. Run it from a clone of its own, so that edits elsewhere do not begin the runs again.
set -euo pipefail
cd "$(dirname "$0")/.."
# Linux divides the processor between sessions before it looks at `nice`, so the priority of the session is lowered
# too, and with it that of everything started in the same terminal.
if [ -w /proc/self/autogroup ]; then echo 19 >/proc/self/autogroup; fi

suite() { nice -n 19 .venv/bin/python run_lra.py suite "$@"; }

suite --protocol small --mixers cosformer --tasks listops text pathfinder
suite --protocol small --mixers cosformer --tasks image
suite --protocol small --mixers linear performer --tasks listops
