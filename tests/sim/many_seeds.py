#!/usr/bin/env python3
"""Runs many seeds of the simulator over processes, and can be stopped and run again.

  tests/sim/many_seeds.py [--build build] [--seeds 100000] [--first 1] [--log build/sim-seeds.jsonl] [--seconds S]

Each line of the log is a range of seeds that was run, with what failed in it; ranges that are there are not run again. Ends with a summary
and exit code 1 where a seed failed. Replay one with LL_SIM_SEED=N build/tests/sim_test --gtest_filter=*KeepsItsPromises*.
"""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RANGE = 100  # seeds a process: what a crash of it, or a stop, can cost


def run_range(program, first, last):
    env = {**os.environ, "LL_SIM_FIRST": str(first), "LL_SIM_SEEDS": str(last), "LL_SIM_THREADS": "1"}
    began = time.time()
    done = subprocess.run([program, "--gtest_filter=*KeepsItsPromises*"], cwd=ROOT, env=env, capture_output=True, text=True)
    failed = sorted({int(seed) for seed in re.findall(r"LL_SIM_SEED=(\d+)", done.stdout)})
    counts = {name: int(count) for name, count in re.findall(r"^  (\S.*?)  +(\d+)$", done.stdout, re.M)}
    events = re.search(r"(\d+) events", done.stdout)
    entry = {"first": first, "last": last, "ok": done.returncode == 0, "failed": failed, "seconds": round(time.time() - began, 1),
             "events": int(events[1]) if events else 0, "counts": counts}
    if done.returncode != 0:
        entry["output"] = (done.stdout + done.stderr)[:4000]
    return entry


def read_log(path):
    if not os.path.exists(path):
        return []
    entries = []
    with open(path) as f:
        for line in f:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                pass  # half written when the last run was stopped
    return entries


def summarize(entries):
    seeds = sum(e["last"] - e["first"] + 1 for e in entries)
    counts = {}
    for entry in entries:
        for name, count in entry["counts"].items():
            counts[name] = counts.get(name, 0) + count
    for name, count in sorted(counts.items()):
        print(f"  {name:50} {count:12}")
    bad = [e for e in entries if not e["ok"]]
    print(f"{seeds} seeds, {sum(e['events'] for e in entries)} events, {sum(e['seconds'] for e in entries):.0f} process seconds, "
          f"{len(bad)} ranges with failures")
    for entry in bad:
        print(f"  {entry['first']}-{entry['last']}: seeds {entry['failed'] or 'unknown, it crashed'}")
    return not bad


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=os.path.join(ROOT, "build"))
    ap.add_argument("--first", type=int, default=1)
    ap.add_argument("--seeds", type=int, default=100_000, help="the last seed")
    ap.add_argument("--log")
    ap.add_argument("--seconds", type=float, default=float("inf"), help="begin no range after this long")
    ap.add_argument("--processes", type=int, default=os.cpu_count())
    a = ap.parse_args()
    program, log = os.path.join(a.build, "tests", "sim_test"), a.log or os.path.join(a.build, "sim-seeds.jsonl")
    entries = read_log(log)
    done = {(e["first"], e["last"]) for e in entries}
    ranges = [(first, min(first + RANGE - 1, a.seeds)) for first in range(a.first, a.seeds + 1, RANGE)]
    ranges = iter([r for r in ranges if r not in done])
    began = time.time()
    with open(log, "a") as f, concurrent.futures.ThreadPoolExecutor(a.processes) as pool:
        running = set()
        while True:
            while len(running) < a.processes and time.time() - began < a.seconds and (r := next(ranges, None)):
                running.add(pool.submit(run_range, program, *r))
            if not running:
                break
            ended, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                entry = future.result()
                entries.append(entry)
                f.write(json.dumps(entry) + "\n")
                f.flush()
                if not entry["ok"]:
                    print(f"seeds {entry['first']}-{entry['last']} failed:\n{entry['output']}", flush=True)
    sys.exit(0 if summarize(entries) else 1)


if __name__ == "__main__":
    main()
