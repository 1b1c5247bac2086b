#!/usr/bin/env python3
"""The rows of gpu.sh: training steps of one model on one device, one JSON line a row. Python's standard library alone.

A row that does not fit into the device or into the time is written with the reason; a number that was not measured is not there.
"""
import argparse
import datetime
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
# Dense bf16 FLOP/s by the data sheets, in units of 10^12.
PEAK_TFLOPS = (("H200", 989), ("H100", 989), ("B200", 2250), ("A100", 312))
OUT_OF_MEMORY = 40  # ll-trainer's exit code (worker/trainer/error_class.cc)
SMALL_GPU, LARGE_GPU = 60e9, 120e9  # bytes
PHASES = ("data", "forward", "head", "backward", "optimizer")  # of a step event, as NAME_seconds
PROFILED = ("s2 32768", "s2 32768 fp8", "nf4 8192")  # what a step's time goes to, operation by operation, after the row itself


def rows():
    """In the order of what should be known first. `memory`: bytes of a device below which a row is left out."""
    out = []

    def add(case, ctx, memory=SMALL_GPU, **keys):
        for deterministic in (False, True):
            out.append({"case": case + (" deterministic" if deterministic else ""), "memory": memory,
                        "spec": {"context_length": ctx, "deterministic": deterministic, **keys}})

    add("s2 8192", 8192, recompute="full")
    add("s2 32768", 32768, recompute="full")
    add("s2 32768 fp8", 32768, recompute="full", quantization="fp8")
    add("nf4 8192", 8192, 0, method="longqlora", recompute="full")
    add("nf4 12288", 12288, 0, method="longqlora", recompute="full")
    add("nf4 32768", 32768, 0, method="longqlora", recompute="full")
    add("nf4 32768 offload", 32768, 0, method="longqlora", recompute="full", activation_offload=True)
    add("longlora r64 32768", 32768, method="longlora", recompute="full", lora_rank=64,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    add("s2 32768 no recompute", 32768, LARGE_GPU, recompute="none")
    add("s2 65536", 65536, recompute="full")
    add("full attention 65536", 65536, attention="full", recompute="full")
    add("s2 100000", 100000, recompute="full")
    add("nf4 360448", 360448, LARGE_GPU, method="longqlora", recompute="full")
    return out


def scaled(row, scale):
    """With every length divided, to try this script on a small device; a multiple of 64."""
    if scale == 1:
        return row
    spec = dict(row["spec"], context_length=max(64, row["spec"]["context_length"] // scale // 64 * 64))
    return dict(row, spec=spec, memory=0)


def prepare(a, work):
    """The random model and tokens."""
    config = a.config
    if config is None:
        config = os.path.join(work, "config.json")
        with open(config, "w") as f:
            json.dump(LLAMA_2_7B, f)
    with open(config) as f:
        vocabulary = json.load(f)["vocab_size"]
    model, data = os.path.join(work, "model"), os.path.join(work, "data.bin")
    began = time.monotonic()
    subprocess.run([a.trainer, "init", "--config", config, "--out", model, "--dtype", "bfloat16"], check=True, stdout=subprocess.DEVNULL,
                   timeout=600)
    tokens = 2 * max(scaled(row, a.scale)["spec"]["context_length"] for row in rows())
    draw = random.Random(0)
    with open(data, "wb") as f:
        f.write(struct.pack(f"<{tokens}H", *(draw.randrange(3, vocabulary) for _ in range(tokens))))
    print(f"model and tokens made in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return model, data


def write_spec(a, work, model, data, row):
    spec = {"model": model, "data": data, "method": "longlora", "precision": "bf16", "global_batch_size": 1, "max_steps": a.steps,
            "warmup_steps": 0, "save_steps": 1_000_000, "seed": 0, "shuffle": False, "on_oom": "fail", **row["spec"]}
    path = os.path.join(work, "spec.json")
    with open(path, "w") as f:
        json.dump(spec, f)
    return path


def profile(a, work, model, data, row, limit):
    """What the row's step goes to, by operation, beside the device's floor."""
    command = [a.trainer, "profile", "step", "--spec", write_spec(a, work, model, data, row), "--steps", "2", "--device", a.device, "-o", "json"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"left_out": f"did not end within {limit:.0f} s"}
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-300:], "exit_code": done.returncode}


def run(a, work, model, data, row, limit):
    """The row's measurements, or why there are none."""
    ctx = row["spec"]["context_length"]
    path, out = write_spec(a, work, model, data, row), os.path.join(work, "out")
    shutil.rmtree(out, ignore_errors=True)
    command = [a.trainer, "train", "--spec", path, "--out", out, "--device", a.device]
    peak = next((tflops for name, tflops in PEAK_TFLOPS if name in a.gpu), None)
    if peak:
        command += ["--peak-tflops", str(peak)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b"").decode(errors="replace"), None
    finally:
        shutil.rmtree(out, ignore_errors=True)  # its last checkpoint
    events = []
    for line in output.splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            pass  # cut
    steps = [e for e in events if e.get("event") == "step"]
    counted = steps[1:]
    if code not in (0, None) or not counted:
        why = next((e.get("message") for e in events if e.get("event") == "error"), None)
        if code == OUT_OF_MEMORY or (why and "out of memory" in why):
            return {"out_of_memory": True, "message": why}
        if code is None:
            return {"left_out": f"a second step did not end within {limit:.0f} s"}
        return {"error": why or done.stderr[-300:] or "no step", "exit_code": code}
    seconds = statistics.median(s["step_seconds"] for s in counted)
    result = {"tokens_per_second": ctx / seconds, "step_seconds": seconds, "steps": len(counted), "loss": [s["loss"] for s in steps],
              "peak_bytes": max(s["peak_bytes"] for s in steps)}
    if counted[-1].get("mfu") is not None:
        result["mfu"] = statistics.median(s["mfu"] for s in counted)
    result["phases"] = {name: statistics.median(s[name + "_seconds"] for s in counted) for name in PHASES}
    return result


def device_memory(a):
    if a.device != "cuda":
        return float("inf")
    text = subprocess.run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"], check=True, capture_output=True, text=True,
                          timeout=60).stdout
    return int(text.splitlines()[0]) * 2**20


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--gpu", required=True, help="its name, as written into each row")
    ap.add_argument("--commit", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--budget", type=float, default=540, help="seconds for everything; what no longer fits is left out")
    ap.add_argument("--config", help="config.json of another shape than Llama-2-7B")
    ap.add_argument("--scale", type=int, default=1, help="divides every length, to try the script")
    ap.add_argument("--steps", type=int, default=3, help="of each row; the first is not counted")
    ap.add_argument("--only", default="", help="rows whose name contains this")
    a = ap.parse_args()
    end = time.monotonic() + a.budget
    memory, failed, summary = device_memory(a), False, []
    with tempfile.TemporaryDirectory(prefix="ll-gpu-bench-") as work, open(a.out, "w") as out:
        model, data = prepare(a, work)
        for row in (scaled(row, a.scale) for row in rows()):
            if a.only not in row["case"]:
                continue
            left = end - time.monotonic()
            if memory < row["memory"]:
                result = {"left_out": f"needs a device of {row['memory'] / 1e9:.0f} GB"}
            elif a.device == "cpu" and row["spec"].get("activation_offload"):
                result = {"left_out": "a CPU has nowhere to offload to"}
            elif left < 20:
                result = {"left_out": "the time is used up"}
            else:
                result = run(a, work, model, data, row, left)
            failed |= "error" in result
            line = {"case": row["case"], **row["spec"], **result, "gpu": a.gpu, "commit": a.commit,
                    "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
            out.write(json.dumps(line) + "\n")
            out.flush()
            told = (f"{result['tokens_per_second']:8.0f} tok/s  {result['peak_bytes'] / 1e9:6.1f} GB  " +
                    (f"MFU {result['mfu']:.1%}" if "mfu" in result else "") if "tokens_per_second" in result else json.dumps(result))
            print(f"{row['case']:36} {told}", file=sys.stderr, flush=True)
            summary.append(result)
            left = end - time.monotonic()
            if row["case"] in PROFILED and "tokens_per_second" in result and left > 20:
                told = profile(a, work, model, data, row, left)
                failed |= "error" in told
                out.write(json.dumps({"profile": row["case"], **told, "gpu": a.gpu, "commit": a.commit}) + "\n")
                out.flush()
    measured = sum("tokens_per_second" in r for r in summary)
    print(f"{measured} of {len(summary)} rows measured on {a.gpu}", file=sys.stderr)
    return 1 if failed or not summary else 0


if __name__ == "__main__":
    sys.exit(main())
