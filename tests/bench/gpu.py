#!/usr/bin/env python3
"""The rows of gpu.sh: training steps of one model on one device, one JSON line a row. Python's standard library alone.

A row that does not fit into the device or into the time is written with the reason; a number that was not measured is not there. Rows come in the
order of what should be known first, and each is on disk before the next begins: what a killed run measured stays, and --continue goes on behind it.
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
import threading
import time

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
LLAMA_2_70B = {**LLAMA_2_7B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
               "num_key_value_heads": 8}
# Dense bf16 FLOP/s by the data sheets, in units of 10^12.
PEAK_TFLOPS = (("H200", 989), ("H100", 989), ("B200", 2250), ("A100", 312))
OUT_OF_MEMORY = 40  # ll-trainer's exit code (worker/trainer/error_class.cc)
SMALL_GPU, LARGE_GPU = 60e9, 120e9  # bytes
PHASES = ("data", "forward", "head", "backward", "optimizer")  # of a step event, as NAME_seconds
PROFILED = ("s2 32768", "s2 32768 fp8", "nf4 8192")  # what a step's time goes to, operation by operation, after the row itself


def rows():
    """In the order of what should be known first. `memory`: bytes of a device below which a row is left out; `seconds`: what it needs at least;
    `drawn`: the shape of a model whose weights are drawn and quantised layer by layer, since its folder would not fit on a disk."""
    out = []

    def add(case, ctx, memory=SMALL_GPU, seconds=20, drawn=None, **keys):
        out.append({"case": case, "memory": memory, "seconds": seconds, "drawn": drawn,
                    "spec": {"context_length": ctx, "deterministic": False, "recompute": "full", **keys}})

    def nf4_beside_bf16(ctx):
        """LongQLoRA's adapters (rank 64 on every linear layer) on an NF4 base and on one in bf16."""
        add(f"nf4 {ctx}", ctx, 0, method="longqlora")
        add(f"bf16 r64 {ctx}", ctx, method="longqlora", quantization="none")

    add("s2 32768", 32768)
    nf4_beside_bf16(8192)
    add("s2 32768 no recompute", 32768, LARGE_GPU, recompute="none")
    add("s2 32768 fp8", 32768, quantization="fp8")
    nf4_beside_bf16(32768)
    add("s2 100000", 100000)
    add("s2 65536", 65536)
    add("full attention 65536", 65536, attention="full")
    nf4_beside_bf16(12288)
    add("nf4 32768 offload", 32768, 0, method="longqlora", activation_offload=True)
    add("nf4 360448", 360448, LARGE_GPU, seconds=100, method="longqlora")
    add("70b nf4 32768", 32768, LARGE_GPU, seconds=180, drawn=LLAMA_2_70B, method="longqlora")
    add("s2 8192", 8192)
    return out + [dict(row, case=row["case"] + " deterministic", spec={**row["spec"], "deterministic": True}) for row in out]


