#!/usr/bin/env python3
"""Times a row that ranks share (context parallelism) beside the same row on one rank, each rank pinned to one core.

  tests/bench/context_parallel.py --model SMOLLM2_DIR [--ctx 8192] [--ranks 2] [--steps 3] [--rounds 1] [--trainer PATH]

Prints tokens/s of both sides, the share of the ideal (N ranks: N times one rank's), the bytes a layer sends, and where rank 0's time goes by
phase (`exchange`: of forward and backward, waiting for others' keys and values; `wait`: for the slowest rank at the sums; `reduce`: the sums).
Rounds alternate one rank and all, and which comes first, so that a slow minute hits both; figures are medians over rounds of the median step
after the first. `cpu_share` is CPU time over the time in which rank 0 did not wait for the others; well below 1 it means that something else had
the cores: such a run says so and should be repeated.
"""
import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


PHASES = ("data", "forward", "head", "backward", "exchange", "wait", "reduce", "optimizer")


def write_inputs(a, work):
    rng = random.Random(0)
    data = os.path.join(work, "data.bin")
    with open(data, "wb") as f:
        f.write(struct.pack(f"<{2 * a.ctx}H", *(rng.randrange(3, 40000) for _ in range(2 * a.ctx))))
    return data


def spec_file(a, work, data, ranks):
    spec = {"model": a.model, "data": data, "method": "longlora", "context_length": a.ctx, "original_context_length": a.ctx,
            "precision": "bf16", "max_steps": a.steps, "warmup_steps": 0, "global_batch_size": 1, "save_steps": 1_000_000,
            "shuffle": False, "seed": 0, "recompute": a.recompute, "context_parallel": ranks}
    path = os.path.join(work, f"spec-{ranks}.json")
    with open(path, "w") as f:
        json.dump(spec, f)
    return path


def pump(stream, events, controls):
    for line in stream:
        event = json.loads(line)
        events.append(event)
        if event["event"] == "rendezvous":
            for control in controls:
                os.write(control, (json.dumps({"rendezvous": event["address"]}) + "\n").encode())


def run_gang(a, work, data, ranks, cores):
    """The median step of rank 0 in seconds, and the CPU time that the ranks got beside the time they could have had."""
    out = os.path.join(work, f"out-{ranks}-{time.monotonic_ns()}")
    processes, controls, events = [], [], []
    for rank in range(ranks):
        control_read, control_write = os.pipe()
        args = [a.trainer, "run", "--spec", spec_file(a, work, data, ranks), "--out", out, "--rank", rank, "--world", ranks,
                "--nonce", "bench", "--threads", 1, "--control-fd", control_read]
        core = cores[rank]
        processes.append(subprocess.Popen(
            list(map(str, args)), stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            pass_fds=[control_read], preexec_fn=lambda core=core: os.sched_setaffinity(0, {core})))
        os.close(control_read)
        controls.append(control_write)
    started = time.monotonic()
    reader = threading.Thread(target=pump, args=(processes[0].stdout, events, controls[1:]), daemon=True)
    reader.start()
    for rank, process in enumerate(processes):
        if process.wait(a.timeout) != 0:
            for other in processes:
                other.kill()
            sys.exit(f"rank {rank} ended with {process.returncode}: {process.stderr.read()[-400:]}")
    reader.join()
    wall = time.monotonic() - started
    usage = os.times()
    for control in controls:
        os.close(control)
    steps = [e for e in events if e["event"] == "step"]
    chosen = steps[1:] or steps
    phases = {p: statistics.median(e.get(f"{p}_seconds", 0) for e in chosen) for p in PHASES}
    waited = sum(e.get("exchange_seconds", 0) + e.get("wait_seconds", 0) for e in steps)
    return {"seconds": statistics.median(e["step_seconds"] for e in chosen), "loss": steps[0]["loss"], "wall": wall - waited, "phases": phases,
            "cpu": usage.children_user + usage.children_system, "peak_bytes": steps[-1]["peak_bytes"]}


def bytes_a_layer(a):
    with open(os.path.join(a.model, "config.json")) as f:
        c = json.load(f)
    heads, width = c.get("num_key_value_heads", c["num_attention_heads"]), c["hidden_size"] // c["num_attention_heads"]
    # S * H_kv * dh / 4 with an even number of KV heads; an odd one in the middle is sent by both halves' need, once.
    return a.ctx * 2 * ((heads + 1) // 2) * width // 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ctx", type=int, default=8192)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--recompute", default="none")
    parser.add_argument("--timeout", type=float, default=1800)
    parser.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    a = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < a.ranks:
        sys.exit(f"{a.ranks} ranks want as many cores, found {len(cores)}")
    one, many, shares, before = [], [], [], os.times()
    with tempfile.TemporaryDirectory(prefix="ll-cp-bench-") as work:
        data = write_inputs(a, work)
        sides = [(1, one), (a.ranks, many)]
        for i in range(a.rounds):
            for ranks, results in sides if i % 2 == 0 else sides[::-1]:
                used = os.times()
                r = run_gang(a, work, data, ranks, cores)
                spent = r["cpu"] - used.children_user - used.children_system
                shares.append(spent / (r["wall"] * ranks))
                results.append(r)
                print(json.dumps({"ranks": ranks, "cpu_share": round(shares[-1], 2), **{k: r[k] for k in ("seconds", "loss", "peak_bytes")}}),
                      flush=True)
    print("| phase of rank 0, s | 1 rank | " + f"{a.ranks} ranks | ideal |\n|---|---|---|---|")
    for phase in PHASES:
        p1, pn = (statistics.median(r["phases"][phase] for r in side) for side in (one, many))
        print(f"| {phase} | {p1:.3f} | {pn:.3f} | {p1 / a.ranks:.3f} |")
    t1, tn = (statistics.median(r["seconds"] for r in side) for side in (one, many))
    print(f"{a.ctx} tokens, 1 rank: {a.ctx / t1:.1f} tok/s; {a.ranks} ranks: {a.ctx / tn:.1f} tok/s; "
          f"{t1 / tn / a.ranks:.1%} of ideal; at most {bytes_a_layer(a)} bytes a layer, rank and direction")
    if min(shares) < 0.95:
        print(f"the machine was loaded (cpu_share {min(shares):.2f}): repeat on an idle one")


if __name__ == "__main__":
    main()
