#!/usr/bin/env python3
"""Seconds from the SIGKILL of a rank to the first step of the job's next attempt, through the service: coordinator, one agent, a toy model.

  kill_to_next_step.py BIN_DIR [--kills N] [--ranks N] [--out FILE.csv]   (adds to the file)

Prints every value, the median and the 99th percentile; both times are this host's clock (of the kill, and of the step as its event tells it).
The kills come at random moments of a step. Each attempt must have got on by a checkpoint before it is killed again: another kill would be
answered with a longer wait, as it should.
"""
import argparse
import datetime
import os
import pathlib
import random
import signal
import statistics
import sys
import time

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("bin")
arguments.add_argument("--kills", type=int, default=25)
arguments.add_argument("--ranks", type=int, default=1)
arguments.add_argument("--out", type=pathlib.Path)
options = arguments.parse_args()
options.out = options.out and options.out.resolve()
sys.argv = [sys.argv[0], options.bin]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from service import ServiceCase  # noqa: E402


def ranks_of(job):
    """Processes of the job's trainer, by rank."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if len(words) > 1 and words[0].endswith("ll-trainer") and words[1] == "run" and any(job in w for w in words):
            found[int(words[words.index("--rank") + 1])] = int(pid)
    return found


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Measure(ServiceCase):
    SLOTS = options.ranks

    def runTest(self):
        data = self.make_data()
        job = self.llctl("-o", "name", "submit", "--model", self.model, "--data", data, "--ctx", 512, "--steps", 1000000, "--gpus", options.ranks,
                         "--set", f"global_batch_size={2 * options.ranks}", "--set", "save_steps=5", "--set", "max_retries=100",
                         "--set", "precision=fp32").stdout.strip()
        seconds, rng = [], random.Random(5)
        for kill in range(options.kills):
            attempt = kill + 1
            self.wait_for(job, lambda j: int(j["epoch"]) == attempt and int(j.get("newest_checkpoint", {}).get("epoch", 0)) == attempt, "a checkpoint")
            time.sleep(rng.random())
            victim = rng.choice(sorted(ranks_of(job).items()))
            killed = time.time()
            os.kill(victim[1], signal.SIGKILL)
            found = self.wait_for(job, lambda j: any(int(s["epoch"]) == attempt + 1 for s in j["steps"]), "a step")
            next_step = min(moment(s["time"]) for s in found["steps"] if int(s["epoch"]) == attempt + 1)
            seconds.append(next_step - killed)
            print(f"kill {kill + 1}: rank {victim[0]}, next step after {seconds[-1]:.2f} s, load {os.getloadavg()[0]:.1f}", flush=True)
        self.llctl("cancel", job)
        ordered = sorted(seconds)
        print(f"{len(seconds)} kills, {options.ranks} rank(s): p50 {statistics.median(seconds):.2f} s, "
              f"p99 {ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]:.2f} s, worst {ordered[-1]:.2f} s")
        if options.out:
            with open(options.out, "a") as f:
                if f.tell() == 0:
                    f.write("ranks,kill,seconds_to_next_step\n")
                f.writelines(f"{options.ranks},{i + 1},{s:.3f}\n" for i, s in enumerate(seconds))


if __name__ == "__main__":
    Measure.setUpClass()
    try:
        Measure().runTest()
    finally:
        Measure.doClassCleanups()
