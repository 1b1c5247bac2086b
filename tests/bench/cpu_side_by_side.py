#!/usr/bin/env python3
"""Times LongLoRA training on the CPU beside what a user of transformers + peft would run.

  tests/bench/cpu_side_by_side.py --model SMOLLM2_DIR --text BOOK.txt [--peer ../shared/bench/peer_hf_peft.py]
      [--ctx 4096 8192] [--rounds 2] [--steps 4] [--peer-flags=--grad-ckpt] [--json OUT.jsonl] [--markdown OUT.md]

Both sides train the same model on the same text: batch 1, bf16, S2-Attn, LoRA r=8 on q,k,v,o + embedding + norms, AdamW.
Rounds alternate peer, ours, peer, ours, …, so that a slow minute of the machine hits both. A side's figure is the median
over rounds of the median step after the first; memory is the peak resident set of the training process. Without --peer
(or with --only-ours) only our side runs and no ratio is printed. `cpu_share` well below 1 means that something else had
the cores: such a run is marked and should be repeated.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRAINER = os.path.join(ROOT, "build", "bin", "ll-trainer")
PEER = os.path.join(os.path.dirname(ROOT), "shared", "bench", "peer_hf_peft.py")


def log(text):
    print(text, file=sys.stderr, flush=True)


def run_peer(a, ctx):
    command = [a.python, a.peer, "--model", a.model, "--text", a.text, "--ctx", str(ctx), "--attention", "s2",
               "--steps", str(a.steps), "--threads", str(a.threads)] + a.peer_flags.split()
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=a.timeout)
    if out.returncode != 0:
        sys.exit(f"peer failed with exit code {out.returncode}: {out.stdout[-400:]}")
    result = json.loads(out.stdout)
    return {"side": "peer", "ctx": ctx, "tokens_per_second": result["tokens_per_second"],
            "peak_bytes": result["peak_rss_bytes"], "cpu_share": result.get("cpu_share"),
            "step_seconds": result.get("step_seconds")}


def spec_of(a, ctx, data):
    return {"kind": "train", "model": a.model, "data": data, "method": "longlora", "attention": "s2", "context_length": ctx,
            # the model reads more than this already: the benchmark trains at ctx without rescaling positions
            "original_context_length": ctx, "precision": "bf16", "max_steps": a.steps, "warmup_steps": 0,
            "learning_rate": 2e-5, "per_device_batch_size": 1, "gradient_accumulation_steps": 1, "global_batch_size": 1,
            "save_steps": 1_000_000, "logging_steps": 1, "shuffle": False, "seed": 0, "recompute": a.recompute}


def run_ours(a, ctx, data, work):
    out = os.path.join(work, f"out-{ctx}-{time.monotonic_ns()}")
    spec = os.path.join(work, "spec.json")
    with open(spec, "w") as f:
        json.dump(spec_of(a, ctx, data), f)
    started = time.monotonic()
    result = subprocess.run([a.trainer, "train", "--spec", spec, "--out", out, "--threads", str(a.threads)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=a.timeout)
    if result.returncode != 0:
        sys.exit(f"ll-trainer failed with exit code {result.returncode}: {result.stderr[-400:]}")
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    steps = [e for e in events if e["event"] == "step"]
    seconds = [s["step_seconds"] for s in steps[1:]]
    shutil.rmtree(out)
    return {"side": "ours", "ctx": ctx, "tokens_per_second": ctx / statistics.median(seconds),
            "peak_bytes": max(s["peak_bytes"] for s in steps), "step_seconds": [s["step_seconds"] for s in steps],
            "phases": {k: steps[-1][k] for k in steps[-1] if k.endswith("_seconds")},
            "wall_seconds": time.monotonic() - started, "loss": [s["loss"] for s in steps]}


def table(rows, contexts):
    lines = ["| context | peer tokens/s | ours tokens/s | ratio | peer peak GB | ours peak GB | ratio |",
             "|---|---|---|---|---|---|---|"]
    for ctx in contexts:
        of = {side: [r for r in rows if r["ctx"] == ctx and r["side"] == side] for side in ("peer", "ours")}
        cells = [f"{ctx:,}"]
        speed = {s: statistics.median(r["tokens_per_second"] for r in of[s]) if of[s] else None for s in of}
        peak = {s: max(r["peak_bytes"] for r in of[s]) / 1e9 if of[s] else None for s in of}
        for values, digits in ((speed, 0), (peak, 2)):
            for side in ("peer", "ours"):
                cells.append("not measured" if values[side] is None else f"{values[side]:,.{digits}f}")
            both = values["peer"] is not None and values["ours"] is not None
            cells.append(f"{values['ours'] / values['peer']:.2f}" if both else "not measured")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--ctx", type=int, nargs="+", default=[4096, 8192])
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--steps", type=int, default=4)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--peer", default=PEER)
    ap.add_argument("--peer-flags", default="--grad-ckpt")
    ap.add_argument("--only-ours", action="store_true")
    ap.add_argument("--python", default=os.path.join(ROOT, "build", "venv", "bin", "python"))
    ap.add_argument("--trainer", default=TRAINER)
    ap.add_argument("--recompute", default="auto")
    ap.add_argument("--timeout", type=float, default=3600, help="seconds for one run of one side")
    ap.add_argument("--json", help="append one JSON line a run")
    ap.add_argument("--markdown", help="also write the table here")
    a = ap.parse_args()
    a.model, a.text = os.path.abspath(a.model), os.path.abspath(a.text)
    with_peer = not a.only_ours and os.path.isfile(a.peer)
    rows = []
    with tempfile.TemporaryDirectory(prefix="ll-bench-") as work:
        data = os.path.join(work, "text.bin")
        subprocess.run([a.trainer, "pack", a.text, "--tokenizer", a.model, "--out", data], check=True,
                       stdout=subprocess.DEVNULL)
        for ctx in a.ctx:
            for round_number in range(a.rounds):
                for side in (["peer"] if with_peer else []) + ["ours"]:
                    row = run_peer(a, ctx) if side == "peer" else run_ours(a, ctx, data, work)
                    row["round"] = round_number
                    rows.append(row)
                    log(f"{side} at {ctx}: {row['tokens_per_second']:.0f} tokens/s, {row['peak_bytes'] / 1e9:.2f} GB")
                    if a.json:
                        with open(a.json, "a") as f:
                            f.write(json.dumps(row) + "\n")
    text = table(rows, a.ctx)
    print(text)
    if a.markdown:
        with open(a.markdown, "w") as f:
            f.write(text + "\n")


if __name__ == "__main__":
    main()
