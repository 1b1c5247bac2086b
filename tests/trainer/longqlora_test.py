"""LongQLoRA's train_args files run unchanged apart from their paths: every key of both shipped recipes is understood."""
import json
import os

import harness
from harness import events_of, read, run
from sft_test import PAIRS, SftCase

# The key set and the values of LongQLoRA's two recipes (paths aside); lengths are those of the tiny model.
SHARED = {
    "output_dir": "output/some-model", "deepspeed": "./train_args/deepspeed/deepspeed_config_s2.json",
    "max_seq_length": 512, "model_max_length": 512, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16, "logging_steps": 1, "save_steps": 100, "save_total_limit": 3,
    "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 20, "lora_rank": 64, "lora_alpha": 16,
    "lora_dropout": 0.05, "gradient_checkpointing": "true", "disable_tqdm": "false", "optim": "paged_adamw_32bit",
    "seed": 42, "fp16": "true", "report_to": "tensorboard", "dataloader_num_workers": 0, "save_strategy": "steps",
    "weight_decay": 0, "max_grad_norm": 0.3, "remove_unused_columns": "false", "use_flash_attn": "false",
    "train_embedding": "false", "train_norm": "false",
}
PRETRAIN = {"sft": "false", "max_steps": 1000, "learning_rate": "2e-4"}
SFT = {"sft": "true", "num_train_epochs": 1, "learning_rate": "1e-4"}


class LongQloraTest(SftCase):
    def yaml(self, name, recipe, records):
        data = self.path(name + ".jsonl")
        with open(data, "w") as f:
            f.writelines(json.dumps(record) + "\n" for record in records)
        path = self.path(name + ".yaml")
        with open(path, "w") as f:
            f.write("# written as the recipes are: plain keys, a comment, no quotes\n")
            for key, value in {**SHARED, **recipe, "model_name_or_path": self.model, "train_file": data}.items():
                f.write(f"{key}: {value}\n")
        return path

    def train_two_steps(self, path, *settings):
        done = run("train", "--spec", path, "--out", self.path("out"), *settings, "--threads", 1, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        steps = [e for e in events_of(done.stdout) if e["event"] == "step"]
        self.assertEqual([s["step"] for s in steps], [1, 2])
        checkpoint = self.path("out", "checkpoints", "step-000002")
        spec = json.loads(read(checkpoint, "trainer_state.json"))["spec"]
        for key, value in {"method": "longqlora", "quantization": "nf4", "attention": "s2", "lora_rank": 64, "lora_alpha": 16,
                           "lora_dropout": 0.05, "max_grad_norm": 0.3, "global_batch_size": 16, "recompute": "full",
                           "trainable": ["none"], "adam_beta2": 0.999, "context_length": 512}.items():
            self.assertEqual(spec[key], value, key)
        adapter = json.loads(read(checkpoint, "adapter_config.json"))
        self.assertEqual(len(adapter["target_modules"]), 7)
        return spec, done.stderr

    def test_pretraining(self):
        spec, notes = self.train_two_steps(
            self.yaml("pretrain", PRETRAIN, [{"text": " ".join(q + " " + a for q, a in PAIRS[i:] + PAIRS)} for i in range(20)]),
            "--set", "max_steps=2")  # they stand for the recipe's thousand
        self.assertEqual((spec["sft"], spec["learning_rate"]), (False, 2e-4))
        for word in ("output_dir is ignored", "deepspeed is ignored", "fp16 is trained as bf16"):
            self.assertIn(word, notes)

    def test_supervised(self):
        spec, _ = self.train_two_steps(
            self.yaml("sft", SFT, [{"input": q, "output": a} for q, a in PAIRS]))
        self.assertEqual((spec["sft"], spec["prompt_template"], spec["learning_rate"]), (True, "vicuna", 1e-4))
        # One epoch of 20 samples, 16 a step.
        self.assertEqual((spec["num_train_epochs"], spec["max_steps"]), (1, 2))


if __name__ == "__main__":
    harness.main()
