#!/usr/bin/env python3
"""Checks the trainer on a real model, SmolLM2-135M, against transformers and PyTorch.

  check_smollm2.py --trainer build/bin/ll-trainer --model SMOLLM2_DIR --text BOOK.txt [--ctx 4096] [--steps 10] [--json OUT]

perplexity  `ll-trainer eval perplexity` in fp32 equals transformers' to 1e-3 relative.
steps       LoRA+ with S2-Attn on one repeated row of --ctx tokens (learning rate 2e-4, no warm-up): the loss falls by at
            least 2 %, and follows PyTorch step by step: fp32 within 1e-4 relative, bf16 within 2e-2 of PyTorch's own
            bf16 mixed precision (autocast over fp32 weights). The reference starts from the adapter that the trainer initialises, loaded with peft,
            and knows S2-Attn from its definition: every half-group boundary is a segment of plain causal attention.

Exit codes: 0 all hold, 1 one does not. Every number is printed.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import warnings

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, logging
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()


def segments(heads, length, group, head):
    """Where head's queries are cut: whole groups; of the second half of the heads shifted by half a group."""
    cuts = list(range(0, length, group)) if head < heads // 2 else [0] + list(range(group // 2, length, group))
    return list(zip(cuts, cuts[1:] + [length]))


def s2_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    heads, length = query.shape[1:3]
    out = torch.empty_like(query)
    for low, high in ((0, heads // 2), (heads // 2, heads)):
        for begin, end in segments(heads, length, length // 4, low):
            q, k, v = (x[:, low:high, begin:end] for x in (query, key, value))
            out[:, low:high, begin:end] = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("s2_segments", s2_attention)


class Check:
    def __init__(self, a, work):
        self.a, self.work, self.result, self.failures = a, work, {}, []

    def expect(self, holds, text):
        print(("ok    " if holds else "WRONG ") + text, flush=True)
        if not holds:
            self.failures.append(text)

    def trainer(self, *arguments):
        done = subprocess.run([self.a.trainer, *map(str, arguments)], capture_output=True, text=True, timeout=3600)
        if done.returncode != 0:
            sys.exit(f"ll-trainer {arguments[0]} failed ({done.returncode}): {done.stderr[-600:]}")
        return done.stdout

    def tokens(self, count, name):
        """The first `count` tokens of the text, as a token file and as a list."""
        whole = os.path.join(self.work, "text.bin")
        if not os.path.exists(whole):
            self.trainer("pack", self.a.text, "--tokenizer", self.a.model, "--out", whole)
        with open(whole, "rb") as f:
            ids = list(struct.unpack(f"<{count}H", f.read(2 * count)))
        path = os.path.join(self.work, name)
        with open(path, "wb") as f:
            f.write(struct.pack(f"<{count}H", *ids))
        return path, ids

    def load(self, attention):
        return AutoModelForCausalLM.from_pretrained(self.a.model, dtype=torch.float32, attn_implementation=attention)

    # ---- perplexity

    def perplexity(self):
        length, windows = 1024, 4
        path, ids = self.tokens(length * windows, "held.bin")
        ours = json.loads(self.trainer("eval", "perplexity", "--model", self.a.model, "--data", path, "--seq-len", length,
                                       "--sliding-window", length, "--mode", "exact", "--precision", "fp32",
                                       "--threads", self.a.threads))["perplexity"]
        model, total = self.load("sdpa").eval(), 0.0
        with torch.no_grad():
            for row in torch.tensor(ids).view(windows, 1, length):
                total += model(input_ids=row, labels=row).loss.double().item()
        theirs = float(torch.tensor(total / windows, dtype=torch.float64).exp())
        self.result["perplexity"] = {"ours": ours, "transformers": theirs, "relative": abs(ours / theirs - 1)}
        self.expect(abs(ours / theirs - 1) < 1e-3, f"perplexity {ours:.6f}, transformers {theirs:.6f}")

    # ---- training

    def train(self, name, data, **changes):
        spec = {"kind": "train", "model": self.a.model, "data": data, "method": "longlora", "attention": "s2",
                "context_length": self.a.ctx, "original_context_length": self.a.ctx, "warmup_steps": 0,
                "learning_rate": 2e-4, "max_steps": self.a.steps, "global_batch_size": 1, "per_device_batch_size": 1,
                "gradient_accumulation_steps": 1, "save_steps": 0, "logging_steps": 1, "shuffle": False, "seed": 7}
        spec.update(changes)
        path, out = os.path.join(self.work, name + ".json"), os.path.join(self.work, name)
        with open(path, "w") as f:
            json.dump(spec, f)
        events = self.trainer("train", "--spec", path, "--out", out, "--threads", self.a.threads)
        lines = [json.loads(line) for line in events.splitlines() if line.startswith("{")]
        checkpoints = os.path.join(out, "checkpoints")
        newest = os.path.join(checkpoints, sorted(os.listdir(checkpoints))[-1])
        return [e["loss"] for e in lines if e["event"] == "step"], newest

    def reference(self, adapter, ids, bf16):
        model = PeftModel.from_pretrained(self.load("s2_segments"), adapter, is_trainable=True)
        for name, p in model.named_parameters():
            p.requires_grad_("lora_" in name or "embed" in name or "norm" in name)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=2e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
        row, losses = torch.tensor([ids]), []
        for step in range(self.a.steps):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = model(input_ids=row, labels=row).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            print(f"      reference step {step + 1}: {losses[-1]:.5f}", flush=True)
        return losses

    def steps(self):
        data, ids = self.tokens(self.a.ctx, "row.bin")
        # So small a rate leaves every parameter where it was: the checkpoint holds the adapter as initialised.
        _, initial = self.train("initial", data, max_steps=1, learning_rate=1e-30, precision="fp32")
        adapter = os.path.join(initial, "adapter")
        adapter = adapter if os.path.isdir(adapter) else initial
        bf16, _ = self.train("bf16", data, precision="bf16")
        fp32, _ = self.train("fp32", data, precision="fp32")
        torch_bf16 = self.reference(adapter, ids, bf16=True)
        torch_fp32 = self.reference(adapter, ids, bf16=False)
        self.result["losses"] = {"bf16": bf16, "fp32": fp32, "pytorch_bf16": torch_bf16, "pytorch_fp32": torch_fp32}
        print("      step  fp32      PyTorch   bf16      PyTorch")
        for i, row in enumerate(zip(fp32, torch_fp32, bf16, torch_bf16)):
            print("      {:4d}  {:.5f}   {:.5f}   {:.5f}   {:.5f}".format(i + 1, *row))
        for name, losses, reference, tolerance in (("fp32", fp32, torch_fp32, 1e-4), ("bf16", bf16, torch_bf16, 2e-2)):
            fall = 1 - losses[-1] / losses[0]
            worst = max(abs(x / y - 1) for x, y in zip(losses, reference))
            self.result[name] = {"fall": fall, "worst_relative_difference": worst}
            self.expect(len(losses) == self.a.steps and fall >= 0.02, f"{name}: the loss falls by {100 * fall:.2f} %")
            self.expect(worst < tolerance, f"{name}: largest relative difference to PyTorch {worst:.2e} (< {tolerance})")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--ctx", type=int, default=4096)
    ap.add_argument("--steps", type=int, default=10)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--json", help="also write the numbers here")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory(prefix="ll-smollm2-") as work:
        check = Check(a, work)
        check.perplexity()
        check.steps()
    if a.json:
        with open(a.json, "w") as f:
            json.dump(check.result, f, indent=1)
    sys.exit(1 if check.failures else 0)


if __name__ == "__main__":
    main()
