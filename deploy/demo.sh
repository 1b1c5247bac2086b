#!/usr/bin/env bash
# The main job on real text, end to end: a coordinator, two CPU workers, a model extended from 256 to 1024 tokens.
#
#   bash deploy/demo.sh [--keep] [--from-scratch] [--steps N] [--nightly]
#
# Installs and builds what is missing, then: packs a public-domain text, starts the service on free loopback ports,
# measures the base model's perplexity, submits one LongLoRA job (S2-Attn, LoRA + embedding + norms, Position
# Interpolation x4) on two ranks, measures again and prints both. Every number comes from the service's own jobs.
#
#   --keep           leaves the service running and says how to use and how to stop it
#   --from-scratch   pre-trains the base model anew with the service's own `full` job (deploy/demo/README.md)
#   --steps N        optimizer steps of the extension (default: deploy/demo/extend.yaml's)
#   --nightly        the long form: then two nights of deploy/nightly on the same model and text, and what they are judged to be
#
# Writes build/demo/result.json. Exit codes: 0 done and perplexity fell, 1 a job or a check failed, 2 usage.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
WORK=$ROOT/build/demo
BASE=$ROOT/deploy/demo/base
KEEP=0 FROM_SCRATCH=0 STEPS='' NIGHTLY=0

say() { printf '%s\n' "$*" >&2; }
die() { say "demo: $*"; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --keep) KEEP=1 ;;
    --from-scratch) FROM_SCRATCH=1 ;;
    --nightly) NIGHTLY=1 ;;
    --steps) STEPS=${2:?--steps needs a number}; shift ;;
    -h|--help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    *) say "demo: unknown flag $1; try --help"; exit 2 ;;
  esac
  shift
done

# ---- install and build what is missing
bash deploy/bootstrap.sh
cmake --preset release > build/configure.log 2>&1 || { tail -n 20 build/configure.log >&2; die "configure failed"; }
cmake --build build --target llctl ll-coordinator ll-worker ll-trainer > build/build.log 2>&1 ||
  { tail -n 30 build/build.log >&2; die "build failed, see build/build.log"; }
export PATH=$ROOT/build/bin:$PATH

# ---- the service, on free ports, in a folder of its own
stop_service() {
  for pid in ${PIDS:-}; do kill "$pid" 2>/dev/null || true; done
  for pid in ${PIDS:-}; do wait "$pid" 2>/dev/null || true; done
}
PIDS=
trap stop_service EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

rm -rf "$WORK"
mkdir -p "$WORK"
ll-coordinator --listen 127.0.0.1:0 --http 127.0.0.1:0 --data-dir "$WORK/coordinator" > "$WORK/coordinator.log" 2>&1 &
PIDS="$!"
for _ in $(seq 200); do [ -s "$WORK/coordinator/endpoints.json" ] && break; sleep 0.05; done
[ -s "$WORK/coordinator/endpoints.json" ] || { tail -n 5 "$WORK/coordinator.log" >&2; die "the coordinator did not start"; }
endpoint() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$WORK/coordinator/endpoints.json" "$1"; }
export LLCTL_COORDINATOR LL_DATA_DIR="$WORK/coordinator"
LLCTL_COORDINATOR=$(endpoint grpc)
HTTP=$(endpoint http)
# Two agents on one host share its cores; each by itself would take all of them.
THREADS=$(($(nproc) / 2)); [ "$THREADS" -ge 1 ] || THREADS=1
for n in 1 2; do
  ll-worker --coordinator "$LLCTL_COORDINATOR" --http 127.0.0.1:0 --work-dir "$WORK/worker-$n" --name "worker-$n" \
    --cpu-slots 1 --trainer-threads "$THREADS" --trainer "$ROOT/build/bin/ll-trainer" --job-store "$WORK/jobs" > "$WORK/worker-$n.log" 2>&1 &
  PIDS="$PIDS $!"
done
say "demo: coordinator on $LLCTL_COORDINATOR, metrics on http://$HTTP/metrics, workers worker-1 and worker-2"

