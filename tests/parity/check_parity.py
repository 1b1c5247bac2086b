#!/usr/bin/env python3
"""Compares the C++ model with transformers + peft in fp32: logits, loss, every gradient, steps of AdamW, saved folders.

  check_parity.py --driver parity_driver [--seed N] [--only SUBSTRING]

The reference is transformers' own model of each architecture with peft's LoRA. Full attention over one document is
transformers' eager attention; otherwise a dense mask is applied, taken literally from the definition of S2-Attn.
Contexts are extended by the C++ side; the reference reads the config it wrote, and says itself what must stand in it.
What the C++ side saved after training is loaded by transformers or peft and must give the same logits.
Every run draws a new seed and prints it.
"""
import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config,
                          logging)
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

warnings.filterwarnings("ignore")
logging.disable_progress_bar()
logging.set_verbosity_error()
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = QKVO + ["gate_proj", "up_proj", "down_proj"]
STEPS = 10
# With 1e-8 AdamW moves an element whose gradient is all rounding by a whole lr, in a direction that rounding picked. This is far
# above the rounding and far below the gradients, so that both sides must agree in every element.
EPS = 1e-5
ORIGINAL = 32  # context of every base model here
BASE = dict(model="llama", heads=4, kv_heads=4, head_dim=8, tokens=64, attention="s2", wrap="split", group_tokens=16,
            documents=[], method="longlora", rank=4, alpha=8, targets=QKVO, rslora=False, recompute="none", tied=True,
            extend=[], window=None, window_layers=0, pad=None, lr=1e-3, beta1=0.9, beta2=0.95, eps=EPS, weight_decay=0.1,
            grad_scale=1 / 64, layers=3)
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
    "qwen3_all_linear_recompute": dict(model="qwen3", kv_heads=2, targets=ALL, recompute="full", tokens=53,
                                       group_tokens=13),
    "qwen2_all_linear_documents": dict(model="qwen2", kv_heads=2, targets=ALL, tokens=53, group_tokens=13,
                                       documents=[[0, 20], [20, 53]]),
    "window_mistral_full": dict(model="mistral", heads=6, kv_heads=2, attention="full", window=11, tokens=53),
    "window_mistral_s2": dict(model="mistral", heads=9, kv_heads=3, window=11, tokens=53, group_tokens=26),
    "window_mistral_wider_than_groups": dict(model="mistral", window=16),
    "window_qwen2_some_layers": dict(model="qwen2", kv_heads=2, attention="full", window=7, window_layers=1),
    "window_qwen3_all_layers": dict(model="qwen3", kv_heads=2, attention="full", window=7, method="full"),
    "pad_token": dict(attention="full", pad=5),
    "pad_token_full_untied_negative": dict(attention="full", method="full", tied=False, pad=-1),
    "extended_twice": dict(extend=[["yarn", 2 * ORIGINAL], ["yarn", 4 * ORIGINAL]], attention="full"),
}
ROPES = ["none", "linear", "ntk", "dynamic", "yarn", "llama3"]


