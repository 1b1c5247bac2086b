#!/usr/bin/env python3
"""Compares the C++ model with transformers + peft in fp32: logits, loss, every gradient.

  check_parity.py --driver parity_driver [--seed N]

The reference is transformers' own LlamaForCausalLM with peft's LoRA. Attention goes through an attention function that
applies a dense mask taken literally from the definition of S2-Attn. Every run draws a new seed and prints it.
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
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, logging
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

warnings.filterwarnings("ignore")
logging.disable_progress_bar()
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = QKVO + ["gate_proj", "up_proj", "down_proj"]
BASE = dict(heads=4, kv_heads=4, head_dim=8, tokens=64, attention="s2", wrap="split", group_tokens=16, documents=[],
            method="longlora", rank=4, alpha=8, targets=QKVO, rslora=False, recompute="none", tied=True, rope=None)
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
CASES = {
    "full_attention": dict(attention="full"),
    "s2": {},
    "s2_9_heads_3_kv": dict(heads=9, kv_heads=3),
    "s2_64_heads_8_kv": dict(heads=64, kv_heads=8, head_dim=4),
    "s2_odd_length": dict(heads=9, kv_heads=3, tokens=53, group_tokens=13),
    "s2_documents": dict(heads=9, kv_heads=3, tokens=53, group_tokens=13, documents=[[0, 1], [1, 20], [20, 53]]),
    "short": dict(attention="short", tokens=53, group_tokens=13),
    "roll": dict(heads=9, kv_heads=3, wrap="roll"),
    "all_linear_rslora": dict(targets=ALL, method="lora", rslora=True, recompute="selective"),
    "lora_untied": dict(method="lora", tied=False),
    "longlora_untied_recompute": dict(tied=False, recompute="full"),
    "full_tied": dict(method="full"),
    "full_untied": dict(method="full", tied=False, heads=8, kv_heads=2),
    "rope_linear": dict(rope=LINEAR),
    "rope_yarn": dict(rope=YARN, attention="full"),
    "rope_llama3": dict(rope=LLAMA3, attention="full"),
}
MASK = None  # [H, N, N], set for each case


def masked_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    scores = query @ key.transpose(2, 3) * scaling
    weights = scores.masked_fill(~MASK[None], float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("masked", masked_attention)


def mask_of(c):
    """True where query t of head h sees key u; written from the definition, one pair at a time per head half."""
    n, g = c["tokens"], c["group_tokens"]
    mask = torch.zeros(c["heads"], n, n, dtype=torch.bool)
    t = torch.arange(n)
    for start, end in c["documents"] or [[0, n]]:
        inside = (t >= start) & (t < end)
        both = inside[:, None] & inside[None, :]
        for h in range(c["heads"]):
            position = t - start
            group = torch.zeros(n, dtype=torch.long) if c["attention"] == "full" else position.div(g, rounding_mode="floor")
            if c["attention"] == "s2" and h >= c["heads"] // 2:
                if c["wrap"] == "roll":
                    position = (position - g // 2) % n
                    group = position // g
                else:
                    group = (position + g - g // 2).div(g, rounding_mode="floor")
            mask[h] |= both & (group[:, None] == group[None, :]) & (position[None, :] <= position[:, None])
    return mask


def reference_model(c, seed):
    torch.manual_seed(seed)
    hidden = c["heads"] * (c["head_dim"] + 2)
    config = LlamaConfig(vocab_size=97, hidden_size=hidden, intermediate_size=72, num_hidden_layers=3,
                         num_attention_heads=c["heads"], num_key_value_heads=c["kv_heads"], head_dim=c["head_dim"],
                         max_position_embeddings=128, tie_word_embeddings=c["tied"], initializer_range=0.9 / hidden**0.5,
                         attn_implementation="masked", dtype=torch.float32,
                         **({"rope_parameters": c["rope"]} if c["rope"] else {}))
    model = LlamaForCausalLM(config)
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data += torch.randn_like(p) * 0.1
    return model


def name_of(peft_name):
    return peft_name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", "")


def train_reference(c, model):
    if c["method"] == "full":
        return model
    model = get_peft_model(model, LoraConfig(r=c["rank"], lora_alpha=c["alpha"], target_modules=c["targets"],
                                             use_rslora=c["rslora"], task_type="CAUSAL_LM"))
    for name, p in model.named_parameters():
        if "lora_B" in name:  # zero at first: nothing would flow into A
            p.data = torch.randn_like(p) * 0.1
        if c["method"] == "longlora" and ("embed" in name or "norm" in name):
            p.requires_grad_(True)
    return model


def run_case(name, c, seed, driver, folder):
    global MASK
    model = reference_model(c, seed)
    model.save_pretrained(folder)
    model = train_reference(c, model)
    model.train()
    MASK = mask_of(c)
    tokens = torch.randint(0, 97, (c["tokens"],))
    labels = torch.randint(0, 97, (c["tokens"],))
    labels[torch.rand(c["tokens"]) < 0.2] = -100
    trained = {name_of(n): p for n, p in model.named_parameters() if p.requires_grad}
    tensors = {n: p.detach().clone().contiguous() for n, p in trained.items()}
    save_file(tensors | {"tokens": tokens, "labels": labels}, f"{folder}/in.safetensors")
    with open(f"{folder}/options.json", "w") as f:
        json.dump(c, f)
    subprocess.run([driver, folder, f"{folder}/in.safetensors", f"{folder}/options.json", f"{folder}/out.safetensors"],
                   check=True, timeout=120)
    got = load_file(f"{folder}/out.safetensors")

    logits = model(tokens[None], position_ids=torch.arange(c["tokens"])[None], use_cache=False).logits[0]
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    nll.sum().backward()
    problems = []

    def compare(what, ours, theirs, size=None):
        error = (ours.double() - theirs.double()).abs().max().item()
        scale = theirs.abs().max().item() if size is None else size
        if not error <= 1e-5 * max(scale, 1.0):
            problems.append(f"{what}: differs by {error:.2e} (size {scale:.2e})")

    if "logits" in got:
        compare("logits", got["logits"], logits.detach())
    compare("nll", got["nll"], nll.detach())
    compare("loss", got["loss"], nll.sum().detach()[None])
    missing = set(trained) ^ {n.removeprefix("grad:") for n in got if n.startswith("grad:")}
    if missing:
        problems.append(f"trained on one side only: {sorted(missing)}")
    for n, p in trained.items():
        if n not in missing:
            compare(f"gradient of {n}", got["grad:" + n], p.grad)
            if not p.grad.abs().max() > 1e-6:
                problems.append(f"gradient of {n} is zero: the case does not exercise it")
    print(f"{'ok  ' if not problems else 'FAIL'} {name}: {len(trained)} gradients", flush=True)
    for p in problems[:8]:
        print(f"     {p}")
    return not problems


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--driver", required=True)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    a = ap.parse_args()
    torch.set_num_threads(1)
    print(f"seed {a.seed}")
    passed = 0
    for name, changes in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            passed += run_case(name, BASE | changes, a.seed, os.path.abspath(a.driver), folder)
    print(f"{passed} passed, {len(CASES) - passed} failed")
    return 0 if passed == len(CASES) else 1


if __name__ == "__main__":
    sys.exit(main())
