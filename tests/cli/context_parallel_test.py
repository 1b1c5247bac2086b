#!/usr/bin/env python3
"""A job whose ranks share rows, end to end: coordinator, one worker with two CPU slots and the real trainer.

  context_parallel_test.py BIN_DIR   (with llctl, ll-coordinator, ll-worker and ll-trainer)
"""
import json
import random
import struct
import unittest

from service import ServiceCase


class ContextParallelTest(ServiceCase):
    SLOTS = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        rng = random.Random(3)
        ids = [(5 * i + rng.randrange(4)) % 95 + 4 for i in range(8_000)]
        cls.data = cls.root / "data.bin"
        cls.data.write_bytes(struct.pack(f"<{len(ids)}H", *ids))

    def train(self, *flags):
        self.llctl("submit", "--model", self.model, "--data", self.data, "--ctx", 512, "--steps", 3, "--warmup-steps", 0,
                   "--learning-rate", 0.001, "--global-batch-size", 2, "--precision", "fp32", *flags)
        job = self.await_end()
        self.assertEqual(job["state"], "SUCCEEDED", job["reason"])
        return json.loads(self.llctl("-o", "json", "get", job["job_id"]).stdout)

    def test_two_slots_share_rows(self):
        one, two = self.train(), self.train("--context-parallel", 2)
        self.assertEqual(int(two["resolved_spec"]["gpus"]), 2)
        self.assertAlmostEqual(two["result"]["loss"], one["result"]["loss"], delta=1e-4 * one["result"]["loss"])
        ranks = list((self.root / "jobs" / two["job_id"] / "e0001").glob("rank-*.log"))
        self.assertEqual(len(ranks), 2)

    def test_refused_at_submit(self):
        refused = self.llctl("submit", "--model", self.model, "--data", self.data, "--ctx", 512, "--context-parallel", 2, "--gpus", 3, code=2)
        self.assertIn("multiple of context_parallel", refused.stderr)


if __name__ == "__main__":
    unittest.main()
