#!/usr/bin/env python3
"""Holds the planner to what training really takes: peak memory and step time, forecast beside measured, on this CPU.

  tests/bench/plan_matrix.py --json OUT.jsonl --probe DIR --rounds 5   # measures the matrix so often, then compares
  tests/bench/plan_matrix.py --compare OUT.jsonl --probe DIR  # compares again, after a change of the forecast
  tests/bench/plan_matrix.py --limits                         # runs each in a slot that just holds it, and in one that does not

Every configuration of model shape x context x method x ranks x recompute runs some seconds of steps of `ll-trainer` on
random tokens; measured is the largest rank's peak resident set (as the kernel counts it at exit) and the median step of whole
rows after the first. As any data's, the last row is shorter than the others, and met within three steps: another length costs
memory. The forecast is what `llctl plan --device cpu -o json` says. Step times mean something on an idle machine only;
--probe FOLDER gives the planner probes of this machine (`ll-trainer probe`), which are taken if they are not there yet, with as many
at once as there are ranks and a rank's threads each, as slots of a host would be: new ones before and after every six configurations of
every round, whose mean it gets, for a machine whose speed drifts by as much in minutes as a forecast may be wrong tells nothing of the
planner. Of several rounds a configuration's step time is that of the round with the median error, its memory the largest.

--limits needs root and the memory controller of control groups (version 1): a run in the smallest slot that admission takes must
end well, and one in a slot of 90 % of the forecast, which admission refuses, must be killed when it is forced (there the
libraries, which control groups do not count, are left out).
"""
import argparse
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

MEASURED_SECONDS, MOST_STEPS = 4, 24  # of a configuration
FOR_A_PROBE = 6  # configurations
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02, "torch_dtype": "bfloat16",
          "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 2048}


