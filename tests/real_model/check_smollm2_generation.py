#!/usr/bin/env python3
"""Greedy generation of a real model, SmolLM2-135M, token for token as transformers' generate, in fp32: 20 prompts.

  check_smollm2_generation.py --trainer build/bin/ll-trainer --model SMOLLM2_DIR --text BOOK.txt

16 prompts of 1 to 600 tokens as the model is, and 4 with the positions interpolated to twice its context, one of them
longer than the context it was trained for. Each side's tokens come from its own tokenizer. The trainer answers through
`chat`'s JSON lines, one process for all prompts of a kind.
"""
import argparse
import json
import os
import subprocess
import sys
import time
import warnings

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
QUESTIONS = ["The", "The capital of France is", "Once upon a time, ", "def fibonacci(n):\n", "In 1969, two men ",
             "Water boils at", "La vie est", "1, 2, 3, 4,", "Q: What is the largest planet?\nA:", "ünïcödé ☃ and"]
LENGTHS = [20, 50, 120, 250, 400, 600]  # tokens of the book, about
EXTENDED_LENGTHS = [30, 300, 2100]


def cut(tokenizer, text, tokens, offset):
    """About `tokens` tokens of the text, whole words."""
    piece = text[offset:offset + 8 * tokens]
    ids = tokenizer(piece)["input_ids"][:tokens]
    return tokenizer.decode(ids).rsplit(" ", 1)[0]


def ask_trainer(a, prompts, new_tokens, *flags):
    lines = "".join(json.dumps({"prompt": p, "max_new_tokens": new_tokens}) + "\n" for p in prompts)
    done = subprocess.run([a.trainer, "chat", "--model", a.model, "--temperature", "0", "--precision", "fp32",
                           "--threads", str(a.threads), *flags], input=lines, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=1800)
    answers = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] != "token"]
    if done.returncode != 0 or any(e["event"] == "error" for e in answers):
        sys.exit(f"ll-trainer chat failed ({done.returncode}): {answers} {done.stderr[-600:]}")
    return answers


def compare(a, tokenizer, model, prompts, new_tokens, answers):
    bad = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        row = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**row, do_sample=False, max_new_tokens=new_tokens, use_cache=True)
        theirs = out[0, row["input_ids"].shape[1]:].tolist()
        same = theirs == answer["ids"] and answer["prompt_tokens"] == row["input_ids"].shape[1]
        bad += not same
        print(f"{'ok    ' if same else 'WRONG '} {answer['prompt_tokens']:5d} tokens + {len(theirs)}: "
              f"{prompt[-24:]!r} -> {answer['text'][:40]!r}", flush=True)
        if not same:
            print(f"       ours {answer['ids']}\n       theirs {theirs}")
    return bad


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    start = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    with open(a.text, encoding="utf-8") as f:
        text = f.read()
    config = AutoConfig.from_pretrained(a.model)
    context = config.max_position_embeddings

    prompts = QUESTIONS + [cut(tokenizer, text, n, 1000 * n) for n in LENGTHS[:1]] + \
        [cut(tokenizer, text, n, 300 * n) for n in LENGTHS[1:]]
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    bad = compare(a, tokenizer, model, prompts, 32, ask_trainer(a, prompts, 32))

    extended = [cut(tokenizer, text, n, 50 * n) for n in EXTENDED_LENGTHS + [context + 150]]
    config.rope_parameters = {**config.rope_parameters, "rope_type": "linear", "factor": 2.0}
    config.max_position_embeddings = 2 * context
    model = AutoModelForCausalLM.from_pretrained(a.model, config=config, dtype=torch.float32, attn_implementation="sdpa").eval()
    answers = ask_trainer(a, extended, 16, "--context-size", str(2 * context), "--rope", "linear")
    bad += compare(a, tokenizer, model, extended, 16, answers)
    if not any(e["prompt_tokens"] > context for e in answers):
        bad += 1
        print("WRONG  no prompt is longer than the original context")
    print(f"{len(prompts) + len(extended)} prompts, {bad} wrong, {time.monotonic() - start:.0f} s")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
