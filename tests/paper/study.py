"""LongLoRA's tables in small: a tiny Llama is pre-trained at 256 tokens and extended to 1,024 in every way the paper compares.

  build/venv/bin/python tests/paper/study.py --trainer build/bin/ll-trainer --text TEXT.txt --out DIR [--seeds 1 2 3] [--jobs 2]

A seed is a base model of its own (weights, order of rows, LoRA's start). Every run is one `ll-trainer train` and its perplexity on
held-out text is `ll-trainer eval perplexity` with full attention. Runs that are done are not repeated, so the study can be
interrupted. Writes DIR/results.json; report.py makes the page of it. --smoke runs two steps of two variants: does it work at all.
"""
import argparse
import concurrent.futures
import json
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BASE_CONTEXT, CONTEXT = 256, 1024
CONFIG = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=192, intermediate_size=512,
              num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, vocab_size=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
              max_position_embeddings=BASE_CONTEXT, tie_word_embeddings=False, initializer_range=0.02, attention_bias=False, mlp_bias=False,
              bos_token_id=1, eos_token_id=2)
PRETRAIN = dict(kind="train", method="full", attention="full", rope="none", context_length=BASE_CONTEXT, learning_rate=3e-3, warmup_steps=50,
                lr_schedule="cosine", weight_decay=0.1, max_grad_norm=1.0, max_steps=1200, per_device_batch_size=16,
                gradient_accumulation_steps=1, precision="bf16", save_steps=0, save_total_limit=1)
EXTEND = dict(kind="train", rope="linear", context_length=CONTEXT, warmup_steps=20, lr_schedule="constant_with_warmup", max_steps=200,
              per_device_batch_size=4, gradient_accumulation_steps=2, precision="bf16", save_steps=0, save_total_limit=1,
              eval_steps=20, eval_seq_len=CONTEXT, eval_sliding_window=CONTEXT, eval_mode="exact", max_grad_norm=1.0)
# The learning rate is the best of {2.5e-4, 5e-4, 1e-3, 2e-3} for `full / s2` and for LoRA + norm + embed on seed 100, which is no
# seed of the study (--sweep): one for all, as in the paper.
FULL = dict(method="full", learning_rate=5e-4)
LORA = dict(method="longlora", attention="s2", learning_rate=5e-4)
VARIANTS = {
    "full / full attention": dict(FULL, attention="full"),
    "full / short": dict(FULL, attention="short"),
    "full / s2": dict(FULL, attention="s2"),
    "LoRA r=8": dict(LORA, trainable=["none"]),
    "LoRA r=8 + norm": dict(LORA, trainable=["norm"]),
    "LoRA r=8 + embed": dict(LORA, trainable=["embed"]),
    "LoRA r=8 + norm + embed": dict(LORA, trainable=["norm", "embed"]),
    "LoRA r=8 + norm + embed, full attention in the last 20 %": dict(LORA, trainable=["norm", "embed"], full_attention_steps="20%"),
    "LoRA r=64": dict(LORA, trainable=["none"], lora_rank=64, lora_alpha=128),
    "full / s2, G = N/2": dict(FULL, attention="s2", group_ratio=1 / 2),
    "full / s2, G = N/8": dict(FULL, attention="s2", group_ratio=1 / 8),
    "full / s2, G = N/6": dict(FULL, attention="s2", group_ratio=1 / 6),
    "LoRA r=16": dict(LORA, trainable=["none"], lora_rank=16, lora_alpha=32),
    "LoRA r=32": dict(LORA, trainable=["none"], lora_rank=32, lora_alpha=64),
}


