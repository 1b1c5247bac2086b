#!/usr/bin/env python3
"""Prints the demo's table and loss curve from the jobs' own JSON and writes result.json. Exit 1 if perplexity did not fall."""
import json
import os
import sys


def load(work, name):
    with open(os.path.join(work, name)) as f:
        return json.load(f)


def curve(steps, width=64, height=10):
    """The loss by step as text: one column is the mean of a bucket of steps."""
    losses = [s["loss"] for s in steps]
    columns = min(width, len(losses))
    buckets = [losses[i * len(losses) // columns:(i + 1) * len(losses) // columns] for i in range(columns)]
    means = [sum(b) / len(b) for b in buckets]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    level = [round((m - low) / span * (height - 1)) for m in means]
    rows = []
    for y in range(height - 1, -1, -1):
        label = f"{low + span * y / (height - 1):7.3f}" if y in (0, height - 1) else " " * 7
        rows.append(label + " |" + "".join("*" if v == y else " " for v in level))
    rows.append(" " * 8 + "+" + "-" * columns + f"  step {steps[0]['step']} to {steps[-1]['step']}")
    return "\n".join(rows)


def main():
    work = sys.argv[1]
    at_256, before, after = (load(work, f"eval-{n}.json") for n in ("256", "before", "after"))
    job = load(work, "job.json")
    steps = job["steps"]
    speeds = sorted(s["tokens_per_second"] for s in steps)
    result = {
        "ppl_base_at_256": at_256["perplexity"],
        "ppl_before": before["perplexity"],
        "ppl_after": after["perplexity"],
        "tokens_per_second": speeds[len(speeds) // 2],
        "steps": steps[-1]["step"],
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "job_id": job["job_id"],
        "eval_job_ids": [e["job_id"] for e in (at_256, before, after)],
    }
    print("loss of the extension job")
    print(curve(steps))
    print()
    print("perplexity on held-out text, full attention")
    for text, value in (("base, reading 256 (what it was trained for)", result["ppl_base_at_256"]),
                        ("base, reading 1024 untuned (Position Interpolation x4)", result["ppl_before"]),
                        ("extended with S2-Attn + LoRA+, reading 1024", result["ppl_after"])):
        print(f"  {text:<56} {value:8.2f}")
    print(f"\n{result['steps']} steps on two ranks, {result['tokens_per_second']:.0f} tokens/s (median), job {result['job_id']}")
    path = os.path.join(work, "result.json")
    with open(path + ".tmp", "w") as f:
        json.dump(result, f, indent=1)
    os.replace(path + ".tmp", path)
    print(f"written: {os.path.relpath(path)}")
    if not result["ppl_after"] < result["ppl_before"]:
        sys.exit("demo: perplexity did not fall")


if __name__ == "__main__":
    main()
