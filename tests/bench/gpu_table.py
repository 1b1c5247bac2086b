#!/usr/bin/env python3
"""The aims for a GPU beside what was measured, as the rows of docs/performance.md's table.

    tests/bench/gpu_table.py [DIR]

DIR is what gpu.sh and run.sh wrote to (--out): bench.jsonl, kernels.jsonl, peer/gpu_peer_sweep.jsonl, each of which may be missing. Without DIR, or where
a row was not measured, the row says so. Speeds are those of `deterministic: false`; the last column is how much of it `deterministic: true` keeps.
"""
import json
import pathlib
import sys

DETERMINISTIC_AIM = 0.85
COPY_AIM = 0.85


class Measured:
    """What a folder holds; of a row that is there twice, the last."""

    def __init__(self, folder):
        self.rows = {row["case"]: row for row in read(folder, "bench.jsonl") if "tokens_per_second" in row}
        self.kernels = [k for k in read(folder, "kernels.jsonl") if "share_of_copy" in k and not k.get("product")]
        self.peer = {(p["ctx"], p["attention"]): p for p in read(folder, "peer/gpu_peer_sweep.jsonl") if "ctx" in p}
        host = read(folder, "host.json")
        self.where = sorted({(row["gpu"], row["commit"], row["time"][:10]) for row in self.rows.values()} |
                            {(h["gpu"], h["commit"], h["date"][:10]) for h in host if self.kernels})

    def case(self, name):
        return self.rows.get(name)


def read(folder, name):
    path = pathlib.Path(folder, name) if folder else None
    if path is None or not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            pass  # the last line of a run that was killed
    return rows


def gb(size):
    return f"{size / 1e9:.1f} GB"


# Each of these gives (what was measured, whether the aim holds), or None where it was not measured.

def speed(case, tokens_per_second=0, memory=None):
    def of(m):
        row = m.case(case)
        if row is None:
            return None
        ok = row["tokens_per_second"] >= tokens_per_second and (memory is None or row["peak_bytes"] <= memory)
        return f"{row['tokens_per_second']:,.0f} tok/s, {row['step_seconds']:.2f} s, {gb(row['peak_bytes'])}", ok
    of.case = case
    return of


def of_bf16(ctx, memory):
    def of(m):
        nf4, bf16 = m.case(f"nf4 {ctx}"), m.case(f"bf16 r64 {ctx}")
        if nf4 is None or bf16 is None:
            return None
        ratio = nf4["tokens_per_second"] / bf16["tokens_per_second"]
        return (f"{ratio:.1%} of {bf16['tokens_per_second']:,.0f} tok/s, {gb(nf4['peak_bytes'])}", ratio >= 0.97 and nf4["peak_bytes"] <= memory)
    of.case = f"nf4 {ctx}"
    return of


def memory(case, most):
    def of(m):
        row = m.case(case)
        return row and (f"{gb(row['peak_bytes'])}, {row['tokens_per_second']:,.0f} tok/s", row["peak_bytes"] <= most)
    of.case = case
    return of


def longest(m):
    lengths = [row["context_length"] for case, row in m.rows.items() if case.startswith("nf4 ") and not row.get("activation_offload")]
    return (f"{max(lengths):,} tokens", max(lengths) >= 350_000) if lengths and max(lengths) > 32768 else None


def s2_over_full(m):
    s2, full = m.case("s2 65536"), m.case("full attention 65536")
    if s2 is None or full is None:
        return None
    ratio = s2["tokens_per_second"] / full["tokens_per_second"]
    return f"{ratio:.2f}", ratio >= 1.8


def peer(of_both):
    """`of_both`(ours, theirs) where the peer trained a step of 32,768 tokens; else why it did not."""
    def of(m):
        ours, theirs = m.case("s2 32768"), m.peer.get((32768, "s2"))
        if ours is None or theirs is None:
            return None
        if "tokens_per_second" not in theirs:
            why = "out of memory" if theirs.get("oom") else theirs.get("skipped") or theirs.get("error") or "no result"
            return f"not measured; the peer: {why}", None
        return of_both(ours, theirs)
    return of


