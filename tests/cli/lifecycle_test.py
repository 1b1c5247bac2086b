#!/usr/bin/env python3
"""What a user does with a model, through the service alone: extend, measure, merge, look at the result.

  lifecycle_test.py BIN_DIR
"""
import json
import pathlib
import random
import subprocess
import unittest

from service import BIN, DEADLINE_S, ServiceCase

CONTEXT = 1024  # four times what the tiny model reads; a prompt of a character a token just fits


class LifecycleTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        words = random.Random(7)
        text = cls.root / "text.txt"
        text.write_text(" ".join("".join(chr(words.randrange(97, 123)) for _ in range(words.randrange(1, 9))) for _ in range(4000)))
        cls.data = cls.root / "text.bin"
        subprocess.run([BIN / "llctl", "data", "pack", text, "--tokenizer", cls.model, "--out", cls.data], check=True, capture_output=True,
                       env=cls.environment, timeout=DEADLINE_S)

    def result(self, *arguments):
        return json.loads(self.llctl("-o", "json", *arguments).stdout)

    def test_extend_measure_and_merge(self):
        self.llctl("submit", "--model", self.model, "--data", self.data, "--ctx", CONTEXT, "--steps", 3, "--set", "save_steps=2",
                   "--set", "gradient_accumulation_steps=1", "--name", "extend", "--watch")
        job = self.newest_job()
        self.assertEqual(job["state"], "SUCCEEDED")

        measured = self.result("eval", "perplexity", "--job", job["job_id"], "--data", self.data, "--seq-len", CONTEXT, "--sliding-window", CONTEXT,
                               "--mode", "exact", "--compare-base")
        self.assertGreater(measured["perplexity"], 1)
        self.assertGreater(measured["compare_base"]["base_perplexity"], 1)

        passkey = self.result("eval", "passkey", "--job", job["job_id"], "--lengths", "900,1000", "--depths", 2)
        self.assertEqual(sorted({cell["length"] for cell in passkey["grid"]}), [900, 1000])
        self.assertEqual(len(passkey["grid"]), 4)
        self.assertEqual(passkey["effective_context_length"], 0)  # three steps teach nothing

        merged = self.root / "merged"
        done = self.result("merge", job["job_id"], "--out", merged, "--verify", self.data, "--watch")
        self.assertIn("perplexity", json.dumps(done))
        config = json.loads((merged / "config.json").read_text())
        self.assertEqual(config["max_position_embeddings"], CONTEXT)
        card = (merged / "README.md").read_text()
        self.assertIn("| trained | 3 steps", card)
        self.assertIn("mean KL from the adapter", card)
        said = subprocess.run([BIN / "ll-trainer", "generate", "--model", merged, "--prompt", "hello", "--max-new-tokens", "4", "--ignore-eos",
                               "--json", "--threads", "1"], capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual(len(json.loads(said.stdout)["ids"]), 4, said.stderr)

    def test_epochs_become_steps(self):
        rows = -(-pathlib.Path(self.data).stat().st_size // 2 // CONTEXT)
        self.llctl("submit", "--model", self.model, "--data", self.data, "--ctx", CONTEXT, "--set", "num_train_epochs=0.1", "--set",
                   "gradient_accumulation_steps=1", "--watch")
        job = self.newest_job()
        self.assertEqual(job["state"], "SUCCEEDED")
        progress = self.await_result(job["job_id"])["progress"]
        self.assertEqual(int(progress["step"]), int(progress["max_steps"]))
        self.assertAlmostEqual(int(progress["step"]), 0.1 * rows, delta=1)


if __name__ == "__main__":
    unittest.main()
