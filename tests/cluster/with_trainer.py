#!/usr/bin/env python3
"""Runs tests of cluster_test with the real trainer on a tiny model: kill -9 changes no bit of real training either.

  with_trainer.py --cluster-test PATH --trainer PATH [--filter GTEST_FILTER]
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 48,
          "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
          "vocab_size": 128, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
          "initializer_range": 0.2, "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 1,
          "eos_token_id": 2}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--cluster-test", required=True)
    ap.add_argument("--trainer", required=True)
    ap.add_argument("--filter", default="ClusterTest.RandomKillsOfEverythingChangeNoBit:"
                                        "ClusterTest.GangAcrossTwoWorkersSurvivesTheLossOfEither:"
                                        "ClusterTest.PauseFreesTheSlotsAndResumeGoesOnBitForBit:"
                                        "ClusterTest.AMergeOfAJobLeavesAFolderInItsOwn")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="ll-cluster-trainer-") as work:
        config, model, data, spec = (os.path.join(work, name) for name in ("config.json", "model", "data.bin", "spec.json"))
        with open(config, "w") as f:
            json.dump(CONFIG, f)
        subprocess.run([a.trainer, "init", "--config", config, "--out", model, "--seed", "3"], check=True, timeout=120)
        with open(os.path.join(model, "tokenizer.json"), "w") as f:
            f.write("{}")  # a merge carries it along
        rng = random.Random(3)
        ids = [(5 * i + rng.randrange(4)) % 125 + 3 for i in range(20_000)]
        with open(data, "wb") as f:
            f.write(struct.pack(f"<{len(ids)}H", *ids))
        with open(spec, "w") as f:
            json.dump({"model": model, "data": data, "context_length": 256, "learning_rate": 1e-3, "lora_dropout": 0.1,
                       "gradient_accumulation_steps": 2, "per_device_batch_size": 1}, f)
        done = subprocess.run([a.cluster_test, f"--gtest_filter={a.filter}"],
                              env=dict(os.environ, LL_TRAINER=a.trainer, LL_SPEC=spec))
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