def scaled(row, scale):
    """With every length divided, to try this script on a small device; a multiple of 64."""
    if scale == 1:
        return row
    spec = dict(row["spec"], context_length=max(64, row["spec"]["context_length"] // scale // 64 * 64))
    return dict(row, spec=spec, memory=0, seconds=20)


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


def drawn_model(a, work, shape):
    """A folder with nothing but the config."""
    folder = os.path.join(work, "drawn")
    os.makedirs(folder, exist_ok=True)
    if a.config:
        shutil.copy(a.config, os.path.join(folder, "config.json"))
    else:
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(shape, f)
    return folder


def write_spec(a, work, model, data, row):
    if row["drawn"]:
        model = drawn_model(a, work, row["drawn"])
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


def watch_host(pid, peak):
    """Keeps the most anonymous memory of a process in peak[0], until it ends: what it holds itself, without mapped files."""
    try:
        while True:
            with open(f"/proc/{pid}/status") as f:
                held = next((int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon")), None)
            if held is None:
                return  # it has ended
            peak[0] = max(peak[0], held)
            time.sleep(0.05)
    except OSError:
        return


def train(command, limit):
    """(exit code or None where it took longer, its events, standard error, most host memory in bytes)"""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=watch_host, args=(process.pid, peak), daemon=True)
    watcher.start()
    try:
        output, errors = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        code = None
    events = []
    for line in output.splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            pass  # cut
    return code, events, errors, peak[0]


def seconds_between(events, first, second):
    """Between the first events that `first` and `second` hold for; None where one is missing."""
    at = [next((datetime.datetime.fromisoformat(e["time"].replace("Z", "+00:00")) for e in events if is_it(e)), None) for is_it in (first, second)]
    return (at[1] - at[0]).total_seconds() if None not in at else None


def is_phase(name):
    return lambda e: e.get("event") == "phase" and e.get("phase") == name


def run(a, work, model, data, row, limit):
    """The row's measurements, or why there are none."""
    ctx = row["spec"]["context_length"]
    path, out = write_spec(a, work, model, data, row), os.path.join(work, "out")
    shutil.rmtree(out, ignore_errors=True)
    command = [a.trainer, "train", "--spec", path, "--out", out, "--device", a.device] + (["--random-weights"] if row["drawn"] else [])
    peak = next((tflops for name, tflops in PEAK_TFLOPS if name in a.gpu), None)
    if peak:
        command += ["--peak-tflops", str(peak)]
    code, events, errors, host_peak = train(command, limit)
    shutil.rmtree(out, ignore_errors=True)  # its last checkpoint
    steps = [e for e in events if e.get("event") == "step"]
    counted = steps[1:]
    if code not in (0, None) or not counted:
        why = next((e.get("message") for e in events if e.get("event") == "error"), None)
        if code == OUT_OF_MEMORY or (why and "out of memory" in why):
            return {"out_of_memory": True, "message": why}
        if code is None:
            return {"left_out": f"a second step did not end within {limit:.0f} s"}
        return {"error": why or errors[-300:] or "no step", "exit_code": code}
    seconds = statistics.median(s["step_seconds"] for s in counted)
    result = {"tokens_per_second": ctx / seconds, "step_seconds": seconds, "steps": len(counted), "loss": [s["loss"] for s in steps],
              "peak_bytes": max(s["peak_bytes"] for s in steps), "load_seconds": seconds_between(events, is_phase("load"), is_phase("train")),
              "host_peak_bytes": host_peak}
    if counted[-1].get("mfu") is not None:
        result["mfu"] = statistics.median(s["mfu"] for s in counted)
    result["phases"] = {name: statistics.median(s[name + "_seconds"] for s in counted) for name in PHASES}
    return result


def measured_before(a):
    """Lines of an earlier run of the same build on the same device, by their row."""
    kept = {}
    if a.go_on and os.path.exists(a.out):
        with open(a.out) as f:
            for line in f:
                row = json.loads(line)
                if row["commit"] == a.commit and row["gpu"] == a.gpu and ("tokens_per_second" in row or "operations" in row):
                    kept.setdefault(row.get("case", row.get("profile")), []).append(row)
    return kept


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
    ap.add_argument("--continue", dest="go_on", action="store_true",
                    help="keep what --out holds of the same build and device, and measure the rest")
    a = ap.parse_args()
    end = time.monotonic() + a.budget
    memory, failed, summary, kept = device_memory(a), False, [], measured_before(a)
    with tempfile.TemporaryDirectory(prefix="ll-gpu-bench-") as work, open(a.out, "w") as out:
        def write(line):
            out.write(json.dumps(line) + "\n")
            out.flush()

        for line in (line for lines in kept.values() for line in lines):
            write(line)
        model = data = None
        for row in (scaled(row, a.scale) for row in rows()):
            if a.only not in row["case"] or row["case"] in kept:
                continue
            left = end - time.monotonic()
            if memory < row["memory"]:
                result = {"left_out": f"needs a device of {row['memory'] / 1e9:.0f} GB"}
            elif a.device == "cpu" and row["spec"].get("activation_offload"):
                result = {"left_out": "a CPU has nowhere to offload to"}
            elif left < row["seconds"]:
                result = {"left_out": "the time is used up"}
            else:
                if model is None:
                    model, data = prepare(a, work)
                result = run(a, work, model, data, row, end - time.monotonic())
            failed |= "error" in result
            write({"case": row["case"], **row["spec"], **result, "gpu": a.gpu, "commit": a.commit,
                   "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")})
            told = (f"{result['tokens_per_second']:8.0f} tok/s  {result['peak_bytes'] / 1e9:6.1f} GB  " +
                    (f"MFU {result['mfu']:.1%}" if "mfu" in result else "") if "tokens_per_second" in result else json.dumps(result))
            print(f"{row['case']:36} {told}", file=sys.stderr, flush=True)
            summary.append(result)
            left = end - time.monotonic()
            if row["case"] in PROFILED and "tokens_per_second" in result and left > 20:
                told = profile(a, work, model, data, row, left)
                failed |= "error" in told
                write({"profile": row["case"], **told, "gpu": a.gpu, "commit": a.commit})
    measured = sum("tokens_per_second" in r for r in summary)
    print(f"{measured} of {len(summary)} rows measured on {a.gpu}" + (f", {len(kept)} kept" if kept else ""), file=sys.stderr)
    return 1 if failed or not (summary or kept) else 0


if __name__ == "__main__":
    sys.exit(main())
