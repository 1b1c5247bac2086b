#!/usr/bin/env python3
"""Quantised folders in both directions: transformers + bitsandbytes load ours, ll-trainer loads theirs.

  check_folder.py --trainer build/bin/ll-trainer [--seed N]

Codes, scales and state of every linear layer are compared byte for byte where both sides wrote one, and the perplexity of one
folder, read by both programs, to 1e-5. Every run draws a new seed and prints it.
"""
import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import warnings

import bitsandbytes
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, logging

warnings.filterwarnings("ignore")
logging.disable_progress_bar()
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                         bnb_4bit_compute_dtype=torch.float32)
SEQ_LEN = 64


def trainer_nll(trainer, model, data, *more):
    done = subprocess.run([trainer, "eval", "perplexity", "--model", model, "--data", data, "--seq-len", str(SEQ_LEN),
                           "--sliding-window", str(SEQ_LEN), "--mode", "exact", "--precision", "fp32", *more],
                          capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"ll-trainer ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)["nll"]


def transformers_nll(folder, rows):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu").eval()
    # bitsandbytes' CPU product rounds the scales to bf16; what the bytes mean are its dequantised weights.
    for name, module in list(model.named_modules()):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            dense = torch.nn.Linear(module.in_features, module.out_features, bias=False)
            dense.weight.data = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            model.set_submodule(name, dense)
    with torch.no_grad():
        total = 0.0
        for row in rows:
            logits = model(row[None]).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum").item()
    return total / (len(rows) * (rows.shape[1] - 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    a = ap.parse_args()
    print(f"seed {a.seed}")
    torch.manual_seed(a.seed)
    torch.set_num_threads(1)
    problems = []
    with tempfile.TemporaryDirectory(prefix="ll-nf4-") as work:
        config = LlamaConfig(vocab_size=211, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                             num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, dtype=torch.float32,
                             tie_word_embeddings=False)
        LlamaForCausalLM(config).save_pretrained(f"{work}/base")
        rows = torch.randint(0, 211, (4, SEQ_LEN))
        rows.numpy().astype("<u2").tofile(f"{work}/data.bin")
        subprocess.run([a.trainer, "quantize", "--model", f"{work}/base", "--out", f"{work}/ours"], check=True, timeout=120)
        AutoModelForCausalLM.from_pretrained(f"{work}/base", quantization_config=NF4, device_map="cpu",
                                             dtype=torch.float32).save_pretrained(f"{work}/theirs")
        ours, theirs = load_file(f"{work}/ours/model.safetensors"), load_file(f"{work}/theirs/model.safetensors")
        if set(ours) != set(theirs):
            problems.append(f"tensors on one side only: {sorted(set(ours) ^ set(theirs))[:4]}")
        for name in sorted(set(ours) & set(theirs)):
            if "quant_state" in name:
                states = [json.loads(bytes(t.numpy()).decode()) for t in (ours[name], theirs[name])]
                offsets = [state.pop("nested_offset") for state in states]
                if states[0] != states[1]:
                    problems.append(f"{name}: {states[0]} against {states[1]}")
                if abs(offsets[0] - offsets[1]) > 2 * 2.0**-23 * abs(offsets[1]):
                    problems.append(f"{name}: nested_offset {offsets[0]} against {offsets[1]}")
            elif name.endswith("nested_absmax"):  # follows the offset
                if not torch.allclose(ours[name], theirs[name], rtol=1e-5):
                    problems.append(f"{name} differs")
            elif name.endswith(".absmax"):  # see check_nf4.py: the CPU build's table may name the neighbour
                # Neighbours, or, near zero where the map's entries stand closer than the table's, within one of its steps.
                codes = [side[name].flatten().long() for side in (ours, theirs)]
                values = [theirs[name.replace(".absmax", ".nested_quant_map")][c] for c in codes]
                far = ((codes[0] - codes[1]).abs() > 1) & ((values[0] - values[1]).abs() > 2 / 65536)
                if far.any():
                    problems.append(f"{name} differs by more than one code")
            elif not torch.equal(ours[name], theirs[name]):
                problems.append(f"{name} differs")
        for folder in ("ours", "theirs"):
            here, there = trainer_nll(a.trainer, f"{work}/{folder}", f"{work}/data.bin"), transformers_nll(f"{work}/{folder}", rows)
            print(f"{folder}: nll {here:.6f} here, {there:.6f} with transformers")
            if not math.isclose(here, there, rel_tol=1e-5):
                problems.append(f"{folder}: nll {here} here, {there} with transformers")
        dense, kept = (trainer_nll(a.trainer, f"{work}/ours", f"{work}/data.bin", "--quantization", q) for q in ("none", "nf4"))
        if not math.isclose(dense, kept, rel_tol=1e-6):
            problems.append(f"dequantised once {dense}, for each use {kept}")
    for problem in problems:
        print(f"WRONG {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
