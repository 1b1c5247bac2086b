#!/usr/bin/env bash
# Judges every attention entry point of LibTorch on this host's GPU (three minutes at most) and writes one JSON line a
# case; the choice of attention reads that table. A process for each, since a fault ends it or poisons its CUDA context;
# the next one goes on behind the case that did.
#   tests/gpu/smoke.sh [--out FILE] [--pack DIR | --build DIR] [--speed] [--device cpu]
# Exit status: 0 judged, 2 without a GPU or without the programs.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build pack= out=$root/docs/results/entrypoints.jsonl speed= device=cuda
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --speed) speed=--speed; shift ;;
    --device) device=$2; shift 2 ;;
    *) echo "smoke.sh: unknown flag $1" >&2; exit 2 ;;
  esac
done
. "$root/tests/gpu/environment.sh"
[ -x "$bin/gpu_check" ] || { echo "smoke.sh: no $bin/gpu_check: build it or give --pack" >&2; exit 2; }
if [ "$device" = cuda ] && [ -z "$gpu" ]; then
  echo "smoke.sh: nvidia-smi shows no GPU" >&2
  exit 2
fi
written=$(mktemp "$out.XXXXXX") || exit 2
# What a deadline cut short stays beside the table, under another name.
finish() {
  [ ! -s "$written" ] || mv "$written" "$out.partial"
  rm -rf "$written" "${unpacked:-}"
}
trap finish EXIT
trap 'exit 143' TERM
printf '{"date":"%s","gpu":"%s","commit":"%s"}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${gpu:-$device}" "$commit" >> "$written"
while read -r name; do
  done=0
  while :; do
    before=$(wc -l < "$written")
    timeout 60 "$bin/gpu_check" entry-point "$name" $speed --from "$done" >> "$written"
    status=$?
    done=$((done + $(wc -l < "$written") - before))
    [ $status -eq 0 ] && break
    "$bin/gpu_check" entry-point "$name" --from "$done" --ended $status >> "$written" || break
    done=$((done + 1))
    [ $status -eq 2 ] || [ $status -eq 124 ] && break
  done
done < <("$bin/gpu_check" list --device "$device")
chmod 644 "$written"
# The table has a section for each kind of GPU; this one's replaces its older one.
python3 - "$written" "$out" <<'P'
import collections, json, os, sys
written, out = sys.argv[1:]
mine = [json.loads(line) for line in open(written)]
name = lambda host: host["gpu"].split(",")[0]
kept, keep = [], True
for text in open(out) if os.path.exists(out) else ():
    line = json.loads(text)
    keep = name(line) != name(mine[0]) if "gpu" in line else keep
    kept += [line] if keep else []
with open(written, "w") as f:
    f.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in kept + mine)
os.rename(written, out)
table = collections.defaultdict(collections.Counter)
for line in mine[1:]:
    table[line["entry_point"]][line["status"]] += 1
for name, counts in table.items():
    print(f"{name:45} " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
P
echo "written: $out"
