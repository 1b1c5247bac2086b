#!/usr/bin/env python3
"""The papers' trainings on the papers' machines: what the planner forecasts beside what was published.

  tests/bench/plan_papers.py [--llctl PATH]      # prints the tables of docs/planning.md

Published: Chen et al. 2023 (LongLoRA, 8 x A100-80, 1,000 steps of 64 rows; hours and GB a GPU) and Yang 2023 (LongQLoRA, one
32 GB V100). "As they ran it": everything recomputed, data-parallel alone, which is what their code does; "planned": what the
planner chooses. The difference is divided into what can be counted: recomputation that the plan avoids, logits that they hold
whole (bf16, an fp32 copy and its gradient: 10 bytes a token and word), the MLP's and the norms' tensors that they hold for a whole
row where ours are of a tile, and the rest, which is kernels (time) and buffers of eager execution (memory).
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VOCAB, WIDTH, MLP_WIDTH = 32000, 4096, 11008
TILE = 8192  # tokens (kTileTokens)
# method -> context -> (hours, GB a GPU)
LONGLORA_7B = {
    "full": {8192: (7.4, 46.3), 16384: (16.3, 57.4), 32768: (39.8, 68.8), 65536: (None, None)},
    "lora": {8192: (6.0, 25.7), 16384: (14.0, 34.7), 32768: (36.5, 46.5), 65536: (92.5, 71.1)},
    "longlora": {8192: (5.2, 25.6), 16384: (11.3, 34.6), 32768: (24.6, 46.4), 65536: (52.4, 69.8)},
}
LARGEST = [("7b", 100000, "longlora"), ("13b", 65536, "longlora"), ("70b", 32768, "longlora"), ("7b", 8192, "longqlora"),
           ("7b", 12288, "longqlora"), ("13b", 8192, "longqlora"), ("13b", 12288, "longqlora")]
MACHINES = [("A100-80", 8), ("H100", 8), ("H200", 1), ("GeForce RTX 5090", 1), ("V100-32", 1)]


def plan(a, model, context, method, device, gpus, *more):
    rows = 16 if method == "longqlora" else 64
    args = [a.llctl, "plan", "--model", model, "--ctx", str(context), "--method", method, "--device", device, "--gpus", str(gpus),
            "--steps", "1000", "--set", f"global_batch_size={rows}", "-o", "json", *more]
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: {done.stderr}")
    return json.loads(done.stdout)["forecast"]


def hours(f):
    return f["duration_seconds"] / 3600


def text_of(run):
    parts = [f"data {run['data_parallel']}"] if run["gpus"] > 1 else []
    if run["context_parallel"] > 1:
        parts.append(f"context {run['context_parallel']}")
    if run["zero_stage"]:
        parts.append(f"ZeRO {run['zero_stage']}")
    if run["shard_base"]:
        parts.append("sharded base")
    if run["activation_offload"]:
        parts.append("offload")
    return ", ".join([*parts, f"recompute {run['recompute']}"])


def number(value, digits=1):
    return "-" if value is None else f"{value:.{digits}f}"


def published(a):
    print("| method | context | published h | as they ran it h | kernels h | planned h | published GB | as they ran it GB | "
          "their logits GB | their whole rows GB | rest GB | plan |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for method, rows in LONGLORA_7B.items():
        for context, (hour, gigabytes) in rows.items():
            # Their ZeRO-2 divides what full fine-tuning trains; their LoRA runs gain little by it.
            same = plan(a, "7b", context, method, "A100-80", 8, "--recompute", "full", "--context-parallel", "1",
                        *(["--zero-stage", "2"] if method == "full" else ["--zero-stage", "0"]))
            best = plan(a, "7b", context, method, "A100-80", 8)
            logits = context * VOCAB * 10 / 1e9
            # Gate, up, their product and its gradient; a norm, its gradient and its input. bf16.
            rows_whole = 2 * (4 * MLP_WIDTH + 3 * WIDTH) * (context - TILE) / 1e9
            memory = same and same["bytes_per_rank"] / 1e9
            print(f"| {method} | {context:,} | {number(hour)} | {number(same and hours(same))} | "
                  f"{number(hour - hours(same) if hour and same else None)} | {number(best and hours(best))} | {number(gigabytes)} | "
                  f"{number(memory)} | {number(logits)} | {number(rows_whole)} | "
                  f"{number(gigabytes - memory - logits - rows_whole if gigabytes and memory else None)} | "
                  f"{text_of(best['plan']) if best else 'refused'} |")


def largest(a):
    print("| model | context | method | machine | GB a GPU | step s | hours | plan |")
    print("|---|---|---|---|---|---|---|---|")
    for model, context, method in LARGEST:
        for device, gpus in MACHINES:
            if (method == "longqlora") != (device in ("GeForce RTX 5090", "V100-32")) and device != "H200":
                continue
            f = plan(a, model, context, method, device, gpus)
            if f is None:
                print(f"| {model} | {context:,} | {method} | {gpus} x {device} | - | - | - | refused |")
                continue
            remark = " (unsupported: needs sm_80+)" if device == "V100-32" else ""
            print(f"| {model} | {context:,} | {method} | {gpus} x {device}{remark} | {f['bytes_per_rank'] / 1e9:.1f} | "
                  f"{f['plan']['step_seconds']:.1f} | {hours(f):.1f} | {text_of(f['plan'])} |")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llctl", default=os.path.join(ROOT, "build", "bin", "llctl"))
    a = ap.parse_args()
    published(a)
    print()
    largest(a)


if __name__ == "__main__":
    main()
