#!/usr/bin/env bash
# Repeats tests/chaos/run.py with new seeds until so many minutes are over, and adds what was measured to docs/results/chaos.jsonl,
# by commit. The hours in docs/reliability.md are the sums of what stands there.
#   tests/chaos/long.sh --minutes N [--out FILE]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
minutes= out=$root/docs/results/chaos.jsonl
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) echo "long.sh: unknown flag $1" >&2; exit 2 ;;
  esac
done
[ -n "$minutes" ] || { echo "long.sh: --minutes N is needed" >&2; exit 2; }
end=$((SECONDS + minutes * 60)) rounds=0 failed=0
while [ $SECONDS -lt $end ]; do
  left=$(((end - SECONDS) / 60))
  python3 "$root/tests/chaos/run.py" --minutes $((left > 10 ? 10 : left > 1 ? left : 1)) --record "$out" || failed=$((failed + 1))
  rounds=$((rounds + 1))
done
echo "$rounds rounds in $((SECONDS / 60)) minutes, $failed with a failure; added to $out"
[ $failed -eq 0 ]
