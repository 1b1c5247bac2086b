#!/usr/bin/env python3
"""Trains with `ll-trainer train` and with transformers + peft from the same adapter folder, and compares.

  check_training.py --trainer build/bin/ll-trainer [--all] [--only TEXT] [--seed N]

Ten AdamW steps in fp32: every step's loss and gradient norm, and every trained tensor at the end. The adapter that both sides
start from was written by peft, so this is also the proof that peft's folders are read and trained on. A quantised base is
bitsandbytes' own NF4, dequantised. Attention in the reference is a dense mask taken literally from the definition of S2-Attn.

The cases are the product of method, attention, heads, tied or untied head and shape of the batch; without --all a selection
that holds every pair of values at least once. Every run draws a new seed and prints it.
"""
import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile

import bitsandbytes.functional as bnb
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

import check_parity as parity

STEPS, WARMUP, RATE, CLIP = 10, 2, 1e-3, 0.5
BETAS = (0.9, 0.95)
VALUES = dict(method=["full", "lora", "longlora", "qlora", "longqlora"], attention=["full", "s2", "short"],
              heads=["mha", "gqa"], head=["tied", "untied"], shape=["even", "ragged", "packed", "batched"])
HEADS = {"mha": (4, 4), "gqa": (8, 2)}
MODULES_TO_SAVE = ["embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"]


def all_cases():
    return [dict(zip(VALUES, values)) for values in itertools.product(*VALUES.values())]


