#!/usr/bin/env python3
"""smoke.sh on the CPU's entry point, pack.sh, and what run.sh says without a GPU."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv[1])


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)


def without_gpu():
    """An environment whose nvidia-smi finds nothing, whatever this host has."""
    folder = tempfile.mkdtemp()
    fake = pathlib.Path(folder, "nvidia-smi")
    fake.write_text("#!/bin/sh\nexit 9\n")
    fake.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder, "entrypoints.jsonl")
    done = run("bash", ROOT / "tests/gpu/smoke.sh", "--build", BUILD, "--device", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[0]["gpu"] == "cpu" and lines[0]["commit"], lines[0]
    # LibTorch's CPU kernel ends the process where there is no token; the cases behind it are judged all the same.
    status = {line.get("case", line.get("number")): line["status"] for line in lines[1:]}
    assert len(status) == 20 and status["square d128"] == "ok", status
    assert [line["number"] for line in lines[1:] if "case" not in line] == [9, 19], lines
    assert "ok" in done.stdout and list(pathlib.Path(folder).iterdir()) == [out], done.stdout

    for script in ("smoke.sh", "run.sh"):
        done = run("bash", ROOT / "tests/gpu" / script, "--build", BUILD, "--out", f"{folder}/none",
                   env=without_gpu())
        assert done.returncode == 2 and "no GPU" in done.stderr, (script, done)
        done = run("bash", ROOT / "tests/gpu" / script, "--frobnicate")
        assert done.returncode == 2 and "--frobnicate" in done.stderr, (script, done)

    done = run("bash", ROOT / "tests/gpu/pack.sh", "--build", BUILD, "--out", f"{folder}/pack")
    if pathlib.Path(BUILD, "bin/libll_cuda.so").exists():
        assert done.returncode == 0, done.stderr
        names = {path.name for path in pathlib.Path(folder, "pack/bin").iterdir()}
        assert names == {"ll-trainer", "libll_cuda.so", "gpu_check", "nf4_cuda_check"}, names
        # Everything the programs need beyond LibTorch and the C library is there.
        size = sum(path.stat().st_size for path in pathlib.Path(folder, "pack").rglob("*") if path.is_file())
        assert size < 100e6, f"{size} bytes"
        print(f"pack: {size / 1e6:.1f} MB")
    else:
        assert done.returncode == 2 and "missing" in done.stderr, done
print("smoke_test: ok")
