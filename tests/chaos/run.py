#!/usr/bin/env python3
"""The reliability targets on real processes, in full size; a summary at the end.

  tests/chaos/run.py [--chaos-test build/tests/chaos_test] [--minutes 30] [--only R1,R6] [--seed N] [--record docs/results/chaos.jsonl]

--minutes is the soak's (R6) length. --record adds each measurement with date, commit and seed to a file, of which
docs/reliability.md tells what has been run. Installs libfaketime where it is missing (R12; needs root).
"""
import argparse
import datetime
import glob
import json
import os
import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/deploy"))
from packages import need_programs  # noqa: E402

TESTS = {
    "R1": "AcknowledgedSubmissionsSurviveKills", "R2": "ServesSoonAfterAKillWithAFullQueue", "R4": "ADeadRankIsNoticed",
    "R6": "SoakKeepsItsGoodput", "R10": "AFullDiskRefusesAndHeals", "R12": "JumpsOfTheWallClockExpireNothing",
    "R14": "SlowReadersHarmNobody", "R19": "AnswersAreLinearizable",
}


def faketime():
    need_programs(faketime="faketime")
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        sys.exit("libfaketimeMT.so.1 is missing: apt-get install faketime")
    return found[0]


def run(a, target, seed):
    """Whether it passed, and its measurements."""
    environment = dict(os.environ, LL_CHAOS="full", LL_SEED=str(seed), LL_CHAOS_MINUTES=str(a.minutes))
    if target == "R12":
        environment["LL_FAKETIME"] = faketime()
    began = time.monotonic()
    done = subprocess.run([a.chaos_test, f"--gtest_filter=ChaosTest.{TESTS[target]}"], env=environment, capture_output=True, text=True,
                          timeout=60 * a.minutes + 1200)
    notes = [json.loads(line.removeprefix("CHAOS ")) for line in done.stdout.splitlines() if line.startswith("CHAOS ")]
    if done.returncode != 0:
        print(done.stdout[-4000:] + done.stderr[-1000:], file=sys.stderr)
    return done.returncode == 0 and bool(notes), notes, time.monotonic() - began


def short(note):
    """A note without its long lists."""
    return ", ".join(f"{key} {value}" for key, value in note.items() if key not in ("target", "full", "seconds"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--chaos-test", default=ROOT / "build/tests/chaos_test")
    ap.add_argument("--minutes", type=float, default=30)
    ap.add_argument("--only", default=",".join(TESTS))
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    ap.add_argument("--record")
    a = ap.parse_args()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    rows, failed = [], []
    for target in a.only.split(","):
        if target not in TESTS:
            sys.exit(f"--only: one of {', '.join(TESTS)}, not {target}")
        passed, notes, seconds = run(a, target, a.seed)
        if not passed:
            failed.append(target)
        rows += [(note["target"], passed, seconds, short(note)) for note in notes] or [(target, False, seconds, "no measurement")]
        if a.record:
            with open(a.record, "a") as f:
                for note in notes:
                    f.write(json.dumps({**note, "passed": passed, "test_seconds": round(seconds, 1), "seed": a.seed, "commit": commit,
                                        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}) + "\n")
    for target, passed, seconds, text in rows:
        print(f"{target:4} {'ok    ' if passed else 'FAILED'} {seconds:7.1f} s  {text}")
    print(f"{len(rows)} measurements, {len(failed)} of {len(a.only.split(','))} targets failed; seed {a.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
