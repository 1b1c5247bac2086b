#!/usr/bin/env python3
"""Times perplexity on the CPU beside transformers, and checks that both measure the same.

  tests/bench/perplexity_side_by_side.py --model SMOLLM2_DIR --text BOOK.txt [--seq-len 4096] [--windows 8]
      [--precisions bf16 fp32] [--rounds 2] [--json OUT.jsonl]

Both sides score the same tokens in windows of --seq-len that do not overlap, with the same threads; rounds alternate peer,
ours, …, and a figure is the median over rounds. tokens/s is of the windows alone, without loading. Memory is the process's
peak resident set. The peer keeps no KV cache and takes its loss from the model (`labels`), as its documentation shows.
"""
import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def peer(a):
    """In a process of its own; prints JSON."""
    import numpy
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(a.threads)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[a.precisions[0]]
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa").eval()
    ids = torch.from_numpy(numpy.fromfile(a.text, dtype=numpy.uint16).astype(numpy.int64))
    total, start = 0.0, time.perf_counter()
    with torch.no_grad():
        for w in range(a.windows):
            row = ids[w * a.seq_len:(w + 1) * a.seq_len].unsqueeze(0)
            total += model(row, labels=row, use_cache=False).loss.item()
    seconds = time.perf_counter() - start
    print(json.dumps({"perplexity": math.exp(total / a.windows), "tokens_per_second": a.windows * a.seq_len / seconds,
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def run_peer(a, precision, data):
    done = subprocess.run([a.python, os.path.abspath(__file__), "--as-peer", "--model", a.model, "--text", data, "--precisions",
                           precision, "--threads", str(a.threads), "--windows", str(a.windows), "--seq-len", str(a.seq_len)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=3600, check=True)
    return json.loads(done.stdout)


def run_ours(a, precision, data):
    process = subprocess.Popen([a.trainer, "eval", "perplexity", "--model", a.model, "--data", data, "--seq-len", str(a.seq_len),
                                "--sliding-window", str(a.seq_len), "--mode", "official", "--precision", precision, "--threads",
                                str(a.threads)], stdout=subprocess.PIPE)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit("ll-trainer eval failed")
    result = json.loads(text)
    if result["windows"] != a.windows:
        sys.exit(f"expected {a.windows} windows, found {result['windows']}")
    return {"perplexity": result["perplexity"], "tokens_per_second": a.windows * a.seq_len / result["seconds"],
            "peak_bytes": usage.ru_maxrss * 1024}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--seq-len", type=int, default=4096)
    ap.add_argument("--windows", type=int, default=8)
    ap.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    ap.add_argument("--python", default=os.path.join(ROOT, "build", "venv", "bin", "python"))
    ap.add_argument("--json", help="append one JSON line a run")
    ap.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.as_peer:
        return peer(a)
    print(f"load average at the start: {os.getloadavg()[0]:.2f}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="ll-bench-") as work:
        data = os.path.join(work, "text.bin")
        subprocess.run([a.trainer, "pack", a.text, "--tokenizer", a.model, "--out", data], check=True, stdout=subprocess.DEVNULL)
        wanted = 2 * ((a.windows + 1) * a.seq_len + 1)  # uint16; LongLoRA's protocol leaves out the last window
        if os.path.getsize(data) < wanted:
            sys.exit(f"{a.text} has too few tokens for {a.windows} windows of {a.seq_len}")
        cut = os.path.join(work, "cut.bin")
        with open(data, "rb") as whole, open(cut, "wb") as f:
            f.write(whole.read(wanted))
        print("| precision | peer tokens/s | ours tokens/s | ratio | peer peak GB | ours peak GB | ratio | peer perplexity "
              "| ours |\n|---|---|---|---|---|---|---|---|---|")
        for precision in a.precisions:
            rows = {"peer": [], "ours": []}
            for _ in range(a.rounds):
                for side, measure in (("peer", run_peer), ("ours", run_ours)):
                    rows[side].append(measure(a, precision, cut))
                    if a.json:
                        with open(a.json, "a") as f:
                            f.write(json.dumps({"side": side, "precision": precision, **rows[side][-1]}) + "\n")
            of = {key: {side: statistics.median(r[key] for r in rows[side]) for side in rows}
                  for key in ("tokens_per_second", "peak_bytes", "perplexity")}
            speed, peak, value = of["tokens_per_second"], of["peak_bytes"], of["perplexity"]
            print(f"| {precision} | {speed['peer']:,.0f} | {speed['ours']:,.0f} | **{speed['ours'] / speed['peer']:.2f}** | "
                  f"{peak['peer'] / 1e9:.2f} | {peak['ours'] / 1e9:.2f} | **{peak['ours'] / peak['peer']:.2f}** | "
                  f"{value['peer']:.5f} | {value['ours']:.5f} |", flush=True)
            if precision == "fp32" and abs(math.log(value["ours"] / value["peer"])) > 1e-4:
                sys.exit("the two sides did not measure the same")


if __name__ == "__main__":
    main()
