"""A coordinator, a worker and the real trainer on a tiny model with random weights, for tests that use llctl as a user does.

Test files take BIN_DIR (with llctl, ll-coordinator, ll-worker and ll-trainer) as their first argument.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unittest

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
DEADLINE_S = 90
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.2, "tie_word_embeddings": True,
    "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1, "attention_bias": False, "mlp_bias": False,
}


def tokenizer():
    vocab = {text: i for i, text in enumerate(SPECIAL + [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"added_tokens": [{"id": vocab[t], "content": t, "special": True, "normalized": False} for t in SPECIAL],
            "pre_tokenizer": level, "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}


class ServiceCase(unittest.TestCase):
    COORDINATOR = ()  # more flags
    WORKERS = ("w1",)  # with one job store
    SLOTS = 1  # of each worker

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ll-service-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = pathlib.Path(cls.folder.name)
        cls.model = cls.root / "talker"
        (cls.root / "config.json").write_text(json.dumps(CONFIG))
        subprocess.run([BIN / "ll-trainer", "init", "--config", cls.root / "config.json", "--out", cls.model, "--seed", "3"], check=True,
                       capture_output=True)
        (cls.model / "tokenizer.json").write_text(json.dumps(tokenizer()))
        (cls.model / "tokenizer_config.json").write_text(
            json.dumps({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}))
        data_dir = cls.root / "coordinator"
        cls.environment = dict(os.environ, LL_DATA_DIR=str(data_dir))
        cls.processes = []
        cls.addClassCleanup(cls.stop)
        coordinator = cls.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data_dir,
                                *cls.COORDINATOR)
        line = coordinator.stdout.readline()
        address = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]
        cls.environment["LLCTL_COORDINATOR"] = address
        for name in cls.WORKERS:
            cls.start("ll-worker", "--coordinator", address, "--http", "127.0.0.1:0", "--work-dir", cls.root / name, "--name", name,
                      "--cpu-slots", cls.SLOTS, "--trainer-threads", "1", "--trainer", BIN / "ll-trainer", "--root", f"models={cls.root}",
                      "--job-store", cls.root / "jobs")

    @classmethod
    def start(cls, name, *arguments):
        process = subprocess.Popen([BIN / name, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   stdin=subprocess.DEVNULL, text=True, env=cls.environment)
        cls.processes.append(process)
        return process

    @classmethod
    def stop(cls):
        for process in reversed(cls.processes):
            process.terminate()
        for process in cls.processes:
            process.wait(timeout=DEADLINE_S)
            process.stdout.close()

    def llctl(self, *arguments, code=0, **options):
        run = subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment,
                             **options)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run

    def newest_job(self):
        return json.loads(self.llctl("-o", "json", "list").stdout)[0]

    def await_end(self):
        deadline = time.monotonic() + DEADLINE_S
        while (job := self.newest_job())["state"] not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        return job

    def get(self, job):
        """With every step's record."""
        return json.loads(self.llctl("-o", "json", "get", "--history", job).stdout)

    @staticmethod
    def step_of(job):
        """The optimizer step a record tells of; 0 until its ranks have told one (the record has no progress then)."""
        return job.get("progress", {}).get("step", 0)

    def wait_for(self, job, condition, what):
        deadline = time.monotonic() + DEADLINE_S
        while not condition(found := self.get(job)):
            self.assertLess(time.monotonic(), deadline, f"{job} waited for {what}: {found['state']}, {found['reason']}")
            self.assertNotIn(found["state"], ("FAILED", "CANCELLED"), found["reason"])
            time.sleep(0.3)
        return found

    def await_result(self, job):
        """The job's record once it has succeeded and its last step has arrived."""
        return self.wait_for(job, lambda j: j["state"] == "SUCCEEDED" and 0 < self.step_of(j) == j["progress"]["max_steps"], "its end")

    @classmethod
    def make_data(cls):
        """Packs random words; their token file."""
        words = random.Random(7)
        text, data = cls.root / "text.txt", cls.root / "text.bin"
        text.write_text(" ".join("".join(chr(words.randrange(97, 123)) for _ in range(words.randrange(1, 9))) for _ in range(40000)))
        subprocess.run([BIN / "llctl", "data", "pack", text, "--tokenizer", cls.model, "--out", data], check=True, capture_output=True,
                       env=cls.environment, timeout=DEADLINE_S)
        return data
