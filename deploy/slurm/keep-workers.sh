#!/usr/bin/env bash
# Keeps N agents in Slurm: submits the elements that are missing and touches none that is there. For cron or scrontab, every few
# minutes: Slurm writes its queue down only now and then, so that a controller that is killed forgets what was submitted or
# requeued just before, and an element that failed does not come back by itself.
#
#   LL_CONFIG=/shared/ll/etc/worker.yaml keep-workers.sh N [FLAGS of sbatch]
#
# LL_CONFIG and the other variables: ll-workers.sbatch, which lies beside this file. One call at a time (flock on ~/.ll-workers.lock,
# LL_LOCK names another file). Exit status 0: N are there or submitted; 1: Slurm did not answer, nothing was submitted.
set -euo pipefail
case ${1:-} in
  '' | *[!0-9]*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
wanted=$1
shift
: "${LL_CONFIG:?LL_CONFIG names no worker.yaml}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec 9> "${LL_LOCK:-$HOME/.ll-workers.lock}"
flock 9
# Waiting, running and ending elements: one that is being requeued is among them, so that it is never replaced.
elements=$(squeue --noheader --array --name=ll-worker --user="$(id -un)" --format=%i) ||
  { echo "keep-workers: Slurm's controller does not answer; nothing was submitted" >&2; exit 1; }
found=$(grep -c . <<< "$elements" || true)
if ((found >= wanted)); then
  echo "keep-workers: $found of $wanted are there"
  exit 0
fi
job=$(sbatch --parsable --array="1-$((wanted - found))" --export=ALL "$@" "$here/ll-workers.sbatch")
echo "keep-workers: $found of $wanted were there; submitted $((wanted - found)) as $job"
