# Sourced by run.sh and smoke.sh. Sets `bin` to the folder of the programs and, for packed ones, the library path to
# this host's LibTorch. Reads `pack` (a folder, or the file made of it) and `build`.
if [ -n "$pack" ]; then
  if [ -f "$pack" ]; then
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    tar -xzf "$pack" -C "$unpacked" --strip-components 1 || exit 2
    pack=$unpacked
  fi
  bin=$pack/bin
  torch=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))') || {
    echo "this host's python3 has no torch" >&2
    exit 2
  }
  libraries=$pack/lib:$pack/bin:$torch/lib
  for folder in "$torch"/../nvidia/*/lib "$torch"/../nvidia/*/*/lib "$torch"/../torch.libs; do
    [ -d "$folder" ] && libraries=$libraries:$folder
  done
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  commit=$(cat "$pack/COMMIT")
else
  bin=$build/tests
  commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
fi
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1) || gpu=
