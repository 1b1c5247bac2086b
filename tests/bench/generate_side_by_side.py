#!/usr/bin/env python3
"""Times generation on the CPU, batch 1, beside transformers' generate.

  tests/bench/generate_side_by_side.py --model SMOLLM2_DIR --text BOOK.txt [--prompt-tokens 32 2048] [--new-tokens 128]
      [--precisions bf16 fp32] [--rounds 3] [--json OUT.jsonl]

Both sides continue the same text greedily with a KV cache and the same threads. Rounds alternate peer, ours, …; a figure is
the median over rounds. tokens/s: of the new tokens behind the first; prefill: seconds until the first. The peer generates
once to warm up, which ours, a fresh process each time, does not. Memory is the process's peak resident set.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def peer(a):
    """In a process of its own; prints JSON."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    torch.set_num_threads(a.threads)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[a.precisions[0]]
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    with open(a.text, encoding="utf-8") as f:
        row = AutoTokenizer.from_pretrained(a.model)(f.read(), return_tensors="pt")

    def seconds(new_tokens):
        start = time.perf_counter()
        with torch.no_grad():
            model.generate(**row, do_sample=False, max_new_tokens=new_tokens)
        return time.perf_counter() - start

    seconds(4)
    prefill = seconds(1)
    decode = seconds(a.new_tokens) - prefill
    print(json.dumps({"prompt_tokens": row["input_ids"].shape[1], "prefill_seconds": prefill,
                      "tokens_per_second": (a.new_tokens - 1) / decode,
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def run_peer(a, precision, prompt):
    done = subprocess.run([a.python, os.path.abspath(__file__), "--as-peer", "--model", a.model, "--text", prompt,
                           "--precisions", precision, "--new-tokens", str(a.new_tokens), "--threads", str(a.threads)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=3600, check=True)
    return json.loads(done.stdout)


def run_ours(a, precision, prompt):
    process = subprocess.Popen([a.trainer, "generate", "--model", a.model, "--prompt-file", prompt, "--precision", precision,
                                "--max-new-tokens", str(a.new_tokens), "--ignore-eos", "--json", "--threads",
                                str(a.threads)], stdout=subprocess.PIPE)
    result = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit("ll-trainer generate failed")
    return result | {"peak_bytes": usage.ru_maxrss * 1024}


def write_prompt(a, tokens, path):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    with open(a.text, encoding="utf-8") as f:
        ids = tokenizer(f.read(12 * tokens))["input_ids"][:tokens]
    with open(path, "w", encoding="utf-8") as f:
        f.write(tokenizer.decode(ids))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--prompt-tokens", type=int, nargs="+", default=[32, 2048])
    ap.add_argument("--new-tokens", type=int, default=128)
    ap.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    ap.add_argument("--python", default=os.path.join(ROOT, "build", "venv", "bin", "python"))
    ap.add_argument("--json", help="append one JSON line a run")
    ap.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.as_peer:
        return peer(a)
    print(f"load average at the start: {os.getloadavg()[0]:.2f}", file=sys.stderr)
    print("| precision | prompt | peer tokens/s | ours tokens/s | ratio | peer prefill s | ours prefill s | peer peak GB "
          "| ours peak GB |\n|---|---|---|---|---|---|---|---|---|")
    for precision in a.precisions:
        for tokens in a.prompt_tokens:
            prompt = f"/tmp/ll-generate-bench-{os.getpid()}.txt"
            write_prompt(a, tokens, prompt)
            rows = {"peer": [], "ours": []}
            for _ in range(a.rounds):
                for side, run in (("peer", run_peer), ("ours", run_ours)):
                    rows[side].append(run(a, precision, prompt))
                    if a.json:
                        with open(a.json, "a") as f:
                            f.write(json.dumps({"side": side, "precision": precision, **rows[side][-1]}) + "\n")
            os.remove(prompt)
            of = {key: {side: statistics.median(r[key] for r in rows[side]) for side in rows}
                  for key in ("tokens_per_second", "prefill_seconds", "peak_bytes", "prompt_tokens")}
            speed, prefill, peak = of["tokens_per_second"], of["prefill_seconds"], of["peak_bytes"]
            print(f"| {precision} | {of['prompt_tokens']['ours']:,.0f} | {speed['peer']:.1f} | {speed['ours']:.1f} | "
                  f"**{speed['ours'] / speed['peer']:.2f}** | {prefill['peer']:.2f} | {prefill['ours']:.2f} | "
                  f"{peak['peer'] / 1e9:.2f} | {peak['ours'] / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
