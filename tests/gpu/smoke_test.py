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
    status = {line["case"]: line["status"] for line in lines[1:]}
    assert len(status) == 20 and status["square d128"] == "ok", status
    assert [name for name, what in status.items() if what == "ended the process"] == ["no token d64", "no token d128"], status
    assert "ok" in done.stdout and list(pathlib.Path(folder).iterdir()) == [out], done.stdout
    # Another GPU's section stays, an older one of this device goes.
    other = {"gpu": "NVIDIA A100-SXM4-80GB, 580.1", "commit": "x"}, {"entry_point": "e", "case": "c", "status": "ok"}
    judged = {"entry_point": "f", "case": "d", "status": "wrong"}
    out.write_text("".join(json.dumps(line) + "\n" for line in (lines[0], lines[1], *other, lines[0], lines[1])))
    quick = pathlib.Path(folder, "build", "tests", "gpu_check")
    quick.parent.mkdir(parents=True)
    quick.write_text(f"#!/bin/sh\nif [ $1 = list ]; then echo f; else echo '{json.dumps(judged)}'; fi\n")
    quick.chmod(0o755)
    done = run("bash", ROOT / "tests/gpu/smoke.sh", "--build", quick.parents[1], "--device", "cpu", "--out", out)
    again = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.returncode == 0 and again[:2] == list(other) and again[2]["gpu"] == "cpu" and again[3:] == [judged], (done, again)

    for script in ("smoke.sh", "run.sh"):
        done = run("bash", ROOT / "tests/gpu" / script, "--build", BUILD, "--out", f"{folder}/none",
                   env=without_gpu())
        assert done.returncode == 2 and "no GPU" in done.stderr, (script, done)
        done = run("bash", ROOT / "tests/gpu" / script, "--frobnicate")
        assert done.returncode == 2 and "--frobnicate" in done.stderr, (script, done)

    # The benchmark's rows on a small model: measured, left out for time, wrong.
    config = pathlib.Path(folder, "config.json")
    shape = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 128,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 500,
             "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02,
             "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}

    def bench(*more, **changes):
        config.write_text(json.dumps({**shape, **changes}))
        done = run("bash", ROOT / "tests/bench/gpu.sh", "--build", BUILD, "--device", "cpu", "--config", config, "--scale", 64, "--out", folder, *more)
        return done, [json.loads(line) for line in pathlib.Path(folder, "bench.jsonl").read_text().splitlines()]

    done, rows = bench("--only", "s2 8192")
    assert done.returncode == 0 and [row["case"] for row in rows] == ["s2 8192", "s2 8192 deterministic"], done.stderr
    assert all(row["tokens_per_second"] > 0 and row["peak_bytes"] > 0 and row["steps"] == 2 and "mfu" not in row for row in rows), rows
    assert rows[0]["loss"] == rows[1]["loss"] and rows[0]["context_length"] == 128 and rows[0]["commit"], rows
    assert all(0 < row["load_seconds"] < 60 and row["host_peak_bytes"] > 1e6 for row in rows), rows
    table = pathlib.Path(folder, "table.md").read_text()
    assert "Measured: cpu," in table and "| 7B S² 32,768, full checkpointing |" in table, table
    # Another run goes on behind what is there; a model whose weights are drawn.
    done, more_rows = bench("--only", "s2 8192", "--continue")
    assert done.returncode == 0 and more_rows == rows, (done, more_rows)
    done, rows = bench("--only", "70b")
    assert done.returncode == 0 and [row["method"] for row in rows] == ["longqlora"] * 2 and rows[0]["tokens_per_second"] > 0, (done, rows)
    done, rows = bench("--budget", 1)
    assert done.returncode == 0 and len(rows) == 32 and not any("tokens_per_second" in row for row in rows), done.stderr
    assert {row["left_out"] for row in rows} == {"the time is used up", "a CPU has nowhere to offload to"}, rows
    done, rows = bench("--only", "s2 8192", max_position_embeddings=4096)
    assert done.returncode == 1 and all("context_length" in row["error"] for row in rows), (done, rows)
    # The peer gets its half of the time, and its row is in the table.
    peer = pathlib.Path(folder, "peer.sh")
    peer.write_text('mkdir -p "$OUT"; echo "{\\"ctx\\": 32768, \\"attention\\": \\"$ATTENTIONS\\", \\"error\\": \\"$CTXS within $BUDGET\\"}" > "$OUT/gpu_peer_sweep.jsonl"\n')
    done, rows = bench("--only", "s2 32768", "--budget", 80, "--steps", 2, "--peer", peer)
    table = pathlib.Path(folder, "table.md").read_text()
    assert done.returncode == 0 and "the peer: 32768 65536 within " in table, (done, table)
    assert 39 < int(table.split(" within ")[1].split()[0]) < 80, table
    done = run("bash", ROOT / "tests/bench/gpu.sh", "--build", BUILD, "--out", f"{folder}/none", env=without_gpu())
    assert done.returncode == 2 and "no GPU" in done.stderr, done
    done = run("bash", ROOT / "tests/bench/gpu.sh", "--frobnicate")
    assert done.returncode == 2 and "--frobnicate" in done.stderr, done

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