def selection(rng):
    """Greedy: cases until every pair of values of two keys is in one of them."""
    cases = all_cases()
    rng.shuffle(cases)

    def pairs(case):
        return set(itertools.combinations(sorted(case.items()), 2))

    missing, chosen = set().union(*map(pairs, cases)), []
    while missing:
        best = max(cases, key=lambda case: len(pairs(case) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def settings(case):
    heads, kv_heads = HEADS[case["heads"]]
    c = dict(parity.BASE, heads=heads, kv_heads=kv_heads, head_dim=8, attention=case["attention"],
             tied=case["head"] == "tied", method=case["method"])
    c["tokens"] = 53 if case["shape"] == "ragged" else 64
    c["group_tokens"] = c["tokens"] // 4
    c["targets"] = parity.ALL if case["method"] == "longqlora" else parity.QKVO
    c["rslora"] = case["method"] == "lora"
    c["batch"], c["accumulation"] = (2, 2) if case["shape"] == "batched" else (1, 2)
    return c


def to_nf4_and_back(model):
    """Each linear weight through bitsandbytes: as rows of one block, because its CPU build goes wrong on rows shorter than that;
    and with the nearest 8-bit codes of the scales, where its CPU build looks them up in a rounded table."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            weight = module.weight.data
            codes, state = bnb.quantize_4bit(weight.view(-1, 64), blocksize=64, compress_statistics=True, quant_type="nf4")
            scales = weight.view(-1, 64).abs().amax(1) - state.offset
            scaled = scales / state.state2.absmax.repeat_interleave(256)[:len(scales)]
            state.absmax = (scaled[:, None] - state.state2.code[None, :]).abs().argmin(1).to(torch.uint8)
            module.weight.data = bnb.dequantize_4bit(codes, state).view(weight.shape)


def write_data(c, packed, generator, path):
    rows = STEPS * c["batch"] * c["accumulation"]
    tokens = torch.randint(0, 97, (rows * c["tokens"],), generator=generator)
    tokens.numpy().astype("<u2").tofile(path)
    edges = [0]
    while packed and edges[-1] < len(tokens):
        edges.append(min(len(tokens), edges[-1] + int(torch.randint(1, 40, (1,), generator=generator))))
    with open(path + ".json", "w") as f:
        json.dump({"dtype": "uint16", "documents": list(zip(edges, edges[1:]))}, f)
    return tokens.view(rows, c["tokens"]), edges


def row_of(c, tokens, edges, index):
    """Labels (already shifted) and the documents inside the row."""
    labels = torch.cat([tokens[1:], torch.tensor([-100])])
    begin, end = index * c["tokens"], (index + 1) * c["tokens"]
    inside = sorted({begin, end} | {edge for edge in edges if begin < edge < end}) if len(edges) > 1 else [begin, end]
    documents = [[a - begin, b - begin] for a, b in zip(inside, inside[1:])]
    for _, last in documents:
        labels[last - 1] = -100
    return labels, documents


def train_reference(c, model, rows, edges):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=BETAS, eps=1e-8, weight_decay=0)
    losses, norms = [], []
    batch = c["batch"] * c["accumulation"]
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / WARMUP)
        total, targets = 0.0, 0
        optimizer.zero_grad()
        for index in range(step * batch, (step + 1) * batch):
            labels, documents = row_of(c, rows[index], edges, index)
            parity.MASK = parity.mask_of(dict(c, documents=documents))
            logits = model(rows[index][None], position_ids=torch.arange(c["tokens"])[None], use_cache=False).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
            loss.backward()
            total, targets = total + loss.item(), targets + int((labels >= 0).sum())
        for p in trained:
            p.grad /= targets
        norms.append(torch.nn.utils.clip_grad_norm_(trained, CLIP).item())
        optimizer.step()
        losses.append(total / targets)
    return losses, norms


def run(trainer, spec, folder):
    path = f"{folder}/job.yaml"
    with open(path, "w") as f:
        json.dump(spec, f)
    done = subprocess.run([trainer, "train", "--spec", path, "--out", f"{folder}/out"], capture_output=True, text=True,
                          timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise RuntimeError(f"ll-trainer ended with {done.returncode}: {done.stderr.strip()}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [e for e in events if e["event"] == "step"]


def reference(c, case, seed, folder):
    """The model to train, saved for the trainer: the base folder, and for LoRA methods the adapter that peft writes."""
    # Any document makes the reference take the dense mask, which is set row by row.
    model = parity.base_model(dict(c, documents=[[0, 1]]), seed)
    model.save_pretrained(f"{folder}/base")
    if case["method"] == "full":
        return model.train()
    if case["method"] in ("qlora", "longqlora"):
        to_nf4_and_back(model)
    whole = case["method"] == "longlora"
    model = get_peft_model(model, LoraConfig(
        r=4, lora_alpha=8, target_modules=c["targets"], use_rslora=c["rslora"], task_type="CAUSAL_LM",
        modules_to_save=MODULES_TO_SAVE if whole else None, ensure_weight_tying=whole and c["tied"]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data = torch.randn_like(p) * 0.1
        elif p.requires_grad and "norm" in name:
            p.data += torch.randn_like(p) * 0.1
    model.save_pretrained(f"{folder}/adapter")
    return model.train()


def run_case(case, seed, trainer, folder, quantized_folder):
    c = settings(case)
    generator = torch.Generator().manual_seed(seed)
    model = reference(c, case, seed, folder)
    rows, edges = write_data(c, case["shape"] == "packed", generator, f"{folder}/data.bin")
    spec = dict(model=f"{folder}/base", method=case["method"], context_length=c["tokens"], original_context_length=c["tokens"],
                rope="none", attention=case["attention"], data=f"{folder}/data.bin", precision="fp32", shuffle=False,
                per_device_batch_size=c["batch"], gradient_accumulation_steps=c["accumulation"], max_steps=STEPS,
                warmup_steps=WARMUP, learning_rate=RATE, adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=0,
                max_grad_norm=CLIP, save_steps=0, document_boundaries=case["shape"] == "packed")
    if case["method"] != "full":
        spec |= dict(adapter=f"{folder}/adapter", lora_dropout=0)
    steps = run(trainer, spec, folder)
    losses, norms = train_reference(c, model, rows, edges)
    problems = []

    def compare(what, ours, theirs, tolerance):
        if not abs(ours - theirs) <= tolerance * max(1.0, abs(theirs)):
            problems.append(f"{what}: {ours} against {theirs}")

    for i, (step, loss, norm) in enumerate(zip(steps, losses, norms)):
        compare(f"loss of step {i + 1}", step["loss"], loss, 1e-5 if i < 2 else 1e-4)
        compare(f"grad_norm of step {i + 1}", step["grad_norm"], norm, 1e-4 if i < 2 else 1e-3)
    if len(steps) != STEPS:
        problems.append(f"{len(steps)} steps reported")
    checkpoint = f"{folder}/out/checkpoints/step-{STEPS:06d}"
    if case["method"] == "full":
        ours, theirs = load_file(f"{checkpoint}/model.safetensors"), model.state_dict()
        theirs = {n: t for n, t in theirs.items() if n in ours or n != "lm_head.weight"}
    else:
        ours, theirs = load_file(f"{checkpoint}/adapter_model.safetensors"), get_peft_model_state_dict(model)
    if set(ours) != set(theirs):
        problems.append(f"tensors on one side only: {sorted(set(ours) ^ set(theirs))[:4]}")
    for name in set(ours) & set(theirs):
        error = (ours[name].double() - theirs[name].detach().double()).abs().max().item()
        # Ten steps move a weight by at most ten learning rates; Adam turns the rounding of a tiny gradient into a share of one.
        if not error <= 1e-4:
            problems.append(f"{name}: differs by {error:.2e}")
    if not losses[-1] < losses[0] + 1:
        problems.append("the reference diverged")
    if quantized_folder and case["method"] in ("qlora", "longqlora"):
        subprocess.run([trainer, "quantize", "--model", f"{folder}/base", "--out", f"{folder}/nf4"], check=True, timeout=60,
                       stdout=subprocess.DEVNULL)
        os.rename(f"{folder}/out", f"{folder}/out-1")
        again = run(trainer, spec | {"model": f"{folder}/nf4"}, folder)
        if [s["loss"] for s in again] != [s["loss"] for s in steps]:
            problems.append("a folder quantised before gives other losses than quantising on load")
    print(f"{'ok  ' if not problems else 'FAIL'} {' '.join(case.values())}: loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)
    for p in problems[:8]:
        print(f"     {p}")
    return not problems


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--all", action="store_true", help="the whole product")
    ap.add_argument("--only", default="", help="cases whose name holds this text")
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    a = ap.parse_args()
    torch.set_num_threads(1)
    print(f"seed {a.seed}")
    cases = all_cases() if a.all or a.only else selection(random.Random(a.seed))
    cases = [case for case in cases if a.only in " ".join(case.values())]
    passed = 0
    for i, case in enumerate(cases):
        with tempfile.TemporaryDirectory(prefix="ll-parity-") as folder:
            try:
                passed += run_case(case, a.seed + i, os.path.abspath(a.trainer), folder, i % 2 == 0)
            except RuntimeError as error:
                print(f"FAIL {' '.join(case.values())}: {error}", flush=True)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) and cases else 1


if __name__ == "__main__":
    sys.exit(main())
