#!/usr/bin/env python3
"""What a user sees of a guarded training: events, the reason of a running job, metrics, and the end of one that has to stop.

  guard_test.py BIN_DIR
"""
import json
import os
import pathlib
import random
import re
import signal
import struct
import threading
import time
import unittest
import urllib.request

import numpy
from safetensors.numpy import load_file, save_file

from service import ServiceCase

CONTEXT, BATCH, POISON = 256, 2, 98


class GuardTest(ServiceCase):
    SLOTS = 3

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # A token whose embedding is infinite: a row that reads it has no loss.
        path = cls.model / "model.safetensors"
        weights = load_file(path)
        head = weights["model.embed_tokens.weight"].copy()
        weights["model.embed_tokens.weight"][POISON] = numpy.inf
        weights["lm_head.weight"] = head
        save_file(weights, path, metadata={"format": "pt"})
        config = json.loads((cls.model / "config.json").read_text())
        (cls.model / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))

    def submit(self, poisoned_step, steps, *more):
        rng = random.Random(7)
        ids = [4 + rng.randrange(90) for _ in range((steps + 8) * BATCH * CONTEXT)]
        ids[(poisoned_step - 1) * BATCH * CONTEXT + 17] = POISON
        data = self.root / f"poisoned-{poisoned_step}.bin"
        data.write_bytes(struct.pack(f"<{len(ids)}H", *ids))
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", data, "--ctx", CONTEXT, "--method", "lora", "--steps", steps,
                          "--set", f"global_batch_size={BATCH}", "--set", "shuffle=false", "--set", "save_steps=5", *more).stdout.strip()

    def metrics(self, address=None):
        """The coordinator's unless an agent's address is given."""
        address = address or json.loads((self.root / "coordinator" / "endpoints.json").read_text())["http"]
        return urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()

    def rank_pid(self, job, rank):
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if words[1:2] == ["run"] and any(job in w for w in words) and words[words.index("--rank") + 1] == str(rank):
                return int(process.name)
        self.fail(f"rank {rank} of {job} does not run")

    def test_a_skipped_step_shows_while_the_job_runs(self):
        job = self.submit(4, 4000, "--set", "on_nan=skip")
        running = self.wait_for(job, lambda j: "became nan at step 4; its update was left out" in j["reason"], "the guard's word")
        self.assertEqual(running["state"], "RUNNING")
        self.assertIn("became nan at step 4; its update was left out", self.llctl("why", job).stdout)
        self.assertRegex(self.metrics(), r'll_train_guard_total\{action="skip",job_id="%s",kind="nan"\} 1\b' % job)
        self.llctl("cancel", job)

    def test_a_straggler_is_named_while_the_job_runs(self):
        rng = random.Random(7)
        data = self.root / "clean.bin"
        data.write_bytes(struct.pack("<30000H", *(4 + rng.randrange(90) for _ in range(30000))))
        job = self.llctl("-o", "name", "submit", "--model", self.model, "--data", data, "--ctx", 1024, "--method", "lora", "--steps", 100000,
                         "--gpus", 3, "--set", "global_batch_size=3", "--set", "save_steps=0").stdout.strip()
        self.wait_for(job, lambda j: self.step_of(j) >= 3, "steps")
        pid, off = self.rank_pid(job, 1), threading.Event()

        def brake():  # stopped three quarters of the time
            while not off.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.06)
                os.kill(pid, signal.SIGCONT)
                off.wait(0.02)

        thread = threading.Thread(target=brake, daemon=True)
        thread.start()
        try:
            found = self.wait_for(job, lambda j: "rank 1 on " in j["reason"], "the straggler's name")
            self.assertRegex(found["reason"], r"rank 1 on \S+ computes [\d.]+ times as long as the median rank")
            self.assertIn("rank 1 on ", self.llctl("why", job).stdout)
            score = re.search(r'll_train_straggler_score\{job_id="%s"\} ([\d.]+)' % job, self.metrics())
            self.assertGreater(float(score[1]), 1.1)
            worker = json.loads(self.llctl("-o", "json", "workers", "list").stdout)[0]
            told = self.metrics(worker["http_address"])
            for rank in range(3):
                self.assertIn(f'll_rank_straggler_score{{job_id="{job}",rank="{rank}"}}', told)
                self.assertIn(f'll_rank_phase_seconds{{job_id="{job}",phase="wait",rank="{rank}"}}', told)
        finally:
            off.set()
            thread.join()
        self.llctl("cancel", job)

    def test_a_rollback_is_part_of_one_attempt(self):
        job = self.submit(8, 12, "--set", "on_nan=rollback")
        end = self.await_result(job)
        self.assertEqual(int(end["epoch"]), 1)
        self.assertEqual([int(s["step"]) for s in end["steps"]], list(range(1, 13)))
        self.assertEqual(int(end["progress"]["tokens"]), 12 * BATCH * CONTEXT)

    def test_a_stop_is_a_failure_that_says_why(self):
        job = self.submit(3, 12)
        self.await_end()
        end = self.get(job)
        self.assertEqual((end["state"], end["failure_class"]), ("FAILED", "NOT_A_NUMBER"))
        self.assertIn("loss became nan at step 3", end["reason"])
        self.assertEqual(int(end.get("retries", 0)), 0)  # it would happen again


if __name__ == "__main__":
    unittest.main()