def peer_speed(ours, theirs):
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
    return f"{ratio:.2f} ({ours['tokens_per_second']:,.0f} and {theirs['tokens_per_second']:,.0f} tok/s)", ratio >= 2


def peer_memory(ours, theirs):
    """Both as torch's allocator has reserved it."""
    ratio = ours["peak_bytes"] / theirs["peak_cuda_reserved_bytes"]
    return f"{ratio:.2f} ({gb(ours['peak_bytes'])} and {gb(theirs['peak_cuda_reserved_bytes'])})", ratio <= 0.5


def load(case, most):
    def of(m):
        row = m.case(case)
        if row is None or row.get("load_seconds") is None:
            return None
        return f"{row['load_seconds']:.1f} s, {gb(row['host_peak_bytes'])} of host memory", most is None or row["load_seconds"] < most
    return of


def copies(m):
    if not m.kernels:
        return None
    worst = min(m.kernels, key=lambda k: k["share_of_copy"])
    return (f"{worst['share_of_copy']:.0%} ({worst['kernel']}, the least of {len(m.kernels)})", worst["share_of_copy"] >= COPY_AIM)


ROWS = [
    ("7B S² 32,768, full checkpointing", "1.61 s", "≥ 13,000 tok/s (HFU ≥ 64 %)", speed("s2 32768", 13000)),
    ("7B S² 32,768, no recompute (H200)", "1.11 s", "≥ 18,000 tok/s", speed("s2 32768 no recompute", 18000)),
    ("7B S² 100,000", "6.8 s", "≥ 8,000 tok/s; ≤ 60 GB without offload", speed("s2 100000", 8000, 60e9)),
    ("7B NF4, r=64 on all linear layers, 8,192", "", "≥ 97 % of the bf16 base's speed; ≤ 12 GB", of_bf16(8192, 12e9)),
    ("the same, 12,288", "", "≥ 97 %; ≤ 14 GB", of_bf16(12288, 14e9)),
    ("the same, 32,768", "", "≥ 97 %; ≤ 21 GB", of_bf16(32768, 21e9)),
    ("the same, 32,768 with offload", "", "≤ 16 GB", memory("nf4 32768 offload", 16e9)),
    ("7B NF4, longest context on one H200 without offload", "", "≥ 350,000 tokens", longest),
    ("70B NF4 S² 32,768 on one H200", "", "runs; ≥ 1,100 tok/s", speed("70b nf4 32768", 1100)),
    ("beside transformers + peft, S² 32,768, same run: speed", "", "≥ 2", peer(peer_speed)),
    ("the same: memory", "", "≤ 0.5", peer(peer_memory)),
    ("S² over full attention, 65,536", "", "≥ 1.8", s2_over_full),
    ("each elementwise kernel, of a copy's bandwidth", "bytes / bandwidth", "≥ 85 %", copies),
    ("loading 7B in bf16 from page cache", "", "< 10 s", load("s2 32768", 10)),
    ("loading 70B, quantised to NF4 on the fly", "", "bounded host memory", load("70b nf4 32768", None)),
]


def deterministic(m, of):
    """How much of the speed the deterministic row keeps."""
    case = getattr(of, "case", None)
    plain, fixed = m.case(case), m.case(f"{case} deterministic")
    if case is None:
        return ""
    if plain is None or fixed is None:
        return "not measured"
    ratio = fixed["tokens_per_second"] / plain["tokens_per_second"]
    return f"{ratio:.0%}" + ("" if ratio >= DETERMINISTIC_AIM else ", **below 85 %**")


def table(folder):
    m = Measured(folder)
    lines = [f"Measured: {gpu}, {date}, commit {commit[:12]}." for gpu, commit, date in m.where] + [""] * bool(m.where)
    lines += ["| case | floor (data sheet) | aim | measured | aim met | deterministic keeps |", "|---|---|---|---|---|---|"]
    for name, floor, aim, of in ROWS:
        found = of(m)
        text, ok = found or ("not measured", None)
        met = "" if ok is None else "yes" if ok else "**no**"
        lines.append(f"| {name} | {floor} | {aim} | {text} | {met} | {deterministic(m, of)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(sys.argv[1] if len(sys.argv) > 1 else None))
