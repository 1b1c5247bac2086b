#!/usr/bin/env python3
"""What asynchronous checkpoints cost a training: the same steps with and without them, on this machine's CPUs.

  tests/bench/checkpoint_cost.py --model DIR [--ctx 1024] [--every 50] [--steps 101] [--rounds 3] [--threads N] [--trainer PATH]

Prints, by round, the wall seconds from the first step's end to the last one's without and with checkpoints, their ratio, and the longest
gap between a step that saves and its follower beyond the median step (what a snapshot holds up). Rounds alternate both sides, and which
comes first, so that a slow minute hits both; `cpu_share` well below 1 means that something else had the cores: repeat such a run.
"""
import argparse
import datetime
import json
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def moment(event):
    return datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def run(a, work, save_steps, name):
    spec = {"model": a.model, "data": os.path.join(work, "data.bin"), "method": "longlora", "context_length": a.ctx, "precision": "bf16",
            "original_context_length": a.ctx, "max_steps": a.steps, "global_batch_size": a.rows, "save_steps": save_steps, "seed": 1}
    path = os.path.join(work, name + ".json")
    with open(path, "w") as f:
        json.dump(spec, f)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([a.trainer, "train", "--spec", path, "--out", os.path.join(work, name), "--threads", str(a.threads)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=a.timeout)
    if done.returncode != 0:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    steps = [e for e in events if e["event"] == "step"]
    wall = moment(steps[-1]) - moment(steps[0])
    gaps = {e["step"]: moment(f) - moment(e) for e, f in zip(steps, steps[1:])}
    saved = [gap for step, gap in gaps.items() if step % save_steps == 0]
    whole = moment(events[-1]) - moment(events[0])
    written = [e for e in events if e["event"] == "checkpoint"]
    return {"seconds": wall, "step": statistics.median(gaps.values()), "held_up": max(saved, default=0) - statistics.median(gaps.values()),
            "bytes": written[0]["bytes"], "write_seconds": statistics.median(e["seconds"] for e in written),
            "cpu_share": (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / whole / a.threads}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ctx", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1, help="of a step")
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--steps", type=int, default=101)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=3600)
    parser.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    a = parser.parse_args()
    with open(os.path.join(a.model, "config.json")) as f:
        vocabulary = min(json.load(f)["vocab_size"], 40000)
    with tempfile.TemporaryDirectory() as work:
        rng = random.Random(0)
        with open(os.path.join(work, "data.bin"), "wb") as f:
            f.write(struct.pack(f"<{4 * a.ctx}H", *(rng.randrange(3, vocabulary) for _ in range(4 * a.ctx))))
        ratios = []
        for r in range(a.rounds):
            sides = {"plain": 1_000_000, "saving": a.every}
            done = {name: run(a, work, sides[name], f"{name}-{r}") for name in (list(sides) if r % 2 == 0 else list(sides)[::-1])}
            plain, saving = done["plain"], done["saving"]
            ratios.append(saving["seconds"] / plain["seconds"])
            print(f"round {r + 1}: without {plain['seconds']:.2f} s, with {saving['seconds']:.2f} s, ratio {ratios[-1]:.4f}; a step "
                  f"{plain['step']:.3f} s, held up by a snapshot {saving['held_up']:.3f} s; {saving['bytes'] / 1e6:.0f} MB written in "
                  f"{saving['write_seconds']:.2f} s; cpu_share {plain['cpu_share']:.2f} and {saving['cpu_share']:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.4f}: checkpoints every {a.every} steps cost {100 * (statistics.median(ratios) - 1):.2f} % "
              "of the training's time")


if __name__ == "__main__":
    main()
