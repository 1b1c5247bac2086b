#!/usr/bin/env python3
"""run.sh and its parts as far as a CPU can run them: ranks over Gloo, loss curves, kernels, deadlines, the sanitizer's call."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv[1])
CHECK, TRAINER = BUILD / "tests/gpu_check", BUILD / "bin/ll-trainer"
sys.path.insert(0, str(ROOT / "tests/gpu"))
import curve

SHAPE = {**curve.SHAPE, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
         "vocab_size": 500, "max_position_embeddings": 64}
CASES = ["all-reduce", "broadcast", "reduce-scatter and all-gather", "exchange", "groups", "waits are counted"]  # of Comm's conformance


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=250, **more)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def program(folder, name, text):
    path = pathlib.Path(folder, name)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def ranks_exchange():
    done = run(CHECK, "comm", "--ranks", 3, "--device", "cpu")
    assert done.returncode == 0, done
    told = lines(done.stdout)
    for rank in range(3):
        assert [line["case"] for line in told if line["rank"] == rank] == CASES, told
    assert all(line["comm"] == "gloo" and line["status"] == "ok" for line in told), told
    # A rank that finds nobody ends by itself, and no refusal is forgiven but NCCL's.
    done = run(CHECK, "comm", "--ranks", 2, "--share", "--rank", 1, "--rendezvous", "127.0.0.1:1", "--device", "cpu", "--limit", 4)
    assert done.returncode == 1 and lines(done.stdout)[0]["status"] == "wrong", done
    assert "127.0.0.1:1" in lines(done.stdout)[0]["message"], done.stdout


def curves(folder):
    config = pathlib.Path(folder, "config.json")
    config.write_text(json.dumps(SHAPE))

    def judged(*more):
        done = run(sys.executable, ROOT / "tests/gpu/curve.py", "--trainer", TRAINER, "--device", "cpu", "--config", config, "--ctx", 64, *more)
        return done, (lines(done.stdout) or [None])[0]

    for more in ((), ("--quantization", "nf4")):
        done, line = judged("--steps", 12, *more)
        assert done.returncode == 0 and line["status"] == "ok", done
        reference = line["losses"]["cpu_fp32"]
        assert len(line["losses"]["device_bf16"]) == 12 and 0 < line["noise"] < 0.05 * (reference[0] - reference[-1]), line
    # A tenth more learning rate is seen.
    done, line = judged("--steps", 12, "--set", "learning_rate=0.0011")
    assert done.returncode == 1 and line["status"] == "wrong" and line["distance"] > line["allowed"], line
    done, line = judged("--steps", 2, "--set", "attention=3")
    assert done.returncode == 2 and "attention" in done.stderr, done


def curve_verdicts():
    falling = [6.0 - 0.1 * i for i in range(10)]
    near = [x + 1e-3 for x in falling]
    assert curve.judge(falling, near, [x - 1.9e-3 for x in falling])["status"] == "ok"
    assert curve.judge(falling, near, [x - 2.1e-3 for x in falling])["status"] == "wrong"
    assert curve.judge(falling, near, falling[:-1])["status"] == "wrong"
    assert curve.judge(falling, near, [*falling[:-1], None])["status"] == "wrong"
    assert curve.judge([6.0] * 10, [6.0] * 10, [6.0] * 10)["message"] == "the reference does not fall"


def steps(folder):
    """run.sh's summary and exit status."""
    def all_steps(out, *more, **env):
        done = run("bash", ROOT / "tests/gpu/run.sh", "--build", BUILD, "--out", out, *more, env={**os.environ, **env})
        return done, pathlib.Path(out, "summary.txt").read_text()

    out = f"{folder}/cpu"
    done, summary = all_steps(out, "--device", "cpu", "--only", "comm")
    assert done.returncode == 0, (done, summary)
    assert "comm-1 " in summary and "comm-2-on-one " in summary and "curve" not in summary, summary
    assert len(lines(pathlib.Path(out, "comm-2-on-one.jsonl").read_text())) == 2 * len(CASES)
    done, summary = all_steps(f"{folder}/never", "--device", "cpu", "--budget", 5)
    assert done.returncode == 1 and summary.count("not reached") == 6, summary
    # The sanitizer is called on the kernels, tool by tool, and what it finds is wrong. Nothing else runs here on this
    # "GPU": its steps say so.
    fakes = f"{folder}/bin"
    os.mkdir(fakes)
    program(fakes, "nvidia-smi", "echo 'Fake GPU, 1.0'\n")
    program(fakes, "compute-sanitizer", 'echo "{\\"called\\": \\"$*\\"}"\n[ -z "$SLOW" ] || exec sleep 60\n[ "$2" != racecheck ] || exit 9\n')
    path = f"{fakes}:{os.environ['PATH']}"
    done, summary = all_steps(f"{folder}/fake", "--only", "check", PATH=path)
    assert done.returncode == 1, done
    for tool, status in (("memcheck", 0), ("racecheck", 9), ("synccheck", 0)):
        called = lines(pathlib.Path(folder, "fake", f"{tool}.jsonl").read_text())[0]["called"]
        assert called == f"--tool {tool} --error-exitcode 9 {CHECK} kernels --small", called
        assert f"exit {status}" in next(line for line in summary.splitlines() if line.startswith(tool)), summary
    # What was written before the time was up stays, and what was not reached is said.
    done, summary = all_steps(f"{folder}/late", "--only", "check", "--budget", 11, PATH=path, SLOW="1")
    assert done.returncode == 1 and "memcheck         exit 124" in summary and summary.count("not reached") == 2, summary
    assert "called" in pathlib.Path(folder, "late/memcheck.jsonl").read_text()
    assert json.loads(pathlib.Path(folder, "fake/host.json").read_text())["gpu"] == "Fake GPU, 1.0"


with tempfile.TemporaryDirectory() as folder:
    curve_verdicts()
    ranks_exchange()
    curves(folder)
    steps(folder)
print("run_test: ok")
