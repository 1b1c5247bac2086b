#!/usr/bin/env python3
"""Compares NF4 quantisation with bitsandbytes, byte for byte.

  check_nf4.py --driver nf4_driver [--seed N]

Codes and nested absmax are equal given bitsandbytes' offset (the mean of the absmax, whose sum either side may round in
another order: it differs by 2 units in the last place at most), and so are the dequantised values, bit for bit, given the
same bytes. The absmax codes are those of bitsandbytes' GPU kernels and default backend: the nearest entry of the map. Its
CPU build looks values up in a table of 65,536 entries, so that a code near a midpoint may be the neighbour's: there ours must
be at least as near. Every run draws a new seed and prints it.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch

import bitsandbytes.functional as bnb

SHAPES = [(1, 64), (3, 64), (64, 192), (576, 576), (257, 320), (192, 1536)]


def ours(driver, w, dtype, offset, work):
    source, target = os.path.join(work, "in"), os.path.join(work, "out")
    w.float().numpy().tofile(source)
    subprocess.run([driver, dtype, str(w.shape[0]), str(w.shape[1]), offset, source, target], check=True, timeout=60)
    data, out, at = open(target, "rb").read(), {}, 0
    blocks = w.numel() // 64
    for name, count, kind in [("codes", w.numel() // 2, np.uint8), ("absmax", blocks, np.uint8),
                              ("nested_absmax", -(-blocks // 256), np.float32), ("offset", 1, np.float32),
                              ("values", w.numel(), np.float32), ("nested_map", 256, np.float32)]:
        out[name] = np.frombuffer(data, kind, count, at)
        at += out[name].nbytes
    assert at == len(data)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--driver", required=True)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    a = ap.parse_args()
    print(f"seed {a.seed} (--seed {a.seed} repeats it)")
    generator, wrong = torch.Generator().manual_seed(a.seed), 0
    with tempfile.TemporaryDirectory(prefix="ll-nf4-") as work:
        for rows, columns in SHAPES:
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                w = (torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)).to(dtype)
                codes, state = bnb.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
                offset = np.float32(state.offset.item())
                got = ours(a.driver, w, name, repr(float(offset)), work)
                absmax = w.float().view(-1, 64).abs().amax(1).numpy() - offset
                scale = np.repeat(state.state2.absmax.numpy(), 256)[:len(absmax)]
                code_map, their_absmax = state.state2.code.numpy(), state.absmax.numpy()
                distance = [np.abs(code_map[c].astype(np.float64) * scale - absmax) for c in (got["absmax"], their_absmax)]
                state.absmax = torch.from_numpy(got["absmax"].copy())
                back = bnb.dequantize_4bit(codes, state).float().flatten().numpy()
                theirs = {"codes": codes.flatten().numpy(), "nested_absmax": state.state2.absmax.numpy(), "values": back,
                          "nested_map": code_map}
                own = ours(a.driver, w, name, "mean", work)["offset"][0]
                checks = {key: np.array_equal(got[key].view(np.uint8), value.view(np.uint8)) for key, value in theirs.items()}
                checks["absmax"] = bool((distance[0] <= distance[1] + 1e-6 * scale).all())
                checks["offset"] = abs(float(own) - float(offset)) <= 2 * float(np.spacing(offset))
                bad = [key for key, good in checks.items() if not good]
                wrong += bool(bad)
                print(f"{'WRONG' if bad else 'ok   '} {rows} x {columns} {name}" + (f": {', '.join(bad)}" if bad else ""))
                for key in bad:
                    if key in theirs and key != "values":
                        at = np.nonzero(got[key] != theirs[key])[0]
                        print(f"      {key}: {len(at)} differ, first at {at[:3]}: {got[key][at[:3]]} for {theirs[key][at[:3]]}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
