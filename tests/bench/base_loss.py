#!/usr/bin/env python3
"""What the format of the frozen base does to the loss: the same training on a base in bf16, in fp8 and in NF4.

  tests/bench/base_loss.py --model SMOLLM2_DIR --text BOOK.txt [--ctx 1024] [--steps 20] [--rows 1] [--seeds 0]

The trainings of a seed run at the same time and see the same rows; the end of the text is held out. Told for each base, mean over
seeds: the loss of some steps and of all, the mean distance of a step's loss from bf16's, and the held-out loss at the end, as the
training computes and with the base in 16 bits.
"""
import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASES = ("none", "fp8", "nf4")


def pack(a, work, name, text):
    path = os.path.join(work, name)
    with open(path + ".txt", "w") as f:
        f.write(text)
    subprocess.run([a.trainer, "pack", path + ".txt", "--tokenizer", a.model, "--out", path], check=True, stdout=subprocess.DEVNULL)
    return path


def held_out(a, data, *more):
    args = [a.trainer, "eval", "perplexity", "--model", a.model, "--data", data, "--seq-len", str(a.ctx), "--sliding-window",
            str(a.ctx), "--mode", "exact", "--precision", "bf16", "--threads", str(a.threads), *more]
    return json.loads(subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout)["nll"]


def run(a, work, base, seed, data, held):
    """(loss of each step, held-out loss as the training computes it, and with the base in 16 bits)."""
    out, spec = os.path.join(work, f"{base}-{seed}"), os.path.join(work, f"{base}-{seed}.json")
    with open(spec, "w") as f:
        json.dump({"model": a.model, "data": data, "eval_data": held, "eval_steps": a.steps, "eval_seq_len": a.ctx, "method": "longlora",
                   "quantization": base, "context_length": a.ctx, "original_context_length": a.ctx, "precision": "bf16", "max_steps": a.steps, "seed": seed,
                   "global_batch_size": a.rows, "warmup_steps": 2, "learning_rate": a.learning_rate, "save_steps": 0}, f)
    done = subprocess.run([a.trainer, "train", "--spec", spec, "--out", out, "--threads", str(a.threads)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{base}: ll-trainer ended with {done.returncode}: {done.stderr[-400:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    losses = [e["loss"] for e in events if e["event"] == "step"]
    within = [e for e in events if e["event"] == "eval"][-1]
    folder = os.path.join(out, "checkpoints")
    adapter = os.path.join(folder, max(n for n in os.listdir(folder) if n.startswith("step-")))
    return losses, within["nll"], held_out(a, held, "--adapter", adapter, "--quantization", "none")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--ctx", type=int, default=1024)
    ap.add_argument("--steps", type=int, default=20)
    ap.add_argument("--rows", type=int, default=1, help="of an optimizer step")
    ap.add_argument("--learning-rate", type=float, default=2e-4)
    ap.add_argument("--held-out", type=int, default=8000, help="characters at the end of the text that are not trained on")
    ap.add_argument("--seeds", type=int, nargs="+", default=[0])
    ap.add_argument("--threads", type=int, default=1, help="of each training")
    ap.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    a = ap.parse_args()
    a.model = os.path.abspath(a.model)
    with open(a.text) as f:
        text = f.read()
    steps = sorted({1, (a.steps + 1) // 2, a.steps})
    with tempfile.TemporaryDirectory(prefix="ll-base-loss-") as work:
        data, held = pack(a, work, "train", text[:-a.held_out]), pack(a, work, "held", text[-a.held_out:])
        print(f"untrained, in 16 bits: held-out loss {held_out(a, held, '--quantization', 'none'):.4f}", flush=True)
        runs = {}
        for seed in a.seeds:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                done = list(pool.map(lambda base: run(a, work, base, seed, data, held), BASES))
            for base, result in zip(BASES, done):
                runs[base, seed] = result
                print(json.dumps({"base": base, "seed": seed, "losses": runs[base, seed][0], "held_out": runs[base, seed][1:]}),
                      file=sys.stderr, flush=True)
    print("| base | " + " | ".join(f"loss of step {s}" for s in steps) + " | of all steps | distance of a step from bf16's | held out | held out, base in 16 bits |")
    print("|---" * (len(steps) + 5) + "|")
    for base in BASES:
        of = [runs[base, seed] for seed in a.seeds]
        mean = [statistics.fmean(r[0][s - 1] for r in of) for s in steps]
        mean.append(statistics.fmean(loss for r in of for loss in r[0]))
        distance = statistics.fmean(abs(x - y) for seed in a.seeds for x, y in zip(runs[base, seed][0], runs["none", seed][0]))
        print(f"| {'bf16' if base == 'none' else base} | " + " | ".join(f"{m:.4f}" for m in mean) +
              f" | {distance:.4f} | {statistics.fmean(r[1] for r in of):.4f} | {statistics.fmean(r[2] for r in of):.4f} |")


if __name__ == "__main__":
    main()
