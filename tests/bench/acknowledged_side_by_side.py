#!/usr/bin/env python3
"""What becomes of acknowledged submissions when the controller is killed: a real Slurm and ll-coordinator, in turn on one machine.

  tests/bench/acknowledged_side_by_side.py [--bin build/bin] [--seconds 3] [--rounds 3]

Each round: one client submits held jobs, one after the other, each with exit status 0 and an id; `kill -9` of the controller (seen dead)
after so many seconds, a restart 0.3 s later; then which of those ids are still known, and whether an id was given twice. Only jobs
acknowledged within Slurm's save interval (5 s by its source) are at risk there: older ones survive. Needs root, and Debian's Slurm,
which it installs where it is missing.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/deploy"))
from slurm import Slurm  # noqa: E402

DEADLINE_S = 60
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32"}


def submit_for(seconds, submit):
    ids, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        ids.append(submit())
    return ids


def on_slurm(seconds, rounds):
    with Slurm(1) as slurm:
        acknowledged = []
        for _ in range(rounds):
            ids = submit_for(seconds, lambda: slurm.run("sbatch", "-H", "--parsable", "--wrap", "true").stdout.strip())
            slurm.kill("slurmctld")
            time.sleep(0.3)
            slurm.start_controller()
            known = set(slurm.states("squeue", "-h", "-t", "all", "-o", "%i"))
            yield len(ids), sum(job not in known for job in ids), len(set(ids) & set(acknowledged))
            acknowledged += ids
            slurm.run("scancel", "--user=root", check=False)


def on_ll(programs, seconds, rounds):
    with tempfile.TemporaryDirectory(prefix="ll-acknowledged-") as folder:
        root = pathlib.Path(folder)
        (root / "model").mkdir()
        (root / "model/config.json").write_text(json.dumps(CONFIG))
        (root / "data.bin").write_bytes(bytes(65536))
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "LL_DATA_DIR": str(root / "data")}

        def start():
            process = subprocess.Popen([programs / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", root / "data"],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True, env=environment)
            line = process.stdout.readline()
            environment["LLCTL_COORDINATOR"] = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]
            return process

        def llctl(*arguments):
            return subprocess.run([programs / "llctl", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=DEADLINE_S,
                                  env=environment).stdout.strip()

        process, acknowledged = start(), []
        try:
            for _ in range(rounds):
                ids = submit_for(seconds, lambda: llctl("-o", "name", "submit", "--model", root / "model", "--data", root / "data.bin", "--ctx", 512))
                process.kill()
                process.wait(DEADLINE_S)
                time.sleep(0.3)
                process = start()
                known = set(llctl("-o", "name", "list", "--all").split())
                yield len(ids), sum(job not in known for job in ids), len(set(ids) & set(acknowledged))
                acknowledged += ids
        finally:
            process.kill()
            process.wait(DEADLINE_S)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/bin")
    ap.add_argument("--seconds", type=float, default=3)
    ap.add_argument("--rounds", type=int, default=3)
    a = ap.parse_args()
    lost_here = 0
    for name, rounds in (("Slurm", on_slurm(a.seconds, a.rounds)), ("ll", on_ll(a.bin.resolve(), a.seconds, a.rounds))):
        for number, (acknowledged, lost, again) in enumerate(rounds, 1):
            print(f"{name:5} round {number}: {acknowledged} acknowledged, {lost} lost, {again} ids given before", flush=True)
            lost_here += (lost + again) if name == "ll" else 0
    return 1 if lost_here else 0


if __name__ == "__main__":
    sys.exit(main())
