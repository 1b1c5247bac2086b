#!/usr/bin/env python3
"""Times the quantised base: `longqlora` beside `longlora`, each as its method sets it and with the same adapters.

  tests/bench/quantised_base.py --model SMOLLM2_DIR --text BOOK.txt [--ctx 4096] [--rounds 2] [--steps 5] [--json OUT.jsonl]
  tests/bench/quantised_base.py --shape llama-2-7b [--layers 2] …

Rounds go through all jobs in turn; a job's figure is the median over rounds of the median step after the first, its ratio
that to `longlora` of the same rounds. --shape makes a folder of random weights with the layers of that model, --layers of
them, and a vocabulary cut in the same proportion, so that a layer's share of a step is that of the whole model.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOBS = {
    "longlora": {"method": "longlora"},
    "longlora, nf4": {"method": "longlora", "quantization": "nf4"},
    "longlora, fp8": {"method": "longlora", "quantization": "fp8"},
    "longqlora": {"method": "longqlora"},
    "longqlora without dropout": {"method": "longqlora", "lora_dropout": 0},
}
SHAPES = {"llama-2-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
                         "num_key_value_heads": 32, "num_hidden_layers": 32, "vocab_size": 32000}}


def make_model(shape, layers, folder):
    """Run by a Python with transformers; bf16, as published."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    of = dict(SHAPES[shape])
    of["vocab_size"] = of["vocab_size"] * layers // of["num_hidden_layers"]
    of["num_hidden_layers"] = layers
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(LlamaConfig(**of, max_position_embeddings=4096)).save_pretrained(folder)
    return of["vocab_size"]


def run(a, name, model, data, work):
    out, spec = os.path.join(work, "out"), os.path.join(work, "spec.json")
    with open(spec, "w") as f:
        json.dump({"kind": "train", "model": model, "data": data, "context_length": a.ctx,
                   "original_context_length": a.ctx, "precision": "bf16", "recompute": "none", "max_steps": a.steps,
                   "warmup_steps": 0, "learning_rate": 2e-5, "gradient_accumulation_steps": 1, "save_steps": 0,
                   **JOBS[name]}, f)
    done = subprocess.run([a.trainer, "train", "--spec", spec, "--out", out, "--threads", str(a.threads)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=a.timeout)
    if done.returncode != 0:
        sys.exit(f"{name}: ll-trainer ended with {done.returncode}: {done.stderr[-400:]}")
    steps = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "step"][1:]
    shutil.rmtree(out)
    phases = ("forward_seconds", "head_seconds", "backward_seconds")
    return {"job": name, "tokens_per_second": a.ctx / statistics.median(s["step_seconds"] for s in steps),
            "peak_bytes": max(s["peak_bytes"] for s in steps),
            **{p: statistics.median(s[p] for s in steps) for p in phases}}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model")
    ap.add_argument("--text")
    ap.add_argument("--shape", choices=SHAPES)
    ap.add_argument("--layers", type=int, default=2)
    ap.add_argument("--ctx", type=int, default=4096)
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    ap.add_argument("--timeout", type=float, default=3600, help="seconds for one run")
    ap.add_argument("--json", help="append one JSON line a run")
    a = ap.parse_args()
    if (a.shape is None) == (a.model is None or a.text is None):
        ap.error("give --model and --text, or --shape")
    print(f"load average at the start: {os.getloadavg()[0]:.2f}", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory(prefix="ll-bench-") as work:
        data = os.path.join(work, "text.bin")
        if a.shape:
            model = os.path.join(work, "model")
            vocab = make_model(a.shape, a.layers, model)
            import random
            tokens = random.Random(0)
            with open(data, "wb") as f:
                for _ in range(a.ctx * (a.steps + 1)):
                    f.write(tokens.randrange(vocab).to_bytes(2, "little"))
        else:
            model = os.path.abspath(a.model)
            subprocess.run([a.trainer, "pack", a.text, "--tokenizer", model, "--out", data], check=True,
                           stdout=subprocess.DEVNULL)
        for _ in range(a.rounds):
            for name in a.jobs:
                rows.append(run(a, name, model, data, work))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
                if a.json:
                    with open(a.json, "a") as f:
                        f.write(json.dumps({"shape": a.shape, "layers": a.layers, **rows[-1]}) + "\n")
    speed = {n: statistics.median(r["tokens_per_second"] for r in rows if r["job"] == n) for n in a.jobs}
    print("| job | tokens/s | ratio | forward s | backward s | peak GB |\n|---|---|---|---|---|---|")
    for name in a.jobs:
        of = [r for r in rows if r["job"] == name]
        print(f"| {name} | {speed[name]:,.0f} | **{speed[name] / speed[a.jobs[0]]:.2f}** | "
              f"{statistics.median(r['forward_seconds'] for r in of):.2f} | "
              f"{statistics.median(r['backward_seconds'] for r in of):.2f} | {max(r['peak_bytes'] for r in of) / 1e9:.2f} |")


if __name__ == "__main__":
    main()