def shape(model_type, hidden, intermediate, layers, heads, kv, vocab, tied, **more):
    kinds = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    return {**COMMON, "architectures": [kinds[model_type]], "model_type": model_type, "hidden_size": hidden,
            "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "head_dim": 64, "vocab_size": vocab, "tie_word_embeddings": tied, **more}


SHAPES = {
    "small": shape("llama", 256, 704, 4, 4, 2, 4096, True),
    "wide": shape("llama", 768, 2048, 3, 12, 12, 16000, False),
    "deep": shape("llama", 320, 896, 16, 5, 1, 8192, True),
    "qwen3": shape("qwen3", 512, 1536, 6, 8, 4, 32000, False),
    "vocab": shape("llama", 384, 1024, 2, 6, 2, 49152, True),
}


def matrix():
    """The configurations, at least 60 of them; a name says all that differs."""
    out = []

    def add(model, ctx, method, recompute, ranks=1, cp=1, **keys):
        name = f"{model} {ctx} {method} {recompute} r{ranks}" + (f" cp{cp}" if cp > 1 else "")
        name += "".join(f" {k}={v}" for k, v in keys.items())
        out.append({"name": name, "model": model, "ranks": ranks,
                    "spec": {"method": method, "context_length": ctx, "recompute": recompute, "context_parallel": cp, "gpus": ranks,
                             "global_batch_size": max(1, ranks // cp), "precision": "bf16", "max_steps": 3, "warmup_steps": 0,
                             "save_steps": 1_000_000, "seed": 0, "learning_rate": 2e-5, **keys}})

    for model in ("small", "wide", "deep"):
        for ctx in (2048, 8192):
            for method in ("longlora", "longqlora"):
                for recompute in ("none", "selective", "full"):
                    add(model, ctx, method, recompute)
    for model in ("qwen3", "vocab"):
        for method in ("longlora", "lora", "qlora"):
            for recompute in ("none", "full"):
                add(model, 4096, method, recompute)
    for model in ("small", "wide", "vocab"):
        for ctx in (2048, 4096):
            add(model, ctx, "full", "selective")
    for recompute in ("none", "full"):
        for keys in ({"precision": "fp32"}, {"lora_rank": 64}, {"lora_dropout": 0.1}, {"save_steps": 2}, {"quantization": "fp8"}):
            add("wide", 4096, "longlora", recompute, **keys)
        add("small", 16384, "longlora", recompute)
        for model in ("small", "wide"):
            add(model, 4096, "longlora", recompute, 2)
            add(model, 8192, "longlora", recompute, 2, 2)
            add(model, 4096, "longlora", recompute, 2, 2, attention="full")
    for model in ("wide", "vocab"):
        for stage in (1, 2):
            add(model, 4096, "longlora", "selective", 2, zero_stage=stage)
    out.sort(key=lambda case: case["ranks"])
    met = {}
    for case in out:
        met[case["ranks"]] = met.get(case["ranks"], -1) + 1
        case["block"] = met[case["ranks"]] // FOR_A_PROBE
    return out


def ends_a_block(cases, i):
    return i + 1 == len(cases) or (cases[i]["ranks"], cases[i]["block"]) != (cases[i + 1]["ranks"], cases[i + 1]["block"])


def make_model(a, work, name):
    folder = os.path.join(work, name)
    if not os.path.exists(folder):
        config = folder + ".json"
        with open(config, "w") as f:
            json.dump(SHAPES[name], f)
        subprocess.run([a.trainer, "init", "--config", config, "--out", folder], check=True, stdout=subprocess.DEVNULL, timeout=600)
    return folder


def make_tokens(work, count, vocabulary):
    path = os.path.join(work, f"tokens-{count}-{vocabulary}.bin")
    if not os.path.exists(path):
        rng = random.Random(0)
        with open(path, "wb") as f:
            f.write(struct.pack(f"<{count}H", *(rng.randrange(3, vocabulary) for _ in range(count))))
    return path


def write_spec(a, work, case, **changes):
    tokens = case["spec"]["context_length"] * (48 * case["spec"]["global_batch_size"] - 7) // 16  # 7/16 of a row less than three steps
    spec = {**case["spec"], "model": make_model(a, work, case["model"]), "data": make_tokens(work, tokens, SHAPES[case["model"]]["vocab_size"]),
            "original_context_length": case["spec"]["context_length"], **changes}
    path = os.path.join(work, "spec.json")
    with open(path, "w") as f:
        json.dump(spec, f)
    return path


class MemoryLimit:
    """A control group of our own; its processes are killed beyond `size` bytes."""

    def __init__(self, size):
        self.folder = f"/sys/fs/cgroup/memory/ll-plan-matrix-{os.getpid()}"
        os.makedirs(self.folder)
        with open(self.folder + "/memory.limit_in_bytes", "w") as f:
            f.write(str(size))

    def enter(self):
        with open(self.folder + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))

    def remove(self):
        os.rmdir(self.folder)


def run_ranks(a, work, case, spec, limit=None):
    """(exit codes, peak bytes of each rank, events of rank 0). `limit`: a MemoryLimit for all ranks together."""
    out = os.path.join(work, "out")
    shutil.rmtree(out, ignore_errors=True)
    ranks, controls, events, peaks, codes = [], [], [], {}, {}

    for rank in range(case["ranks"]):
        control_read, control_write = os.pipe()
        args = [a.trainer, "run", "--spec", spec, "--out", out, "--rank", rank, "--world", case["ranks"], "--nonce", "matrix",
                "--threads", max(1, a.threads // case["ranks"]), "--control-fd", control_read]
        ranks.append(subprocess.Popen(list(map(str, args)), stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, text=True, pass_fds=[control_read], preexec_fn=limit.enter if limit else None))
        os.close(control_read)
        controls.append(control_write)

    def pump():
        for line in ranks[0].stdout:
            event = json.loads(line)
            events.append(event)
            if event["event"] == "rendezvous":
                for control in controls[1:]:
                    os.write(control, (json.dumps({"rendezvous": event["address"]}) + "\n").encode())

    reader = threading.Thread(target=pump, daemon=True)
    reader.start()
    watchdog = threading.Timer(a.timeout, lambda: [r.kill() for r in ranks])
    watchdog.start()
    for i, rank in enumerate(ranks):
        _, status, usage = os.wait4(rank.pid, 0)
        codes[i], peaks[i] = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
        rank.returncode = codes[i]
        if codes[i] != 0:
            for other in ranks[i + 1:]:
                other.kill()
    watchdog.cancel()
    reader.join(10)
    for control in controls:
        os.close(control)
    return [codes[i] for i in sorted(codes)], [peaks[i] for i in sorted(peaks)], events


def probe_path(a, case, turn, number):
    """Of the probe before the case's block of configurations (number 0), and after it (1), which is the one before the next."""
    return os.path.join(a.probe, f"round-{turn}-ranks-{case['ranks']}-{case['block'] + number}.json")


def take_probe(a, path, ranks):
    if os.path.exists(path):
        return
    os.makedirs(a.probe, exist_ok=True)
    command = [a.trainer, "probe", "--device", "cpu", "--threads", str(max(1, a.threads // ranks)), "--seconds", str(a.probe_seconds)]
    probes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(ranks)]
    told = [p.communicate(timeout=300)[0] for p in probes]
    if any(p.returncode for p in probes):
        sys.exit("ll-trainer probe failed")
    with open(path, "w") as f:
        f.write(min(told, key=lambda text: json.loads(text)["gemm_flops"]))  # whom the others wait for


def write_calibration(a, work, case, turn):
    """The mean of the probes around the case, as far as there are some."""
    found = []
    for path in (probe_path(a, case, turn, number) for number in (0, 1)):
        if os.path.exists(path):
            with open(path) as f:
                found.append(json.load(f))
    mean = {key: statistics.fmean(p[key] for p in found) if isinstance(value, float) else value for key, value in found[0].items()}
    path = os.path.join(work, "calibration.json")
    with open(path, "w") as f:
        json.dump(mean, f)
    return path


def measure(a, work, case, turn):
    step = forecast(a, work, case, turn)[0]["forecast"].get("plan", {}).get("step_seconds", 0) or 1
    steps = min(MOST_STEPS, max(case["spec"]["max_steps"], round(MEASURED_SECONDS / step)))
    codes, peaks, events = run_ranks(a, work, case, write_spec(a, work, case, max_steps=steps))
    if any(codes):
        told = [e.get("message", "") for e in events if e["event"] == "error"]
        sys.exit(f"{case['name']}: ll-trainer ended with {codes}: {told}")
    steps = [e for e in events if e["event"] == "step"][1:]
    whole = max(e["tokens"] for e in steps)
    seconds = statistics.median(e["step_seconds"] for e in steps if e["tokens"] == whole)
    return {"name": case["name"], "round": turn, "peak_bytes": max(peaks), "step_seconds": seconds}


def forecast(a, work, case, turn, *more):
    spec = write_spec(a, work, case)
    args = [a.llctl, "plan", "--device", "cpu", "-f", spec, "-o", "json", *more]
    if a.probe and os.path.exists(probe_path(a, case, turn, 0)):
        args += ["--calibration", write_calibration(a, work, case, turn)]
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode not in (0, 3):
        sys.exit(f"{case['name']}: llctl plan ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout if done.returncode == 0 else done.stderr), done.returncode == 0


def compare(a, work, cases, measured):
    worst_over = worst_under = 0.0
    errors, times, residuals = [], [], []
    print(f"{'configuration':48} {'forecast MB':>11} {'measured MB':>11} {'error':>7} {'forecast s':>10} {'measured s':>10}")
    for case in cases:
        rounds = measured.get(case["name"], {})
        if not rounds:
            continue
        told = {turn: forecast(a, work, case, turn)[0]["forecast"] for turn in rounds}
        seconds_of = {turn: told[turn].get("plan", {}).get("step_seconds", 0) for turn in rounds}
        by_error = sorted(rounds, key=lambda turn: seconds_of[turn] / rounds[turn]["step_seconds"])
        turn = by_error[len(by_error) // 2]
        f, peak, seconds, took = told[turn], max(m["peak_bytes"] for m in rounds.values()), seconds_of[turn], rounds[turn]["step_seconds"]
        error = f["bytes_per_rank"] / peak - 1
        errors.append(error)
        if seconds:
            times.append(seconds / took - 1)
            residuals.append(f"{case['name']},{seconds:.4f},{took:.4f},{seconds / took:.4f}\n")
        print(f"{case['name']:48} {f['bytes_per_rank'] / 1e6:11.1f} {peak / 1e6:11.1f} {error:+7.1%} "
              f"{seconds:10.3f} {took:10.3f}" + (json.dumps(f["plan"]["memory"]) if a.parts else ""))
        worst_over, worst_under = max(worst_over, error), min(worst_under, error)
    if errors:
        within = sum(abs(e) <= 0.05 for e in errors)
        print(f"{len(errors)} configurations: memory within 5 %: {within}; most over {worst_over:+.1%}, most under {worst_under:+.1%}")
    if a.residuals:
        with open(a.residuals, "w") as f:
            f.write("configuration,forecast_seconds,measured_seconds,ratio\n")
            f.writelines(residuals)
    if times:
        print(f"step time within 10 %: {sum(abs(t) <= 0.1 for t in times)} of {len(times)}; "
              f"{min(times):+.1%} to {max(times):+.1%}")
    return worst_under >= -0.01 and all(abs(e) <= 0.05 for e in errors)


def hold_to_limits(a, work, cases):
    """How many of the cases end as admission says, at the edge of what it takes and below it."""
    admitted = killed = tried = 0
    for case in cases:
        if case["ranks"] > 1:
            continue  # their shared pages would count once
        told = forecast(a, work, case, 0)[0]["forecast"]
        needs = told["bytes_per_rank"]
        slot = int(needs / 0.96) + 1  # 4 % of a slot are left alone
        refused = not forecast(a, work, case, 0, "--device-memory", str(int(needs * 0.9)), "--gpus-per-host", "1")[1]
        # The libraries' pages are files', which a control group does not count where another has them too.
        short = int((needs - told["plan"]["memory"]["runtime"]) * 0.9)
        outcomes = []
        for size in (slot, short):
            limit = MemoryLimit(size)
            outcomes.append(run_ranks(a, work, case, write_spec(a, work, case), limit)[0][0])
            limit.remove()
        tried += 1
        admitted += outcomes[0] == 0
        killed += refused and outcomes[1] == -9
        print(f"{case['name']:48} in {slot / 1e6:.0f} MB: {outcomes[0]}; refused {refused}, in {short / 1e6:.0f} MB beside libraries: {outcomes[1]}",
              flush=True)
    print(f"{tried} configurations: admitted and ended well {admitted}, refused and killed when forced {killed}")
    return admitted == killed == tried


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--json", help="append one JSON line a configuration; what is there already is not measured again")
    ap.add_argument("--compare", metavar="JSONL")
    ap.add_argument("--limits", action="store_true")
    ap.add_argument("--residuals", metavar="CSV", help="write configuration, forecast and measured step seconds and their ratio there")
    ap.add_argument("--only", default="", help="configurations whose name contains this")
    ap.add_argument("--parts", action="store_true", help="print the forecast's components")
    ap.add_argument("--probe", metavar="FOLDER", help="what ll-trainer probe prints on this machine is kept there")
    ap.add_argument("--probe-seconds", type=float, default=8, help="for one probe")
    ap.add_argument("--rounds", type=int, default=1)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--trainer", default=os.path.join(ROOT, "build", "bin", "ll-trainer"))
    ap.add_argument("--llctl", default=os.path.join(ROOT, "build", "bin", "llctl"))
    ap.add_argument("--timeout", type=float, default=600, help="seconds for one run")
    a = ap.parse_args()
    cases = [c for c in matrix() if a.only in c["name"]]
    print(f"{len(cases)} configurations; load average {os.getloadavg()[0]:.2f}", file=sys.stderr)
    known = a.compare or a.json
    measured = {}
    if known and os.path.exists(known):
        with open(known) as f:
            for m in map(json.loads, f):
                measured.setdefault(m["name"], {})[m["round"]] = m
    with tempfile.TemporaryDirectory(prefix="ll-plan-matrix-") as work:
        if a.limits:
            return 0 if hold_to_limits(a, work, cases) else 1
        for turn, i in [] if a.compare else [(turn, i) for turn in range(a.rounds) for i in range(len(cases))]:
            case, rounds = cases[i], measured.setdefault(cases[i]["name"], {})
            if turn in rounds:
                continue
            if a.probe:
                take_probe(a, probe_path(a, case, turn, 0), case["ranks"])
            rounds[turn] = measure(a, work, case, turn)
            print(f"measured {case['name']}: {rounds[turn]['peak_bytes'] / 1e6:.1f} MB", file=sys.stderr)
            if a.json:
                with open(a.json, "a") as f:
                    f.write(json.dumps(rounds[turn]) + "\n")
            if a.probe and ends_a_block(cases, i):
                take_probe(a, probe_path(a, case, turn, 1), case["ranks"])
        if a.compare or os.path.exists(a.llctl):
            return 0 if compare(a, work, cases, measured) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
