#!/usr/bin/env bash
# Makes the schedule of the nightly context extension; again, with the same flags, changes nothing.
#
#   create.sh [FLAGS of llctl schedule create]      for example --replace, or --set model=NAME
#   NIGHTLY_NAME, NIGHTLY_CRON, NIGHTLY_TZ          default: nightly, "0 2 * * *", UTC
#
# A fire that the coordinator missed is made up for in the morning, unless four hours have passed by then; a night that has
# not ended leaves the next one out.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
exec llctl schedule create "${NIGHTLY_NAME:-nightly}" --cron "${NIGHTLY_CRON:-0 2 * * *}" --tz "${NIGHTLY_TZ:-UTC}" \
  --missed last --overlap skip --start-within 14400 --history 90 -f "$here/nightly.yaml" "$@"
