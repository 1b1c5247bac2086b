#!/usr/bin/env python3
"""The reliability targets on real processes, in full size; a summary at the end.

  tests/chaos/run.py [--chaos-test build/tests/chaos_test] [--minutes 30] [--only R1,R6] [--seed N] [--record docs/results/chaos.jsonl]

--minutes is the length of the soak (R6), and a fifteenth of it that of the fuzzing (R20). --record adds each measurement with date,
commit and seed to a file, of which docs/reliability.md tells what has been run. Installs libfaketime where it is missing (R12, R23;
needs root). R9 wants the trainer, R13 network namespaces, R22 builds the last release first, or what --old names (a commit, or a folder
with its programs).
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/deploy"), str(ROOT / "tests/support")]
from faketime import faketime_library  # noqa: E402
from packages import need_programs  # noqa: E402

TESTS = {
    "R1": "AcknowledgedSubmissionsSurviveKills", "R2": "ServesSoonAfterAKillWithAFullQueue", "R4": "ADeadRankIsNoticed", "R4a": "APauseOfTheCoordinatorRaisesNoAlarm",
    "R6": "SoakKeepsItsGoodput", "R10": "AFullDiskRefusesAndHeals", "R10a": "ADiskThatFailsRefusesAndHeals", "R12": "JumpsOfTheWallClockExpireNothing",
    "R14": "SlowReadersHarmNobody", "R19": "AnswersAreLinearizable", "R23": "NightlyRunsForThreeDays",
    "R13a": "RanksOutliveAnAbsence",
}
# Those that are told apart by another program: what it is called with, and what of its output is kept.
COMMANDS = {
    "R9": (["ctest", "--test-dir", "{build}", "-R", "^trainer_checkpoint_faults_test$", "--verbose"], r"Ran (?P<tests>\d+) tests"),
    "R11": (["{build}/tests/store_test", "--gtest_filter=TornWalTest.*"], r"(?P<cuts>\d+) cuts of a log of (?P<log_bytes>\d+) bytes"),
    "R13": (["ctest", "--test-dir", "{build}", "-R", "^cluster_netns_whole_test$", "--verbose"], r"Ran (?P<tests>\d+) tests"),
    "R14a": ([sys.executable, "{root}/tests/chaos/slow_net_test.py", "{build}/bin"],
             r'(?s)"readers": (?P<readers>\d+), "p99_ms_alone": (?P<p99_ms_alone>[\d.]+), "p99_ms_beside": (?P<p99_ms_beside>[\d.]+).*'
             r'"resets": (?P<resets>\d+).*"let_go_after_s": (?P<let_go_after_s>\d+)'),
    "R20": (["{build}/tests/coordinator_api_test", "--gtest_filter=SubmitFuzz.*"], r"(?P<inputs>\d+) submits, the longest took (?P<longest>\S+):"),
    "R22": ([sys.executable, "{root}/tests/upgrade/two_versions.py", "--new", "{build}/bin", "--trainer", "{build}/tests/fake_trainer", "--cache",
             "{build}/versions", "{old}"], r"UPGRADE (?P<upgrade>\{.*\})"),
}
FAKETIME = ("R12", "R23")


def order(target):
    return int(re.search(r"\d+", target)[0]), target


def faketime():
    need_programs(faketime="faketime")
    return faketime_library()


def run(a, target, seed):
    """Whether it passed, and its measurements."""
    environment = dict(os.environ, LL_CHAOS="full", LL_SEED=str(seed), LL_CHAOS_MINUTES=str(a.minutes))
    if target in COMMANDS:
        # In memory: what a real disk does to 65,536 stores in a row says nothing of where a log was cut.
        memory = {"TEST_TMPDIR": "/dev/shm"} if target == "R11" and os.access("/dev/shm", os.W_OK) else {}
        return run_command(a, target, dict(environment, LL_EVERY_BYTE="1", LL_FUZZ_SECONDS=str(4 * a.minutes), **memory))
    if target in FAKETIME:
        environment["LL_FAKETIME"] = faketime()
    began = time.monotonic()
    done = subprocess.run([a.chaos_test, f"--gtest_filter=*.{TESTS[target]}"], env=environment, capture_output=True, text=True,
                          timeout=60 * a.minutes + 1200)
    notes = [json.loads(line.removeprefix("CHAOS ")) for line in done.stdout.splitlines() if line.startswith("CHAOS ")]
    if done.returncode != 0:
        print(done.stdout[-4000:] + done.stderr[-1000:], file=sys.stderr)
    return done.returncode == 0 and bool(notes), notes, time.monotonic() - began


def run_command(a, target, environment):
    words, pattern = COMMANDS[target]
    began = time.monotonic()
    words = [str(word).format(build=a.build, root=ROOT, old=f"--old={a.old}" if a.old else "") for word in words]
    done = subprocess.run([word for word in words if word], env=environment, capture_output=True, text=True, timeout=60 * a.minutes + 3600)
    found = [match.groupdict() for match in re.finditer(pattern, done.stdout)]
    if done.returncode != 0 or not found:
        print(done.stdout[-4000:] + done.stderr[-1000:], file=sys.stderr)
    notes = [{"target": target, "full": True, **{key: int(value) if value.isdigit() else value for key, value in values.items()}} for values in found]
    return done.returncode == 0 and bool(notes), notes, time.monotonic() - began


def short(note):
    """A note without its long lists."""
    return ", ".join(f"{key} {value}" for key, value in note.items() if key not in ("target", "full", "seconds"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--chaos-test", default=ROOT / "build/tests/chaos_test")
    ap.add_argument("--minutes", type=float, default=30)
    ap.add_argument("--only", default=",".join(sorted([*TESTS, *COMMANDS], key=order)))
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    ap.add_argument("--old", help="the other version of R22, instead of the last release")
    ap.add_argument("--record")
    a = ap.parse_args()
    a.build = pathlib.Path(a.chaos_test).resolve().parents[1]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    rows, failed = [], []
    for target in a.only.split(","):
        if target not in TESTS and target not in COMMANDS:
            sys.exit(f"--only: one of {', '.join([*TESTS, *COMMANDS])}, not {target}")
        passed, notes, seconds = run(a, target, a.seed)
        if not passed:
            failed.append(target)
        rows += [(note["target"], passed, seconds, short(note)) for note in notes] or [(target, False, seconds, "no measurement")]
        if a.record:
            with open(a.record, "a") as f:
                for note in notes:
                    # One run may bring several of a target: their hours are told once.
                    share = seconds / sum(other["target"] == note["target"] for other in notes)
                    f.write(json.dumps({**note, "passed": passed, "test_seconds": round(share, 1), "seed": a.seed, "commit": commit,
                                        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}) + "\n")
    for target, passed, seconds, text in rows:
        print(f"{target:4} {'ok    ' if passed else 'FAILED'} {seconds:7.1f} s  {text}")
    print(f"{len(rows)} measurements, {len(failed)} of {len(a.only.split(','))} targets failed; seed {a.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
