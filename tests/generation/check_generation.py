#!/usr/bin/env python3
"""Greedy generation, token for token as transformers' generate: tiny random models of every architecture this project
knows, with every scaling of positions, in fp32, for prompts within and beyond the original context.

  check_generation.py --driver generation_driver [--seed N] [--only SUBSTRING]

All prompts of a model go through one cache here; they share prefixes. Where the two likeliest tokens are so close that
rounding decides, the comparison of that prompt ends there, and is counted.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

import torch
from transformers import (AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, logging)

warnings.filterwarnings("ignore")
logging.disable_progress_bar()
logging.set_verbosity_error()
FAMILIES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
ORIGINAL, NEW_TOKENS, VOCABULARY = 32, 24, 97
CLOSE = 1e-4  # of logits of size 1 to 10
ROPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "llama3": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0},
}


def cases():
    for n, model in enumerate(FAMILIES):
        for m, rope in enumerate(ROPES):
            yield f"{model}_{rope}", dict(model=model, rope=rope, kv_heads=[4, 2, 1][(n + m) % 3], tied=(n + m) % 2 == 0)
    yield "mistral_window", dict(model="mistral", rope="default", kv_heads=2, tied=True, window=11)
    yield "mistral_window_linear", dict(model="mistral", rope="linear", kv_heads=2, tied=False, window=40)
    yield "qwen2_some_windows", dict(model="qwen2", rope="default", kv_heads=2, tied=True, window=7, full_layers=1)
    yield "qwen3_windows", dict(model="qwen3", rope="default", kv_heads=2, tied=True, window=7, full_layers=0)


def make_model(c, seed, folder):
    torch.manual_seed(seed)
    shape = dict(vocab_size=VOCABULARY, hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=c["kv_heads"], head_dim=8, initializer_range=0.9 / 48**0.5,
                 max_position_embeddings=ORIGINAL if c["rope"] in ("default", "dynamic") else 4 * ORIGINAL,
                 tie_word_embeddings=c["tied"],
                 rope_parameters={"rope_type": c["rope"], "rope_theta": 10000.0, **ROPES[c["rope"]]})
    if c["model"] == "mistral":
        shape["sliding_window"] = c.get("window")
    elif "window" in c:
        shape |= dict(use_sliding_window=True, sliding_window=c["window"], max_window_layers=c["full_layers"])
    model = AutoModelForCausalLM.from_config(FAMILIES[c["model"]](**shape), dtype=torch.float32)
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data += torch.randn_like(p) * 0.1
        if name.endswith("bias"):
            p.data = torch.randn_like(p) * 0.3
    model.save_pretrained(folder)
    return model.eval()


def make_prompts(rng):
    first = [rng.randrange(VOCABULARY) for _ in range(20)]
    long = first + [rng.randrange(VOCABULARY) for _ in range(70)]
    return [first, long, long[:50] + [5, 6, 7], long[:21], [3]]


def reference(model, prompt):
    # A scaling that depends on the length remembers the longest one: a new prompt, a new table.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    with torch.no_grad():
        out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                             do_sample=False, max_new_tokens=NEW_TOKENS, output_logits=True, return_dict_in_generate=True)
    return out.sequences[0, len(prompt):].tolist(), out.logits


def first_difference(ours, theirs, logits):
    """(index or None, whether it is a close call)"""
    for i, (x, y) in enumerate(zip(ours, theirs)):
        if x != y:
            return i, (logits[i][0, y] - logits[i][0, x]).item() < CLOSE
    return (None, False) if len(ours) == len(theirs) else (min(len(ours), len(theirs)), False)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--driver", required=True)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    ap.add_argument("--only", default="")
    a = ap.parse_args()
    print(f"seed {a.seed}")
    torch.set_num_threads(1)
    rng, bad, close, compared = random.Random(a.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as root:
        todo = [(n, c) for n, c in cases() if a.only in n]
        models = {n: make_model(c, a.seed + i, os.path.join(root, n)) for i, (n, c) in enumerate(todo)}
        prompts = {n: make_prompts(rng) for n, _ in todo}
        lines = [json.dumps({"model": os.path.join(root, n), "prompts": prompts[n], "max_new_tokens": NEW_TOKENS})
                 for n, _ in todo]
        out = subprocess.run([a.driver], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, text=True, check=True,
                             timeout=500).stdout.splitlines()
        for (n, _), line in zip(todo, out, strict=True):
            for prompt, ours in zip(prompts[n], json.loads(line)["ids"], strict=True):
                compared += 1
                at, is_close = first_difference(ours, *reference(models[n], prompt))
                close += is_close
                if at is not None and not is_close:
                    bad += 1
                    print(f"{n}: prompt of {len(prompt)} tokens: new token {at} differs")
    print(f"{compared - bad} of {compared} prompts alike, {close} of them up to a close call")
    sys.exit(1 if bad or close > compared // 20 else 0)


if __name__ == "__main__":
    main()
