#!/usr/bin/env python3
"""The compiler's resource report of every kernel, held to stated limits.

Compiles each kernels/*/*_cuda.cu for sm_80, sm_90 and sm_90a with nvcc's assembler talking, and fails where a kernel spills
registers, keeps an array in local memory, or needs more registers than lets its blocks fill a multiprocessor.
Prints one line a kernel: registers, shared bytes. Nothing runs, so no GPU is needed.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

# 65,536 registers a multiprocessor and 2,048 threads: 64 a thread leave room for half of them, which is enough for
# kernels bound by memory with several loads in flight.
MAX_REGISTERS = 64
MAX_STATIC_SHARED = 8 * 1024

NAME = re.compile(r"Compiling entry function '([^']+)' for '(sm_\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(.*)")


def report(nvcc, source, file, arch):
    """[(kernel, stack, spills, registers, shared)] of one source."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++17", f"-arch={arch}", "-O3", "-Xptxas=-v", f"-I{source}", "-cubin",
                   "-o", f"{folder}/out.cubin", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"{file}: {done.stderr}")
    kernels, name, stack, spills = [], None, 0, 0
    for line in done.stderr.splitlines():
        if match := NAME.search(line):
            name = match[1]
        elif match := FRAME.search(line):
            stack, spills = int(match[1]), int(match[2]) + int(match[3])
        elif (match := USED.search(line)) and name:
            shared = re.search(r"(\d+) bytes smem", match[2])
            kernels.append((name, stack, spills, int(match[1]), int(shared[1]) if shared else 0))
            name = None
    return kernels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    args = parser.parse_args()
    files = sorted(args.source.glob("kernels/*/*_cuda.cu"))
    if not files:
        sys.exit("no kernel sources found")
    bad = 0
    for arch in ("sm_80", "sm_90", "sm_90a"):
        for file in files:
            kernels = report(args.nvcc, args.source, file, arch)
            if not kernels:
                sys.exit(f"{file}: no kernel in the compiler's report")
            for name, stack, spills, registers, shared in kernels:
                wrong = [text for text, holds in [
                    (f"{stack} bytes of local memory", stack > 0),
                    (f"{spills} bytes spilled", spills > 0),
                    (f"{registers} registers, limit {MAX_REGISTERS}", registers > MAX_REGISTERS),
                    (f"{shared} bytes of static shared memory, limit {MAX_STATIC_SHARED}",
                     shared > MAX_STATIC_SHARED)] if holds]
                bad += bool(wrong)
                print(f"{arch} {file.parent.name} {name}: {registers} registers, {shared} bytes shared"
                      + (" WRONG: " + "; ".join(wrong) if wrong else ""))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