def cross_product():
    """Each architecture x scaling of positions x tied or not x MHA or GQA; methods and attention take turns."""
    n = 0
    for model in ("llama", "mistral", "qwen2", "qwen3"):
        for rope in ROPES:
            for tied in (True, False):
                for kv_heads in (4, 2):
                    name = f"{model}_{rope}_{'tied' if tied else 'untied'}_{'mha' if kv_heads == 4 else 'gqa'}"
                    yield name, dict(model=model, kv_heads=kv_heads, tied=tied, tokens=53, group_tokens=13, layers=2,
                                     extend=[] if rope == "none" else [[rope, 4 * ORIGINAL]],
                                     method=["longlora", "full", "lora"][n % 3], attention=["full", "s2"][n // 3 % 2])
                    n += 1


MASK = None  # [H, N, N], set for each case


def masked_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, **_):
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    scores = query @ key.transpose(2, 3) * scaling
    mask = MASK
    if sliding_window is not None:
        t = torch.arange(mask.shape[1])
        mask = mask & (t[None, :] > t[:, None] - sliding_window)
    weights = scores.masked_fill(~mask[None], float("-inf")).softmax(-1)
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


def attention_of(c):
    return "eager" if c["attention"] == "full" and not c["documents"] else "masked"


def base_model(c, seed):
    torch.manual_seed(seed)
    hidden = c["heads"] * (c["head_dim"] + 2)
    shape = dict(vocab_size=97, hidden_size=hidden, intermediate_size=72, num_hidden_layers=c["layers"],
                 num_attention_heads=c["heads"], num_key_value_heads=c["kv_heads"], head_dim=c["head_dim"],
                 max_position_embeddings=ORIGINAL if c["extend"] else 128, tie_word_embeddings=c["tied"],
                 initializer_range=0.9 / hidden**0.5, pad_token_id=c["pad"], attn_implementation=attention_of(c), dtype=torch.float32)
    if c["model"] == "mistral":
        shape["sliding_window"] = c["window"]
    elif c["window"]:
        shape |= dict(use_sliding_window=True, sliding_window=c["window"], max_window_layers=c["window_layers"])
    family = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[c["model"]]
    model = AutoModelForCausalLM.from_config(family(**shape), dtype=torch.float32)
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data += torch.randn_like(p) * 0.1
        if name.endswith("bias"):
            p.data = torch.randn_like(p) * 0.3
    return model


def name_of(peft_name):
    return peft_name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", "")


def prepare_training(c, model):
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


def trained_of(model):
    return {name_of(n): p for n, p in model.named_parameters() if p.requires_grad}


def write_case(c, seed, folder):
    model = base_model(c, seed)
    model.save_pretrained(folder)
    model = prepare_training(c, model).train()
    tokens = torch.randint(0, 97, (STEPS + 1, c["tokens"]))
    if c["pad"] is not None:
        tokens[:, ::7] = c["pad"] % 97
    labels = torch.randint(0, 97, tokens.shape)
    labels[torch.rand(tokens.shape) < 0.2] = -100
    tensors = {n: p.detach().clone().contiguous() for n, p in trained_of(model).items()}
    save_file(tensors | {"tokens": tokens, "labels": labels}, f"{folder}/in.safetensors")
    with open(f"{folder}/options.json", "w") as f:
        json.dump(c, f)
    return model, tokens, labels


def read_saved_config(c, folder, problems):
    """The config the C++ side wrote, as transformers reads it, checked against what the extension means."""
    config = AutoConfig.from_pretrained(f"{folder}/saved")
    rope = config.rope_parameters
    kind = c["extend"][-1][0] if c["extend"] else "none"
    expected = {"rope_type": "default" if kind in ("none", "ntk") else kind, "rope_theta": 10000.0}
    if kind == "ntk":
        expected["rope_theta"] = 10000.0 * 4 ** (c["head_dim"] / (c["head_dim"] - 2))
    elif kind != "none":
        expected["factor"] = 4.0
    if kind in ("yarn", "llama3"):
        expected["original_max_position_embeddings"] = ORIGINAL
    got = {k: rope.get(k) for k in expected}
    if any(abs(got[k] - v) > 1e-9 * v if isinstance(v, float) else got[k] != v for k, v in expected.items()):
        problems.append(f"saved config: expected {expected}, found {rope}")
    if config.max_position_embeddings != (128 if kind != "dynamic" else ORIGINAL):
        problems.append(f"saved config: max_position_embeddings {config.max_position_embeddings}")
    return config


def use_config(model, config):
    """Gives a reference the positions of `config`."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    inner.model.rotary_emb = type(inner.model.rotary_emb)(config)


def row_nll(c, model, tokens, labels):
    positions = torch.arange(c["tokens"])[None]
    logits = model(tokens[None], position_ids=positions, use_cache=False).logits[0]
    return logits, torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)


def load_saved(c, folder, config):
    if c["method"] == "full":
        return AutoModelForCausalLM.from_pretrained(f"{folder}/saved", attn_implementation="eager", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(folder, config=config, attn_implementation="eager", dtype=torch.float32)
    return PeftModel.from_pretrained(base, f"{folder}/saved")


class Comparison:
    def __init__(self):
        self.problems = []

    def __call__(self, what, ours, theirs, tolerance=1e-5, size=None):
        error = (ours.double() - theirs.double()).abs().max().item()
        size = max(theirs.abs().max().item(), 1.0) if size is None else size
        if not error <= tolerance * size:
            self.problems.append(f"{what}: differs by {error:.2e} (size {size:.2e})")


def compare_steps(c, model, tokens, labels, got, compare):
    """The same steps of torch's AdamW; decay for matrices only, as transformers' Trainer."""
    trained = trained_of(model)
    start = {n: p.detach().clone() for n, p in trained.items()}
    groups = [dict(params=[p for p in trained.values() if p.dim() > 1], weight_decay=c["weight_decay"]),
              dict(params=[p for p in trained.values() if p.dim() == 1], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=c["lr"], betas=(c["beta1"], c["beta2"]), eps=c["eps"])
    losses = []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = row_nll(c, model, tokens[step], labels[step])[1].sum()
        (loss * c["grad_scale"]).backward()
        optimizer.step()
        losses.append(loss.detach())
    compare("losses of the steps", got["losses"], torch.stack(losses), 1e-4, losses[-1].item())
    for n, p in trained.items():
        moved = (p.detach() - start[n]).norm().item()
        if not moved > 0:
            compare.problems.append(f"{n} did not move")
        compare(f"{n} after {STEPS} steps", got["trained:" + n], p.detach(), 1e-4)
        difference = (got["trained:" + n] - p.detach()).norm().item()
        if not difference <= 1e-2 * moved:  # AdamW divides by a gradient's own size: noise of a tiny one is as large
            compare.problems.append(f"{n} after {STEPS} steps: differs by {difference:.2e}, moved {moved:.2e}")


def check_case(name, c, model, tokens, labels, folder):
    global MASK
    compare = Comparison()
    problems = compare.problems
    got = load_file(f"{folder}/out.safetensors")
    config = read_saved_config(c, folder, problems)
    use_config(model, config)
    MASK = mask_of(c)
    logits, nll = row_nll(c, model, tokens[0], labels[0])
    nll.sum().backward()
    if "logits" in got:
        compare("logits", got["logits"], logits.detach())
    compare("nll", got["nll"], nll.detach())
    compare("loss", got["loss"], nll.sum().detach()[None])
    trained = trained_of(model)
    missing = set(trained) ^ {n.removeprefix("grad:") for n in got if n.startswith("grad:")}
    if missing:
        problems.append(f"trained on one side only: {sorted(missing)}")
        return problems
    for n, p in trained.items():
        compare(f"gradient of {n}", got["grad:" + n], p.grad)
        if not p.grad.abs().max() > 1e-6:
            problems.append(f"gradient of {n} is zero: the case does not exercise it")
    compare_steps(c, model, tokens, labels, got, compare)
    with torch.no_grad():
        saved = load_saved(c, folder, config).eval()
        compare("logits of what was saved", got["trained_logits"], row_nll(c, saved, tokens[0], labels[0])[0])
    return problems


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--driver", required=True)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    ap.add_argument("--only", default="", help="cases whose name contains this")
    a = ap.parse_args()
    torch.set_num_threads(1)
    print(f"seed {a.seed}")
    cases = {n: BASE | c for n, c in [*CASES.items(), *cross_product()] if a.only in n}
    passed = 0
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        folders = {n: os.path.join(root, n) for n in cases}
        written = {n: write_case(c, a.seed, folders[n]) for n, c in cases.items()}
        subprocess.run([os.path.abspath(a.driver), "train", *folders.values()], check=True, timeout=600)
        for n, c in cases.items():
            problems = check_case(n, c, *written.pop(n), folders[n])
            print(f"{'ok  ' if not problems else 'FAIL'} {n}", *[f"\n     {p}" for p in problems[:8]], flush=True)
            passed += not problems
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if cases and passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
