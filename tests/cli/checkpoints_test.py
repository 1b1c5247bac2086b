#!/usr/bin/env python3
"""A job's checkpoints as a user sees them: listed, copied, run again and compared.

  checkpoints_test.py BIN_DIR
"""
import hashlib
import json
import unittest

from service import ServiceCase

STEPS = 12
RECIPE = ("--ctx", 256, "--set", "global_batch_size=2", "--set", "save_steps=2", "--set", "save_total_limit=2", "--set", "save_keep_every=4",
          "--seed", 5, "--gpus", 1, "--steps", STEPS)


class CheckpointsTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = cls.make_data()

    def train(self, *more):
        job = self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.data, *RECIPE, *more).stdout.strip()
        return self.await_result(job)

    def list(self, job):
        return json.loads(self.llctl("-o", "json", "checkpoints", job["job_id"]).stdout)

    def test_what_is_there_and_why(self):
        copies = self.root / "copies"
        job = self.train("--set", f"checkpoint_uri={copies}")
        listed = self.list(job)
        folder = self.root / "jobs" / job["job_id"] / "e0001" / "checkpoints"
        here = sorted(path.name for path in folder.iterdir())
        self.assertEqual(sorted(f"step-{c['step']:06d}" for c in listed if not c.get("removed")), here)
        self.assertEqual(here, ["step-000004", "step-000008", "step-000010", "step-000012"])
        self.assertEqual([c["kept"] for c in listed if not c.get("removed")],
                         ["newest", "one of the 2 newest", "multiple of 4", "multiple of 4"])
        newest = listed[0]
        self.assertEqual(newest["step"], STEPS)
        self.assertGreater(newest["size_bytes"], 1000)
        self.assertEqual(newest["loss"], next(s["loss"] for s in job["steps"] if s["step"] == STEPS))
        # Each job has a folder of its own below the URI, each attempt one below that.
        self.assertEqual(newest["copy_uri"], str(copies / job["job_id"] / "e0001" / f"step-{STEPS:06d}"))
        self.assertEqual((copies / job["job_id"] / "e0001" / f"step-{STEPS:06d}" / "COMPLETE").read_text(),
                         (folder / f"step-{STEPS:06d}" / "COMPLETE").read_text())
        table = self.llctl("checkpoints", job["job_id"]).stdout
        self.assertIn("KEPT AS", table)
        self.assertIn("multiple of 4", table)
        self.llctl("checkpoints", "job-000000000000", code=8)

    def test_verify(self):
        job = self.train()
        result = json.loads(self.llctl("-o", "json", "verify", job["job_id"]).stdout)
        self.assertTrue(result["verified"])
        self.assertEqual((result["from_step"], result["to_step"]), (10, 12))
        result = json.loads(self.llctl("-o", "json", "verify", job["job_id"], "--steps", 4).stdout)
        self.assertEqual(result["from_step"], 8)
        # One bit of one tensor, under a manifest that agrees with it.
        folder = self.root / "jobs" / job["job_id"] / "e0001" / "checkpoints" / f"step-{STEPS:06d}"
        tensors = folder / "optimizer-00-of-01.safetensors"
        body = bytearray(tensors.read_bytes())
        size = int.from_bytes(body[:8], "little")
        name = "exp_avg.model.norm.weight"
        body[8 + size + json.loads(body[8:8 + size])[name]["data_offsets"][0]] ^= 1
        tensors.write_bytes(body)
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        manifest["files"][tensors.name]["sha256"] = hashlib.sha256(body).hexdigest()
        text = json.dumps(manifest)
        (folder / "MANIFEST.json").write_text(text)
        (folder / "COMPLETE").write_text(hashlib.sha256(text.encode()).hexdigest())
        failed = self.llctl("verify", job["job_id"], code=1)
        self.assertIn(name, failed.stderr)
        self.assertEqual(self.newest_job()["state"], "FAILED")  # once: a second try would hide what the first found


if __name__ == "__main__":
    unittest.main()