# ---- the text: the King James Bible without its verse labels; the last twentieth is held out
bible -f Gen1:1-Rev22:21 2> /dev/null | sed -E 's/^[A-Za-z0-9]+:[0-9]+ //' > "$WORK/text.txt"
LINES=$(wc -l < "$WORK/text.txt")
[ "$LINES" -gt 30000 ] || die "bible-kjv printed $LINES verses, expected more than 30,000"
HELD=$((LINES / 20))
head -n $((LINES - HELD)) "$WORK/text.txt" > "$WORK/train.txt"
tail -n "$HELD" "$WORK/text.txt" > "$WORK/held.txt"

if [ "$FROM_SCRATCH" = 1 ]; then
  BASE=$WORK/base
  bash deploy/demo/make_base.sh "$WORK" "$BASE"
fi
for part in train held; do
  ll-trainer pack "$WORK/$part.txt" --tokenizer "$BASE" --out "$WORK/$part.bin" > "$WORK/pack-$part.json"
done

# ---- before, the job, after
llctl models add demo-base "$BASE" > /dev/null
llctl data add bible "$WORK/train.bin" --default > /dev/null
llctl data add bible-held-out "$WORK/held.bin" > /dev/null
perplexity() { llctl -o json eval perplexity --data bible-held-out --mode exact "$@"; }
say "demo: perplexity of the base at its own 256 tokens, and untuned at 1024"
perplexity --model demo-base --seq-len 256 --sliding-window 256 > "$WORK/eval-256.json"
perplexity --model demo-base --seq-len 1024 --sliding-window 1024 > "$WORK/eval-before.json"

say "demo: submitting deploy/demo/extend.yaml: 256 -> 1024 tokens, S2-Attn + LoRA+, two ranks"
JOB=$(llctl -o name submit --model demo-base --ctx 1024 --gpus 2 -f deploy/demo/extend.yaml ${STEPS:+--steps "$STEPS"})
llctl watch "$JOB" || die "the job did not succeed: $(llctl why "$JOB")"
llctl -o json get "$JOB" --history > "$WORK/job.json"
perplexity --job "$JOB" --seq-len 1024 --sliding-window 1024 > "$WORK/eval-after.json"
curl -fsS "http://$HTTP/metrics" > "$WORK/metrics.txt" || die "no metrics on http://$HTTP/metrics"
grep -q "^ll_train_loss{.*$JOB" "$WORK/metrics.txt" || die "ll_train_loss of $JOB is missing from /metrics"

python3 deploy/demo/report.py "$WORK"

# ---- the long form: the nightly example, smaller by flags alone; two nights of the same program and data are the same
verdicts() { llctl -o json schedule show nightly | python3 -c 'import json,sys; print(sum("verdict" in run for run in json.load(sys.stdin)["runs"]))'; }
if [ "$NIGHTLY" = 1 ]; then
  say "demo: two nights of deploy/nightly: 256 -> 512 -> 1024 tokens, each stage measured, merged at the end"
  deploy/nightly/create.sh --set model=demo-base --set data=bible --set eval_data=bible-held-out --set context_length=1024 --set stages=512,1024 --set max_steps=40 \
    --set learning_rate=2e-3 --set gate="ppl<=100" --tolerance-tokens-per-second 0.5 > /dev/null
  for night in 1 2; do
    llctl schedule run nightly > /dev/null
    for second in $(seq 1800); do
      [ "$(verdicts)" -lt "$night" ] || break
      [ "$second" -lt 1800 ] || die "night $night has no verdict after half an hour"
      sleep 1
    done
    deploy/nightly/verdict.sh nightly || die "night $night: $(llctl schedule show nightly)"
  done
  llctl -o json schedule show nightly > "$WORK/nightly.json"
fi
if [ "$KEEP" = 1 ]; then
  trap - EXIT
  say "
The service is still running. Try:
  export LLCTL_COORDINATOR=$LLCTL_COORDINATOR LL_DATA_DIR=$WORK/coordinator PATH=$ROOT/build/bin:\$PATH
  llctl list;  llctl get $JOB;  llctl submit --model demo-base --ctx 512 --watch
  curl http://$HTTP/metrics
Stop it with: kill $PIDS"
fi