class Study:
    def __init__(self, args):
        self.args = args
        self.results_path = os.path.join(args.out, "results.json")
        self.results = json.load(open(self.results_path)) if os.path.exists(self.results_path) else {}

    def trainer(self, *arguments, log):
        with open(log, "w") as out:
            command = [self.args.trainer, *map(str, arguments)]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=out, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {open(log).read()[-400:]}")
        return done.stdout

    def path(self, *parts):
        return os.path.join(self.args.out, *parts)

    def prepare(self):
        """Tokenizer, config and the two token files; the last twentieth of the text is held out."""
        os.makedirs(self.path("tokenizer"), exist_ok=True)
        json.dump(CONFIG, open(self.path("config.json"), "w"), indent=1)
        if os.path.exists(self.path("held.bin.json")):
            return
        lines = open(self.args.text, encoding="utf-8").read().splitlines(keepends=True)
        held = len(lines) // 20
        open(self.path("train.txt"), "w").writelines(lines[:-held])
        open(self.path("held.txt"), "w").writelines(lines[-held:])
        self.trainer("pack", self.path("train.txt"), "--train-tokenizer", self.path("tokenizer", "tokenizer.model"), "--vocab-size",
                     CONFIG["vocab_size"], "--out", self.path("train.bin"), log=self.path("pack.log"))
        self.trainer("pack", self.path("held.txt"), "--tokenizer", self.path("tokenizer"), "--out", self.path("held.bin"), log=self.path("pack.log"))

    def train(self, name, spec):
        """One training; returns its events and its newest checkpoint."""
        out = self.path(name)
        spec = dict(spec, data=self.path("train.bin"))
        json.dump(spec, open(out + ".json", "w"), indent=1)
        self.trainer("train", "--spec", out + ".json", "--out", out, log=out + ".log")
        events = [json.loads(line) for line in open(os.path.join(out, "events.jsonl"))]  # of an interrupted run too
        return events, events[-1]["result"]["checkpoint"]

    def perplexity(self, name, model, adapter, seq_len, context):
        arguments = ["eval", "perplexity", "--data", self.path("held.bin"), "--seq-len", seq_len, "--sliding-window", seq_len, "--mode", "exact",
                     "--context-size", context, "--threads", 1]
        if model:
            arguments += ["--model", model]
        if adapter:
            arguments += ["--adapter", adapter]
        return json.loads(self.trainer(*arguments, log=self.path(name + ".eval.log")))["perplexity"]

    def base(self, seed):
        """Pre-trains seed's model and measures it untuned."""
        folder = self.path(f"base-{seed}")
        spec = dict(PRETRAIN, seed=seed, model_config=self.path("config.json"), tokenizer=self.path("tokenizer"))
        if self.args.smoke:
            spec.update(max_steps=2, warmup_steps=1)
        _, checkpoint = self.train(f"pretrain-{seed}", spec)
        os.makedirs(folder, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            os.replace(os.path.join(checkpoint, file), os.path.join(folder, file))
        return {"at 256": self.perplexity(f"base-{seed}-256", folder, None, BASE_CONTEXT, BASE_CONTEXT),
                "untuned at 1024": self.perplexity(f"base-{seed}-1024", folder, None, CONTEXT, CONTEXT),
                "untuned at 256, scaled to 1024": self.perplexity(f"base-{seed}-scaled", folder, None, BASE_CONTEXT, CONTEXT)}

    def extend(self, seed, variant, extra=None):
        spec = dict(EXTEND, **VARIANTS[variant], seed=seed, model=self.path(f"base-{seed}"), eval_data=self.path("held.bin"))
        spec.update(extra or {})
        if self.args.smoke:
            spec.update(max_steps=2, warmup_steps=1, eval_steps=1)
        name = f"run-{seed}-" + "".join(c if c.isalnum() else "-" for c in variant + json.dumps(extra or ""))
        events, checkpoint = self.train(name, spec)
        steps = [e for e in events if e["event"] == "step"]
        return {"at 1024": self.perplexity(name, self.path(f"base-{seed}"), checkpoint, CONTEXT, CONTEXT),
                "at 256": self.perplexity(name + "-256", self.path(f"base-{seed}"), checkpoint, BASE_CONTEXT, CONTEXT),
                "curve": [(e["step"], e["perplexity"]) for e in events if e["event"] == "eval"],
                "final loss": steps[-1]["loss"]}

    def run_all(self, tasks):
        """Runs {key: call} side by side, keeping each result as it comes; keys that have a result are left out."""
        todo = {key: call for key, call in tasks.items() if key not in self.results}
        failures = []
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            running = {pool.submit(call): key for key, call in todo.items()}
            for future in concurrent.futures.as_completed(running):
                key = running[future]
                if future.exception() is not None:
                    failures.append(f"{key}: {future.exception()}")
                    print("FAILED", failures[-1], file=sys.stderr, flush=True)
                    continue
                self.results[key] = future.result()
                partial = self.results_path + ".partial"
                json.dump(self.results, open(partial, "w"), indent=1)
                os.replace(partial, self.results_path)
                print(key, {k: round(v, 3) for k, v in self.results[key].items() if k != "curve"}, flush=True)
        if failures:
            raise SystemExit(f"{len(failures)} runs failed; run the study again to repeat them")


def made_up_text(path):
    """Sentences of random words: enough for a tokenizer of CONFIG's size and a few windows."""
    rng = random.Random(1)
    words = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 9))) for _ in range(3000)]
    with open(path, "w") as f:
        for _ in range(6000):
            f.write(" ".join(rng.choice(words) for _ in range(rng.randint(5, 15))) + ".\n")
    return path


def sweep(study):
    """The learning rates of FULL and LORA: on a seed of its own."""
    study.run_all({"base/100": lambda: study.base(100)})
    study.run_all({f"sweep/{variant}/{lr}": lambda v=variant, r=lr: study.extend(100, v, {"learning_rate": r})
                   for variant in ("full / s2", "LoRA r=8 + norm + embed") for lr in (2.5e-4, 5e-4, 1e-3, 2e-3)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--text", help="plain text, at least a few megabytes; --smoke makes some up where there is none")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--sweep", action="store_true", help="the learning rates instead")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    args.out = os.path.abspath(args.out)
    os.makedirs(args.out, exist_ok=True)
    if not args.text and not args.smoke:
        parser.error("--text is missing")
    args.text = args.text or made_up_text(os.path.join(args.out, "made-up.txt"))
    study = Study(args)
    study.prepare()
    if args.sweep:
        return sweep(study)
    variants = list(VARIANTS)[::6] if args.smoke else list(VARIANTS)
    study.run_all({f"base/{seed}": lambda s=seed: study.base(s) for seed in args.seeds})
    # Variant by variant, so that what there is of an unfinished study can be compared.
    study.run_all({f"run/{seed}/{variant}": lambda s=seed, v=variant: study.extend(s, v) for variant in variants for seed in args.seeds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
