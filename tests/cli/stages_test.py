#!/usr/bin/env python3
"""Context extension in stages end to end: coordinator, worker and the real trainer on a tiny model with random weights.

  stages_test.py BIN_DIR   (with llctl, ll-coordinator, ll-worker and ll-trainer)

What the model learns is noise, so gates are set where any model passes or none does.
"""
import json
import pathlib
import random
import struct
import time
import unittest

from service import ServiceCase

GRAPH_DEADLINE_S = 400  # seven trainers one after the other, on a busy machine


class StagesTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        rng = random.Random(3)
        ids = [(5 * i + rng.randrange(4)) % 95 + 4 for i in range(8_000)]
        cls.data = cls.root / "data.bin"
        cls.data.write_bytes(struct.pack(f"<{len(ids)}H", *ids))

    def json(self, *arguments):
        return json.loads(self.llctl("-o", "json", *arguments).stdout)

    def await_job(self, job_id):
        deadline = time.monotonic() + GRAPH_DEADLINE_S
        while (job := self.json("get", job_id))["state"] not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            self.assertLess(time.monotonic(), deadline, job)
            time.sleep(0.2)
        return job

    def submit(self, name, gate, *flags):
        """The members by what comes behind NAME- in their names."""
        jobs = self.json("submit", "--model", self.model, "--data", self.data, "--name", name, "--ctx", 1024, "--gate", gate,
                         "--gradient-accumulation-steps", 1, "--passkey-depths", 1, "--eval-sliding-window", 1024, *flags)
        return {job["spec"]["name"].removeprefix(f"{name}-"): job["job_id"] for job in jobs}

    def folder_of(self, job_id):
        return self.root / "jobs" / job_id / "e0001"

    def test_gates_that_hold_lead_to_a_merged_model(self):
        members = self.submit("long", "passkey>=0,ppl<=1e9", "--stages", "512,1024", "--stage-steps", "2,3")
        self.assertEqual(list(members), ["512-train", "512-passkey", "512-perplexity", "1024-train", "1024-passkey", "1024-perplexity", "merge"])
        merge = self.await_job(members["merge"])
        self.assertEqual(merge["state"], "SUCCEEDED", merge["reason"])
        listed = self.json("list", "--label", "graph=long")
        self.assertEqual({job["job_id"]: job["state"] for job in listed}, dict.fromkeys(members.values(), "SUCCEEDED"))
        self.assertEqual(len(self.json("list", "--label", "graph=long", "--label", "stage=512")), 3)

        passkey = self.json("get", members["1024-passkey"])["result"]
        self.assertEqual(passkey["by_length"][0]["length"], 1024)
        self.assertEqual([(g["gate"], g["holds"]) for g in passkey["gates"]], [("passkey >= 0", True)])
        # The second stage went on from the first one's last checkpoint, and scales from the model's own 256, not from 512.
        first, second = (json.loads((self.folder_of(members[f"{n}-train"]) / "spec.json").read_text()) for n in (512, 1024))
        self.assertNotIn("adapter", first)
        self.assertEqual((first["context_length"], first["max_steps"], second["max_steps"]), (512, 2, 3))
        self.assertEqual(pathlib.Path(second["adapter"]), self.folder_of(members["512-train"]) / "checkpoints" / "step-000002")
        merged = self.folder_of(members["merge"]) / "merged"
        self.assertTrue((merged / "model.safetensors").exists())
        config = json.loads((merged / "config.json").read_text())
        self.assertEqual(config["max_position_embeddings"], 1024)
        self.assertEqual((config["rope_scaling"]["factor"], config["rope_scaling"]["original_max_position_embeddings"]), (4, 256))

    def test_a_gate_that_fails_ends_the_graph_and_the_rest_can_be_run_again(self):
        members = self.submit("hard", "ppl<=1.5", "--stages", "512,1024", "--steps", 2)
        merge = self.await_job(members["merge"])
        self.assertEqual(merge["state"], "FAILED")
        gate = self.json("get", members["512-perplexity"])
        self.assertEqual(gate["state"], "FAILED")
        self.assertEqual(gate["epoch"], 1)  # not retried
        self.assertRegex(gate["reason"], r"gate: ppl <= 1\.5 is not met: [0-9.]+")
        self.assertEqual([g["holds"] for g in gate["result"]["gates"]], [False])
        for name in ("1024-train", "1024-perplexity", "merge"):
            job = self.json("get", members[name])
            self.assertEqual((job["state"], job["epoch"]), ("FAILED", 0), job)
            self.assertIn(f"{gate['job_id']} (hard-512-perplexity), which it waits for, ended as FAILED: ", job["reason"])
            self.assertIn("gate: ppl <= 1.5 is not met", job["reason"])
        self.assertIn("gate: ppl <= 1.5 is not met", self.llctl("why", members["merge"]).stdout)

        # With a gate that can be met, from the stage that was trained.
        rest = self.submit("softer", "ppl<=1e9", "--stages", "1024", "--steps", 1, "--job", members["512-train"])
        self.assertEqual(list(rest), ["1024-train", "1024-perplexity", "merge"])
        merge = self.await_job(rest["merge"])
        self.assertEqual(merge["state"], "SUCCEEDED", merge["reason"])

    def test_what_is_wrong_is_refused_before_anything_is_stored(self):
        before = len(self.json("list", "--all"))
        common = ("--stages", "512,1024")
        self.assertIn("gate: expected a metric", self.llctl("submit", "--model", self.model, "--gate", "loss<1", *common, code=2).stderr)
        self.assertIn("stages: expected context_length (2048)",
                      self.llctl("submit", "--model", self.model, "--ctx", 2048, *common, code=2).stderr)
        run = self.llctl("submit", "--model", self.model, "--data", self.root / "nowhere.bin", *common, code=8)
        self.assertIn("512-train: data: expected a path that exists", run.stderr)
        self.assertEqual(len(self.json("list", "--all")), before)


if __name__ == "__main__":
    unittest.main()
