#!/usr/bin/env bash
# Collects what a GPU host needs that has PyTorch but not this project's build: the programs, stripped, and the shared
# libraries beside LibTorch's and the C library's, as a folder and as a file. Nothing is compiled there.
#   tests/gpu/pack.sh [--build DIR] [--out DIR]        default build/, build/gpu-pack/
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build out=$root/build/gpu-pack
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) echo "pack.sh: unknown flag $1" >&2; exit 2 ;;
  esac
done
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
for file in bin/ll-trainer bin/libll_cuda.so tests/gpu_check tests/nf4_cuda_check; do
  [ -e "$build/$file" ] || { echo "pack.sh: $build/$file is missing: build it first" >&2; exit 2; }
  strip -o "$out/bin/${file##*/}" "$build/$file"
done
venv=$(readlink -f "$build/venv")
ldd "$out"/bin/* 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  while read -r library; do
    case $(readlink -f "$library") in "$venv"/*) continue ;; esac
    case ${library##*/} in libc.so.*|libm.so.*|libdl.so.*|librt.so.*|libpthread.so.*|libutil.so.*|ld-linux*) continue ;; esac
    cp -L "$library" "$out/lib/"
  done
git -C "$root" rev-parse HEAD > "$out/COMMIT" 2>/dev/null || echo unknown > "$out/COMMIT"
# One file, for a machine that takes few bytes: --pack FILE there.
tar -czf "$out.tar.gz" -C "$(dirname "$out")" "$(basename "$out")"
du -sh "$out.tar.gz" | awk '{print "packed " $1 " in " $2}'
du -sh "$out" | awk '{print "packed " $1 " in " $2}'
