#!/usr/bin/env bash
# Everything there is to check and to measure on a host with a GPU, in minutes; builds nothing where the programs were
# packed elsewhere (pack.sh). Writes JSON lines under --out (default docs/results/gpu/) and ends with a summary; a
# number that was not measured is not there.
#   tests/gpu/run.sh [--out DIR] [--pack DIR | --build DIR]
# Exit status: 0 all right, 1 something is wrong, 2 without a GPU or without the programs.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build pack= out=$root/docs/results/gpu
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) echo "run.sh: unknown flag $1" >&2; exit 2 ;;
  esac
done
. "$root/tests/gpu/environment.sh"
[ -n "$gpu" ] || { echo "run.sh: nvidia-smi shows no GPU" >&2; exit 2; }
mkdir -p "$out"
from=(--build "$build")
[ -n "$pack" ] && from=(--pack "$pack")
printf '{"date":"%s","gpu":"%s","commit":"%s"}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$gpu" "$commit" > "$out/host.json"

summary=() wrong=0
# step NAME SECONDS COMMAND…: standard output to NAME.jsonl, errors to NAME.log.
step() {
  local name=$1 seconds=$2 start=$SECONDS
  shift 2
  timeout "$seconds" "$@" > "$out/$name.jsonl" 2> "$out/$name.log"
  local status=$?
  [ $status -eq 0 ] || wrong=1
  summary+=("$(printf '%-14s exit %-3d %4d s  %s' "$name" $status $((SECONDS - start)) "$(tail -n 1 "$out/$name.log" | cut -c1-100)")")
}
step smoke 300 bash "$root/tests/gpu/smoke.sh" "${from[@]}" --speed --out "$out/entrypoints.jsonl"
step kernels 300 "$bin/gpu_check" kernels --speed
step models 300 "$bin/gpu_check" models
step nf4 120 "$bin/nf4_cuda_check"
printf '%s\n' "$gpu" "${summary[@]}"
exit $wrong
