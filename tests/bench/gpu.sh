#!/usr/bin/env bash
# Times training steps of a random Llama-2-7B on one GPU: S2-Attn and full attention, bf16, fp8 and NF4 base, several
# lengths, deterministic and not, and beside them the peer where its script is given. Writes JSON lines, and a table of them
# beside the aims; builds nothing. Everything ends within --budget seconds (540): what is left over is done by another
# run with --continue. With --peer half of them are the peer's, at 32,768 and 65,536 tokens unless $CTXS says otherwise.
#   tests/bench/gpu.sh [--out DIR] [--pack DIR | --build DIR] [--budget SECONDS] [--continue] [--peer gpu_peer_sweep.sh]
#                      [more for gpu.py]
# Exit status: 0 every row was measured or is left out with its reason, 1 one failed, 2 without a GPU or without the programs.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build pack= out=$root/docs/results/gpu peer= device=cuda budget=540
pass=()
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --peer) peer=$2; shift 2 ;;
    --device) device=$2; pass+=("$1" "$2"); shift 2 ;;
    --budget) budget=$2; shift 2 ;;
    --continue) pass+=("$1"); shift ;;
    --config | --only | --scale | --steps) pass+=("$1" "$2"); shift 2 ;;
    *) echo "gpu.sh: unknown flag $1" >&2; exit 2 ;;
  esac
done
. "$root/tests/gpu/environment.sh"
[ -n "$pack" ] || bin=$build/bin
[ -x "$bin/ll-trainer" ] || { echo "gpu.sh: no $bin/ll-trainer: build it or give --pack" >&2; exit 2; }
if [ "$device" = cuda ] && [ -z "$gpu" ]; then
  echo "gpu.sh: nvidia-smi shows no GPU" >&2
  exit 2
fi
mkdir -p "$out"
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}
# What run.sh measured of attention here decides which kernel the rows use.
[ -s "$out/entrypoints.jsonl" ] && LL_ATTENTION_TABLE=$(realpath "$out/entrypoints.jsonl") && export LL_ATTENTION_TABLE
ours=$budget
[ -n "$peer" ] && ours=$((budget / 2))
python3 "$root/tests/bench/gpu.py" --trainer "$bin/ll-trainer" --gpu "${gpu:-$device}" --commit "$commit" --out "$out/bench.jsonl" --budget "$ours" "${pass[@]}"
status=$?
if [ -n "$peer" ]; then
  CTXS=${CTXS:-32768 65536} ATTENTIONS=${ATTENTIONS:-s2} BUDGET=$((budget - SECONDS)) OUT=$out/peer env -u LD_LIBRARY_PATH bash "$peer" || status=1
fi
python3 "$root/tests/bench/gpu_table.py" "$out" > "$out/table.md" || status=1
exit $status
