#!/usr/bin/env bash
# Speed of `llctl data pack`: MB/s of text by number of threads, on the King James Bible repeated to the wanted size.
#
#   tests/bench/pack_bench.sh TOKENIZER [MB [THREADS ...]]   (default: 100 MB; 1, 2, 4, … up to all cores)
#
# LLCTL names the binary (default build/bin/llctl). Prints one line a run: threads, MB/s and MB/s a thread, the median
# of three. The first run of a size makes the text; nothing is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tokenizer=${1:?usage: pack_bench.sh TOKENIZER [MB [THREADS ...]]}
megabytes=${2:-100}
threads=("${@:3}")
llctl=${LLCTL:-build/bin/llctl}
cores=$(nproc)
if ((${#threads[@]} == 0)); then
  for ((n = 1; n < cores; n *= 2)); do threads+=("$n"); done
  threads+=("$cores")
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bible -f Gen1:1-Rev22:21 > "$work/once.txt"
while (($(stat -c %s "$work/text.txt" 2> /dev/null || echo 0) < megabytes * 1000000)); do
  cat "$work/once.txt" >> "$work/text.txt"
done
bytes=$(stat -c %s "$work/text.txt")
"$llctl" data pack "$work/once.txt" --tokenizer "$tokenizer" --out "$work/warm.bin" > /dev/null

for n in "${threads[@]}"; do
  for _ in 1 2 3; do
    begin=$(date +%s%N)
    "$llctl" data pack "$work/text.txt" --tokenizer "$tokenizer" --threads "$n" --out "$work/f.bin" > /dev/null
    echo $(($(date +%s%N) - begin))
  done | sort -n | sed -n 2p | awk -v n="$n" -v bytes="$bytes" \
    '{ s = $1 / 1e9; printf "%2d threads  %6.1f MB/s  %5.1f MB/s a thread  (%.1f MB in %.1f s, with start-up)\n", n, bytes / 1e6 / s, bytes / 1e6 / s / n, bytes / 1e6, s }'
done
