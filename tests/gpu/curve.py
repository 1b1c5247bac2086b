#!/usr/bin/env python3
"""Loss curves of a model of Llama-2-7B's widths on a device, held to the CPU's within the noise of bf16.

    tests/gpu/curve.py --trainer ll-trainer [--device cuda] [--quantization nf4]

Three trainings of the same steps (S2-Attn, LoRA+; with nf4 LongQLoRA's adapters): fp32 on the CPU, which is the
reference, bf16 on the CPU, and bf16 on the device. How far the CPU's own bf16 strays from fp32 is what bf16 costs with
these operations; another device, which adds up in another order, may stray twice as far (`FACTOR`), as a kernel may
have twice the error of plain torch. Steps are compared by the root mean square of the losses' differences over the
curve, since one step's difference may be zero by chance; the largest is printed beside it, and the distance between the
two curves in bf16, whose copies of the weights are rounded alike. A curve that does not fall says nothing and is an
error. On a CPU with AMX the shape below has noise of 0.060 while the loss falls from 8.31 to 2.22; with an NF4 base, on
one without, 0.020 from 8.32 to 0.001.

Prints one JSON line. Exit status: 0 equal within the noise, 1 not, 2 a training failed. Python's standard library alone.
"""
import argparse
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile

FACTOR = 2.0
FLOOR = 1e-4  # of a loss: where bf16 strays less than this by chance, twice as far would mean nothing
# Over the width, along which Adam's steps add up: the loss falls over the whole curve. Where only adapters learn it has to be more.
LEARNING_RATE = {None: 0.25, "nf4": 4.0}
LEAST_FALL = 0.02  # of the first loss, that the reference must lose
SHAPE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 2000,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}


def distance(curve, reference):
    """Root mean square of the differences; infinite where a step is missing or no number."""
    if len(curve) != len(reference) or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in curve):
        return math.inf
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(curve, reference)) / len(reference))


def judge(reference, noise, device):
    """The verdict on `device`'s losses beside those of the CPU in fp32 and in bf16."""
    allowed = FACTOR * max(distance(noise, reference), FLOOR * reference[0])
    found = distance(device, reference)
    falls = reference[-1] <= (1 - LEAST_FALL) * reference[0]
    return {"distance": found if math.isfinite(found) else "not finite", "noise": distance(noise, reference), "allowed": allowed,
            "to_cpu_bf16": distance(device, noise) if math.isfinite(found) else None,
            "largest": max((abs(a - b) for a, b in zip(device, reference)), default=None) if math.isfinite(found) else None,
            "status": "ok" if falls and found <= allowed else "wrong", **({} if falls else {"message": "the reference does not fall"})}


def train(a, work, name, device, **keys):
    """The losses of one training."""
    spec = {"model": os.path.join(work, "model"), "data": os.path.join(work, "data.bin"), "method": "longqlora" if a.quantization else "longlora",
            "context_length": a.ctx, "global_batch_size": 1, "max_steps": a.steps, "warmup_steps": 0,
            "learning_rate": LEARNING_RATE[a.quantization] / a.width, "seed": 0, "lora_dropout": 0, "save_steps": 1_000_000, "shuffle": False, "on_oom": "fail", **keys}
    path = os.path.join(work, name + ".json")
    with open(path, "w") as f:
        json.dump(spec, f)
    done = subprocess.run([a.trainer, "train", "--random-weights", "--spec", path, "--out", os.path.join(work, name), "--device", device],
                          capture_output=True, text=True, timeout=a.limit)
    if done.returncode != 0:
        print(f"curve.py: {name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        sys.exit(2)
    return [event["loss"] for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "step"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    ap.add_argument("--quantization", choices=["nf4"], help="of the base; default: bf16")
    ap.add_argument("--config", help="config.json of another shape")
    ap.add_argument("--ctx", type=int, default=256, help="tokens of a step")
    ap.add_argument("--steps", type=int, default=20)
    ap.add_argument("--limit", type=float, default=240, help="seconds for each training")
    ap.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                    help="of the device's training alone, to see that the check can fail")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="ll-curve-") as work:
        os.mkdir(os.path.join(work, "model"))
        shape = SHAPE
        if a.config:
            with open(a.config) as f:
                shape = json.load(f)
        a.width = shape["hidden_size"]
        with open(os.path.join(work, "model", "config.json"), "w") as f:
            json.dump(shape, f)
        draw = random.Random(0)
        # Two rows in turn, so that there is something to learn in few steps.
        with open(os.path.join(work, "data.bin"), "wb") as f:
            f.write(struct.pack(f"<{2 * a.ctx}H", *(draw.randrange(3, shape["vocab_size"]) for _ in range(2 * a.ctx))))
        reference = train(a, work, "cpu-fp32", "cpu", precision="fp32")
        noise = train(a, work, "cpu-bf16", "cpu", precision="bf16")
        changed = {key: json.loads(value) for key, value in (s.split("=", 1) for s in a.set)}
        device = train(a, work, "device-bf16", a.device, precision="bf16", **changed)
    verdict = judge(reference, noise, device)
    print(json.dumps({"curve": a.quantization or "bf16", "device": a.device, "steps": a.steps, "tokens": a.ctx, **verdict,
                      "losses": {"cpu_fp32": reference, "cpu_bf16": noise, "device_bf16": device}}))
    return 0 if verdict["status"] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
