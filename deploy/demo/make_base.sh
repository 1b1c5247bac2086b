#!/usr/bin/env bash
# Makes the demo's base model with the running service: tokenizer, token file, one `full` job on two ranks.
#   make_base.sh WORK OUT     WORK holds train.txt; OUT becomes a Hugging Face folder
# Needs LLCTL_COORDINATOR and LL_DATA_DIR of a service with two CPU slots; deploy/demo.sh --from-scratch sets them.
set -euo pipefail
WORK=${1:?usage: make_base.sh WORK OUT} OUT=${2:?usage: make_base.sh WORK OUT}
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$OUT.new"
ll-trainer pack "$WORK/train.txt" --train-tokenizer "$OUT.new/tokenizer.model" --vocab-size 1024 --out "$WORK/pretrain.bin" > "$WORK/pack-pretrain.json"
llctl data add pretrain "$WORK/pretrain.bin" > /dev/null
JOB=$(llctl -o name submit --data pretrain --gpus 2 -f "$HERE/pretrain.yaml" --set model_config="$HERE/base_config.json" \
  --set tokenizer="$OUT.new")
llctl watch "$JOB"
CHECKPOINT=$(llctl -o json get "$JOB" | python3 -c 'import json,sys; print(json.load(sys.stdin)["newest_checkpoint"]["path"])')
cp "$CHECKPOINT"/config.json "$CHECKPOINT"/model*.safetensors "$OUT.new/"
rm -rf "$OUT"
mv "$OUT.new" "$OUT"
