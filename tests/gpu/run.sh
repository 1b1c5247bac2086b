#!/usr/bin/env bash
# Everything there is to check and to measure on a host with a GPU, within --budget seconds (540); builds nothing where
# the programs were packed elsewhere (pack.sh). Writes JSON lines under --out (default docs/results/gpu/) as they come,
# and a summary; a number that was not measured is not there, a step that the time did not reach says so.
#   tests/gpu/run.sh [--out DIR] [--pack DIR | --build DIR] [--budget SECONDS] [--only NAME] [--device cpu]
# --only: steps whose name contains NAME. --device cpu: what of it a CPU can run, to try the script.
# Exit status: 0 all right, 1 something is wrong or was not reached, 2 without a GPU or without the programs.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build pack= out=$root/docs/results/gpu budget=540 only= device=cuda
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --budget) budget=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    *) echo "run.sh: unknown flag $1" >&2; exit 2 ;;
  esac
done
. "$root/tests/gpu/environment.sh"
if [ "$device" = cuda ] && [ -z "$gpu" ]; then
  echo "run.sh: nvidia-smi shows no GPU" >&2
  exit 2
fi
[ -x "$bin/gpu_check" ] || { echo "run.sh: no $bin/gpu_check: build it or give --pack" >&2; exit 2; }
trainer=$bin/ll-trainer
[ -n "$pack" ] || trainer=$build/bin/ll-trainer
mkdir -p "$out"
from=(--build "$build")
[ -n "$pack" ] && from=(--pack "$pack")
printf '{"date":"%s","gpu":"%s","commit":"%s"}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${gpu:-$device}" "$commit" > "$out/host.json"

: > "$out/summary.txt"
say() { echo "$*" | tee -a "$out/summary.txt"; }
say "${gpu:-$device}"
wrong=0
# step NAME SECONDS COMMAND…: standard output to NAME.jsonl, errors to NAME.log.
step() {
  local name=$1 seconds=$2 start=$SECONDS left=$((budget - SECONDS))
  shift 2
  case $name in *"$only"*) ;; *) return ;; esac
  if [ $left -lt 10 ]; then
    say "$(printf '%-16s not reached' "$name")"
    wrong=1
    return
  fi
  timeout -k 5 $((left < seconds ? left : seconds)) "$@" > "$out/$name.jsonl" 2> "$out/$name.log"
  local status=$? refused
  [ $status -eq 0 ] || wrong=1
  refused=$(grep -c '"status":"refused"' "$out/$name.jsonl")
  case $name in comm*) [ "$refused" -gt 0 ] && echo "refused by NCCL, see $name.jsonl" >> "$out/$name.log" ;; esac
  say "$(printf '%-16s exit %-3d %4d s  %s' "$name" $status $((SECONDS - start)) "$(tail -n 1 "$out/$name.log" | cut -c1-100)")"
}
gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l)
# NVIDIA's tool, on PATH or in the toolkit's folder.
sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer || true)

step kernels 240 "$bin/gpu_check" kernels --speed --device "$device"
[ "$device" = cuda ] && step models 120 "$bin/gpu_check" models
[ "$device" = cuda ] && step nf4 60 "$bin/nf4_cuda_check"
step smoke 180 bash "$root/tests/gpu/smoke.sh" "${from[@]}" --speed --out "$out/entrypoints.jsonl" --device "$device"
step comm-1 60 "$bin/gpu_check" comm --ranks 1 --limit 50 --device "$device"
step comm-2-on-one 60 "$bin/gpu_check" comm --ranks 2 --share --limit 50 --device "$device"
[ "$gpus" -gt 1 ] && step "comm-$gpus" 60 "$bin/gpu_check" comm --ranks "$gpus" --limit 50
step curve 120 python3 "$root/tests/gpu/curve.py" --trainer "$trainer" --device "$device"
step curve-nf4 120 python3 "$root/tests/gpu/curve.py" --trainer "$trainer" --device "$device" --quantization nf4
if [ "$device" = cuda ] && [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck; do
    step "$tool" 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$bin/gpu_check" kernels --small
  done
else
  say "compute-sanitizer: not there"
fi
exit $wrong
