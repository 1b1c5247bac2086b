#!/usr/bin/env python3
"""What asynchronous checkpoints cost a training: the same steps with and without them, on this machine's CPUs.

  tests/bench/checkpoint_cost.py --model DIR [--ctx 1024] [--every 50] [--steps 101] [--rounds 3] [--threads N] [--trainer PATH]

Prints, by round, the wall seconds from the first step's end to the last one's without and with checkpoints, their ratio, and the longest
gap between a step that saves and its follower beyond the median step (what a snapshot holds up). Rounds alternate both sides, and which
comes first, so that a slow minute hits both; `cpu_share` well below 1 means that something else had the cores: repeat such a run.
A machine whose speed drifts by a percent or two between runs shows little that way; so the cost is also told from within the run that
saves: by how much the steps from a snapshot to the end of its writing took longer than as many of the run's undisturbed ones.
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


def cost_within(steps, written, save_steps):
    """Seconds that checkpoints cost a run beyond its undisturbed steps, and the seconds of those steps (medians), by checkpoint."""
    ends = [moment(e) for e in steps]
    gaps = [b - a for a, b in zip(ends, ends[1:])]
    disturbed = {}
    for w in written:
        first = next((i for i, e in enumerate(steps) if e["step"] == w["step"]), None)
        if first is None or first + 1 >= len(steps):
            continue  # the last one, which no step follows
        disturbed[w["step"]] = [i for i in range(first, len(gaps)) if ends[i] < moment(w)]
    touched = {i for indices in disturbed.values() for i in indices}
    usual = statistics.median(g for i, g in enumerate(gaps) if i not in touched)
    costs = []
    for indices in disturbed.values():
        if not indices or indices[-1] + 1 >= len(gaps):
            continue  # not written before the end
        # The machine's speed drifts: as many undisturbed steps before and after tell what these would have taken.
        n = len(indices)
        near = [g for i, g in enumerate(gaps) if i not in touched and indices[0] - n <= i <= indices[-1] + n]
        costs.append(sum(gaps[i] for i in indices) - n * statistics.mean(near or [usual]))
    return costs, usual * save_steps


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
    within, interval = cost_within(steps, written, save_steps)
    return {"within": within, "interval": interval, "seconds": wall, "step": statistics.median(gaps.values()), "held_up": max(saved, default=0) - statistics.median(gaps.values()),
            "bytes": written[0]["bytes"], "write_seconds": statistics.median(e["seconds"] for e in written),
            "cpu_share": (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / whole / a.threads}


def tell_within(a, within):
    if not within:
        return
    print("within the runs that save, by checkpoint: " + ", ".join(f"{100 * w:.2f}" for w in within) +
          f" % of the {a.every} steps between two; mean {100 * statistics.mean(within):.2f} %" +
          (f" ± {100 * statistics.stdev(within) / len(within) ** 0.5:.2f}" if len(within) > 1 else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ctx", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1, help="of a step")
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--steps", type=int, default=101)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--within", action="store_true", help="only the side that saves, and the cost from within it")
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
        ratios, within = [], []
        if a.within:
            for r in range(a.rounds):
                saving = run(a, work, a.every, f"saving-{r}")
                within += [seconds / saving["interval"] for seconds in saving["within"]]
                print(f"round {r + 1}: a step {saving['step']:.3f} s, held up by a snapshot {saving['held_up']:.3f} s at most; "
                      f"{saving['bytes'] / 1e6:.0f} MB written in {saving['write_seconds']:.2f} s; cpu_share {saving['cpu_share']:.2f}", flush=True)
            tell_within(a, within)
            return
        for r in range(a.rounds):
            sides = {"plain": 1_000_000, "saving": a.every}
            done = {name: run(a, work, sides[name], f"{name}-{r}") for name in (list(sides) if r % 2 == 0 else list(sides)[::-1])}
            plain, saving = done["plain"], done["saving"]
            ratios.append(saving["seconds"] / plain["seconds"])
            within += [seconds / saving["interval"] for seconds in saving["within"]]
            print(f"round {r + 1}: without {plain['seconds']:.2f} s, with {saving['seconds']:.2f} s, ratio {ratios[-1]:.4f}; a step "
                  f"{plain['step']:.3f} s, held up by a snapshot {saving['held_up']:.3f} s; {saving['bytes'] / 1e6:.0f} MB written in "
                  f"{saving['write_seconds']:.2f} s; cpu_share {plain['cpu_share']:.2f} and {saving['cpu_share']:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.4f}: checkpoints every {a.every} steps cost {100 * (statistics.median(ratios) - 1):.2f} % "
              "of the training's time")
        tell_within(a, within)


if __name__ == "__main__":
    main()
