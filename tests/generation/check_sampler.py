#!/usr/bin/env python3
"""Compares the sampler's logits with those of transformers' processors and warpers, on random logits.

  check_sampler.py --driver generation_driver [--seed N]
"""
import argparse
import json
import random
import subprocess
import sys

import torch
from transformers import (LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                          TopKLogitsWarper, TopPLogitsWarper)

CASES = 300


def make_case(rng):
    vocab = rng.choice([7, 61, 1000])
    torch.manual_seed(rng.randrange(1 << 31))
    logits = torch.randn(vocab) * rng.choice([0.5, 3, 10])
    if rng.random() < 0.3:
        logits = logits.round()  # many equal ones
    return {"logits": logits.tolist(), "context": [rng.randrange(vocab) for _ in range(rng.randrange(1, 20))],
            "temperature": rng.choice([0.35, 0.6, 1.0, 1.7]), "top_k": rng.choice([0, 1, 5, 50]),
            "top_p": rng.choice([0.05, 0.5, 0.9, 1.0]), "repetition_penalty": rng.choice([0.8, 1.0, 1.3])}


def reference(c, top_p=True):
    steps = LogitsProcessorList()
    if c["repetition_penalty"] != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(c["repetition_penalty"]))
    steps.append(TemperatureLogitsWarper(c["temperature"]))
    if c["top_k"]:
        steps.append(TopKLogitsWarper(c["top_k"]))
    if top_p and c["top_p"] < 1:
        steps.append(TopPLogitsWarper(c["top_p"]))
    return steps(torch.tensor([c["context"]]), torch.tensor([c["logits"]]))[0]


def at_border(c, token):
    """Whether rounding, or the order of equal logits, decides if top_p keeps the token."""
    logits = reference(c, top_p=False).double()
    share, near = torch.softmax(logits, 0), 1e-5 * max(1.0, abs(float(logits[token])))
    above = float(share[logits > logits[token] + near].sum())  # of what is surely in front of it
    alike = float(share[(logits - logits[token]).abs() <= near].sum() - share[token])
    return above - 1e-5 <= c["top_p"] <= above + alike + 1e-5


def problem_of(c, got):
    want = reference(c)
    ours = torch.tensor([float("-inf") if x is None else x for x in got])
    kept, expected = ours > float("-inf"), want > float("-inf")
    both = kept & expected
    if not torch.allclose(ours[both], want[both], rtol=1e-5, atol=1e-6):
        return "other values"
    if torch.equal(kept, expected):
        return None
    if all(at_border(c, t) for t in torch.nonzero(kept != expected).flatten().tolist()):
        return None
    return f"kept {int(kept.sum())} tokens, transformers {int(expected.sum())}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--driver", required=True)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    a = ap.parse_args()
    print(f"seed {a.seed}")
    rng = random.Random(a.seed)
    cases = [make_case(rng) for _ in range(CASES)]
    out = subprocess.run([a.driver], input="".join(json.dumps(c) + "\n" for c in cases), stdout=subprocess.PIPE, text=True,
                         check=True, timeout=300).stdout.splitlines()
    bad = 0
    for c, line in zip(cases, out, strict=True):
        problem = problem_of(c, json.loads(line)["logits"])
        if problem:
            bad += 1
            print({k: v for k, v in c.items() if k not in ("logits", "context")}, problem)
    print(f"{CASES - bad} of {CASES} alike")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
