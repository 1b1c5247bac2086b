#!/usr/bin/env bash
# Finds or makes what check_smollm2.py, or another check beside it, needs and runs it.
#
#   run.sh BUILD_DIR [CHECK.py] [its flags]
#
# LL_SMOLLM2 names a Hugging Face folder of SmolLM2-135M; without it one is made in BUILD_DIR/smollm2 by the recipe that
# lies beside this repository in ../shared/bench.
set -euo pipefail
build=$(realpath "$1")
shift
check=check_smollm2.py
if [[ ${1:-} == *.py ]]; then
  check=$1
  shift
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$build/venv/bin/python
model=${LL_SMOLLM2:-$build/smollm2}
if [[ ! -f $model/config.json ]]; then
  recipe=../shared/bench/get_smollm2.py
  [[ -f $recipe ]] || { echo "real_model: give LL_SMOLLM2=FOLDER, a Hugging Face folder of SmolLM2-135M" >&2; exit 1; }
  "$python" "$recipe" "$model"
fi
text=$build/smollm2-text.txt
bible -f Gen1:1-Rev22:21 2> /dev/null | sed -E 's/^[A-Za-z0-9]+:[0-9]+ //' > "$text"
exec "$python" "tests/real_model/$check" --trainer "$build/bin/ll-trainer" --model "$model" --text "$text" "$@"
