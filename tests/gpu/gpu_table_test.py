#!/usr/bin/env python3
"""tests/bench/gpu_table.py on made-up measurements."""
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
import gpu_table

GPU = {"gpu": "Made-up GPU, 1", "commit": "0123456789abcdef", "time": "2026-01-02T03:04:05+00:00"}


def row(case, tokens_per_second, peak_gb, **more):
    return {"case": case, "context_length": int(case.split()[-1]) if case.split()[-1].isdigit() else 32768, "tokens_per_second": tokens_per_second,
            "step_seconds": 32768 / tokens_per_second, "peak_bytes": peak_gb * 1e9, "load_seconds": 4.5, "host_peak_bytes": 2e9, **GPU, **more}


def cells(text, name):
    found = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    assert len(found) == 1, (name, found)
    return [cell.strip() for cell in found[0].strip("|").split("|")][3:]


def write(folder, name, rows):
    path = pathlib.Path(folder, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))


NOTHING = gpu_table.table(None)
assert NOTHING.count("not measured") >= len(gpu_table.ROWS) and "yes" not in NOTHING and "**no**" not in NOTHING

with tempfile.TemporaryDirectory() as folder:
    write(folder, "bench.jsonl", [
        row("s2 32768", 14000, 30), row("s2 32768 deterministic", 11000, 30), row("s2 100000", 9000, 61), row("s2 65536", 1900, 40),
        row("full attention 65536", 1000, 40), row("nf4 8192", 9600, 11), row("bf16 r64 8192", 10000, 20), row("nf4 12288", 9800, 13),
        row("bf16 r64 12288", 10000, 20), row("nf4 32768 offload", 5000, 15.5, activation_offload=True),
        {"case": "nf4 360448", "context_length": 360448, "out_of_memory": True, **GPU}, {"profile": "s2 32768", **GPU}])
    with open(f"{folder}/bench.jsonl", "a") as f:
        f.write('{"case": "70b nf4 32768", "tok')  # killed here
    write(folder, "kernels.jsonl", [{"kernel": "rope", "error": 1e-3, "status": "ok"}, {"kernel": "rope", "share_of_copy": 0.9},
                                    {"kernel": "adamw", "share_of_copy": 0.8}, {"kernel": "add_outer_product", "share_of_copy": 0.5, "product": True}])
    write(folder, "host.json", [{"date": "2026-01-02T00:00:00Z", "gpu": GPU["gpu"], "commit": GPU["commit"]}])
    write(folder, "peer/gpu_peer_sweep.jsonl", [{"ctx": 32768, "attention": "s2", "tokens_per_second": 5000, "peak_cuda_reserved_bytes": 50e9}])
    text = gpu_table.table(folder)
    assert text.startswith("Measured: Made-up GPU, 1, 2026-01-02, commit 0123456789ab.\n\n| case |"), text
    assert cells(text, "7B S² 32,768, full checkpointing") == ["14,000 tok/s, 2.34 s, 30.0 GB", "yes", "79%, **below 85 %**"], text
    assert cells(text, "7B S² 100,000")[1] == "**no**"  # fast enough, but too large
    assert cells(text, "7B NF4, r=64 on all linear layers, 8,192")[:2] == ["96.0% of 10,000 tok/s, 11.0 GB", "**no**"]
    assert cells(text, "the same, 12,288")[:2] == ["98.0% of 10,000 tok/s, 13.0 GB", "yes"]
    assert cells(text, "the same, 32,768")[0] == "not measured"
    assert cells(text, "the same, 32,768 with offload")[:2] == ["15.5 GB, 5,000 tok/s", "yes"]
    assert cells(text, "7B NF4, longest context on one H200 without offload")[0] == "not measured"
    assert cells(text, "70B NF4 S² 32,768 on one H200")[0] == "not measured"
    assert cells(text, "beside transformers + peft, S² 32,768, same run: speed")[:2] == ["2.80 (14,000 and 5,000 tok/s)", "yes"]
    assert cells(text, "the same: memory")[:2] == ["0.60 (30.0 GB and 50.0 GB)", "**no**"]
    assert cells(text, "S² over full attention, 65,536")[:2] == ["1.90", "yes"]
    assert cells(text, "each elementwise kernel, of a copy's bandwidth")[:2] == ["80% (adamw, the least of 2)", "**no**"]
    assert cells(text, "loading 7B in bf16 from page cache")[:2] == ["4.5 s, 2.0 GB of host memory", "yes"]
    write(folder, "peer/gpu_peer_sweep.jsonl", [{"ctx": 32768, "attention": "s2", "error": "x", "oom": True}])
    assert cells(gpu_table.table(folder), "the same: memory")[:2] == ["not measured; the peer: out of memory", ""]
print("gpu_table_test: ok")
