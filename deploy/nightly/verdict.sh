#!/usr/bin/env bash
# Publishes the newest verdict of a schedule: one line on standard output, for mail or a chat's hook. Exit status 0: good
# (baseline, better, same), 1: regressed or failed, 2: there is none yet. Needs python3.
#
#   verdict.sh [NAME]      default: nightly
set -euo pipefail
name=${1:-nightly}
llctl -o json schedule show "$name" | python3 -c '
import json, sys
runs = [run for run in json.load(sys.stdin)["runs"] if "verdict" in run]
if not runs:
    print(sys.argv[1] + ": no verdict yet")
    sys.exit(2)
run = max(runs, key=lambda run: run["fire_time"])
print("%s %s: %s, %s" % (sys.argv[1], run["fire_time"], run["verdict"].lower(), run.get("verdict_reason") or "no reason given"))
sys.exit(run["verdict"] not in ("BASELINE", "BETTER", "SAME"))
' "$name"
