#!/usr/bin/env bash
# Installs what is missing, builds, runs the tests; the last line is "N passed, N failed". Exit status 0: all passed.
#
#   tests/run.sh             quick and full tests, two of the service's under AddressSanitizer, and 12 s of fuzzing a reader
#   tests/run.sh --quick     quick tests only
#   tests/run.sh --nightly   also the long ones, every quick one under AddressSanitizer, what has threads under ThreadSanitizer
#   JOBS=N                   parallel compile jobs (default: the number of cores); two tests more, since most wait for others
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec < /dev/null  # nothing here asks anything

tier=full
for argument in "$@"; do
  case $argument in
    --quick) tier=quick ;;
    --full) tier=full ;;
    --nightly) tier=nightly ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "run.sh: unknown option '$argument' (see --help)" >&2; exit 2 ;;
  esac
done
case $tier in
  quick) labels='^quick$' ;;
  full) labels='^(quick|full)$' ;;
  nightly) labels='^(quick|full|nightly)$' ;;
esac
jobs=${JOBS:-$(nproc)}
passed=0
failed=0
failures=()

say() { echo "run.sh: $*"; }

# build PRESET [TARGET …]: configures and builds, quietly when it goes well. A failure counts as one failed test.
build() {
  local preset=$1 log=build/logs/$1.log start=$SECONDS
  shift
  local targets=()
  (($# == 0)) || targets=(--target "$@")
  mkdir -p build/logs
  if cmake --preset "$preset" > "$log" 2>&1 && cmake --build --preset "$preset" --parallel "$jobs" "${targets[@]}" >> "$log" 2>&1; then
    say "built $preset in $((SECONDS - start)) s"
    return
  fi
  grep -E -A 8 'error:|Error|FAILED' "$log" | head -n 60 || tail -n 40 "$log"
  say "building $preset failed (whole output: $log)"
  failed=$((failed + 1))
  failures+=("build of $preset")
  return 1
}

# run_tests PRESET FOLDER LABELS [NAMES]: one ctest run; adds its counts to the totals.
run_tests() {
  local preset=$1 folder=$2 label=$3 names=${4:-.} log=build/logs/ctest-$1.log summary run_failed run_total
  ctest --test-dir "$folder" -L "$label" -R "$names" -j "$((jobs + 2))" --output-on-failure --no-tests=error 2>&1 | tee "$log" || true
  summary=$(grep -E 'tests passed, [0-9]+ tests failed out of' "$log" || true)
  if [[ -z $summary ]]; then
    failed=$((failed + 1))
    failures+=("ctest of $preset ended without a summary")
    return
  fi
  run_failed=$(sed -E 's/.*passed, ([0-9]+) tests failed.*/\1/' <<< "$summary")
  run_total=$(sed -E 's/.*out of ([0-9]+).*/\1/' <<< "$summary")
  passed=$((passed + run_total - run_failed))
  failed=$((failed + run_failed))
  ((run_failed == 0)) || failures+=("$run_failed of $preset (see above)")
}

bash deploy/bootstrap.sh --tests
if build release; then
  run_tests release build "$labels"
fi
if [[ $tier != quick ]]; then
  # The parts without torch: the distribution's torch-free libraries are what the sanitizers can see through. All of them
  # under both sanitizers take half an hour on two cores, so the full tier has the store's and the agent's tests alone;
  # what reads files runs under AddressSanitizer in the fuzzing build below.
  presets=(asan)
  targets=(store_test agent_parts_test)
  only='^(store_test|agent_parts_test)$'
  if [[ $tier == nightly ]]; then
    presets=(asan tsan)
    targets=()
    only='.'
  fi
  for preset in "${presets[@]}"; do
    if build "$preset" "${targets[@]}"; then
      ASAN_OPTIONS=detect_leaks=1:halt_on_error=1 \
        TSAN_OPTIONS=halt_on_error=1:suppressions="$PWD/tests/tsan/tsan.supp" \
        run_tests "$preset" "build/$preset" '^quick$' "$only"
    fi
  done
fi
if [[ $tier != quick ]] && build fuzz; then
  run_tests fuzz build/fuzz '^full$'
fi
for failure in "${failures[@]:+${failures[@]}}"; do say "FAILED: $failure"; done
echo "$passed passed, $failed failed"
((failed == 0))
