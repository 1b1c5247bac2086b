#!/usr/bin/env bash
# Shows that a machine without CUDA builds and runs the trainer: hides nvcc and every CUDA folder in a mount namespace
# of its own and builds there. Where the machine has none, the ordinary build is that demonstration and is looked at.
#
#   no_cuda_build.sh BUILD_DIR   (the ordinary build, with bin/ll-trainer in it)
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() { echo "no_cuda_build: $*" >&2; exit 1; }

# cpu_only FOLDER: its configuration found no CUDA and its trainer asks the loader for no CUDA library.
cpu_only() {
  ! grep -q '^CMAKE_CUDA_COMPILER:[A-Z]*=/' "$1/CMakeCache.txt" || die "$1 found a CUDA compiler"
  [[ -x $1/bin/ll-trainer ]] || die "$1 has no bin/ll-trainer"
  local needed
  needed=$(readelf -d "$1/bin/ll-trainer" | grep NEEDED)
  ! grep -Eq 'torch_cuda|c10_cuda|cudart|nccl|libcuda' <<< "$needed" || die "ll-trainer needs a CUDA library: $needed"
  "$1/bin/ll-trainer" --help > /dev/null || die "ll-trainer does not start"
}

folders=()
for folder in /usr/local/cuda* /opt/cuda* /usr/lib/cuda /usr/lib/nvidia-cuda-toolkit; do
  [[ -d $folder && ! -L $folder ]] && folders+=("$folder")
done
nvcc=$(command -v nvcc || true)
if ((${#folders[@]} == 0)) && [[ -z $nvcc ]]; then
  cpu_only "$build"
  echo "no_cuda_build: no CUDA on this machine; the ordinary build is CPU-only and starts"
  exit 0
fi

namespace=(unshare --mount)
((EUID == 0)) || namespace=(unshare --user --map-root-user --mount)
export venv=$PWD/build/venv hidden=$PWD/build/no_cuda nvcc
# shellcheck disable=SC2016
"${namespace[@]}" bash -c '
  set -euo pipefail
  mount --make-rprivate / 2> /dev/null || true
  for folder in "$@"; do mount -t tmpfs none "$folder"; done
  if [[ -n $nvcc && -e $nvcc ]]; then mount --bind /dev/null "$nvcc"; fi
  rm -rf "$hidden"
  env -u CUDACXX -u CUDA_HOME -u CUDA_PATH cmake -G Ninja -S . -B "$hidden" -DLL_VENV="$venv" -DLL_SERVICE=OFF -DLL_TESTS=OFF \
    > "$hidden.log" 2>&1 || { tail -n 20 "$hidden.log"; exit 1; }
  grep -q "CUDA parts: OFF" "$hidden.log"
  nice cmake --build "$hidden" --target ll-trainer >> "$hidden.log" 2>&1 || { tail -n 40 "$hidden.log"; exit 1; }
' bash "${folders[@]}"
cpu_only "$hidden"
echo "no_cuda_build: CPU-only build with ${folders[*]} $nvcc hidden"
