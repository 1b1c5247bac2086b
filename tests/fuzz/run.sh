#!/usr/bin/env bash
# Fuzzes the readers of files: tests/fuzz/run.sh [--no-build] SECONDS [READER…]
#
# Every reader (all of them unless some are named) gets SECONDS seconds, one after the other, starting from its seeds
# and from what earlier runs found. Prints the seed and the number of executions; the exit status is 1 where an input
# crashed a reader, took it more than 512 MB or more than 5 s (under the sanitizers; a tenth of that without). SEED=N
# repeats a run. The failing input is kept and named; add it to tests/fuzz/seeds/READER when it is mended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=1
if [[ ${1:-} == --no-build ]]; then
  build=0
  shift
fi
if [[ ! ${1:-} =~ ^[0-9]+$ ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
  exit 2
fi
seconds=$1
shift
readers=("$@")
if ((${#readers[@]} == 0)); then
  for folder in tests/fuzz/seeds/*/; do readers+=("$(basename "$folder")"); done
fi
if ((build)); then
  { cmake --preset fuzz && cmake --build --preset fuzz; } > build/fuzz.log 2>&1 || { tail -n 40 build/fuzz.log; exit 1; }
fi
seed=${SEED:-$((RANDOM * 32768 + RANDOM + 1))}
failed=0
for reader in "${readers[@]}"; do
  work=build/fuzz/corpus/$reader
  log=build/fuzz/$reader.log
  mkdir -p "$work"
  if ASAN_OPTIONS=quarantine_size_mb=32:allocator_may_return_null=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 \
    "build/fuzz/tests/fuzz_$reader" -seed="$seed" -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=512 \
    -malloc_limit_mb=512 -timeout=5 -print_final_stats=1 -artifact_prefix="build/fuzz/$reader-" \
    "$work" "tests/fuzz/seeds/$reader" > "$log" 2>&1; then
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$reader: seed $seed, $executions executions, no fault"
  else
    failed=1
    grep -E -m 30 'ERROR|runtime error|broken invariant|SUMMARY|Test unit written|^ +#[0-9]+ .* in ll::' "$log" || tail -n 30 "$log"
    echo "$reader: seed $seed, FAULT (whole output: $log)"
  fi
done
exit $failed
