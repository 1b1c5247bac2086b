#!/usr/bin/env python3
"""How cost grows with context, model, GPUs and hosts, by the planner: the planned half of docs/scaling.md.

  tests/bench/plan_scaling.py [--llctl PATH]      # prints its tables

A row of the global batch has `context` tokens. With GPUs and hosts the batch stays and what each does shrinks (strong scaling), but for the last
table, where it grows with them (weak scaling).
"""
import argparse
import json
import os
import subprocess
import sys

from plan_papers import ROOT, text_of

DEVICE = "H100"  # 80 GB
CONTEXTS = (8192, 32768, 65536, 131072)


def plan(a, model, context, gpus, rows, method="longlora", hosts=1, *more):
    args = [a.llctl, "plan", "--model", model, "--ctx", str(context), "--method", method, "--device", DEVICE, "--hosts", str(hosts),
            "--gpus", str(gpus), "--steps", "1000", "--set", f"global_batch_size={rows}", "-o", "json", *more]
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: {done.stderr}")
    return json.loads(done.stdout)["forecast"]


def row(a, model, context, gpus, rows, **how):
    f = plan(a, model, context, gpus, rows, **how)
    start = f"| {model} | {context:,} | {how.get('hosts', 1)} x {gpus // how.get('hosts', 1)} | {rows} | "
    if f is None:
        return start + "- | - | - | - | refused: does not fit |"
    seconds = f["plan"]["step_seconds"]
    return (start + f"{f['bytes_per_rank'] / 1e9:.1f} | {seconds:.2f} | {rows * context / seconds / 1000:.1f} | "
            f"{rows * context / seconds / gpus:,.0f} | {text_of(f['plan'])} |")


def table(title, lines):
    print(f"{title}\n")
    print("| model | context | hosts x GPUs | rows a step | GB a GPU | step s | 1,000 tokens/s | tokens/s a GPU | plan |")
    print("|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        print(line, flush=True)
    print()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llctl", default=os.path.join(ROOT, "build", "bin", "llctl"))
    a = ap.parse_args()
    table("Context and model, 8 GPUs, LongLoRA:",
          (row(a, model, context, 8, 64) for model in ("7b", "13b", "70b") for context in CONTEXTS))
    table("70B at 128k on 8 GPUs, by method:",
          (row(a, "70b", 131072, 8, 8, method=method).replace("| 70b |", f"| 70b {method} |") for method in ("longlora", "longqlora", "lora", "qlora")))
    table("GPUs and hosts, the same batch of 64 rows:",
          (row(a, model, context, gpus, 64, hosts=max(1, gpus // 8))
           for model, context in (("7b", 32768), ("70b", 32768), ("70b", 131072)) for gpus in (1, 8, 64, 512)))
    table("Hosts, a row a step for each group of 8 GPUs:",
          (row(a, "70b", 131072, gpus, gpus // 8, hosts=gpus // 8) for gpus in (8, 64, 512, 4096, 8192)))


if __name__ == "__main__":
    main()
