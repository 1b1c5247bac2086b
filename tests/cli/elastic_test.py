#!/usr/bin/env python3
"""An elastic training starts on the one slot that is free and grows to two when the other job ends; it loses no step, and its losses
are those of an undisturbed run within what another order of sums changes in fp32.

  elastic_test.py BIN_DIR
"""
import math
import statistics
import unittest

from service import ServiceCase

ALONE_S = 25  # how long the training takes on one slot; it grows within ten seconds
RECIPE = ("--ctx", 512, "--precision", "fp32", "--set", "global_batch_size=4", "--set", "save_steps=1000000", "--seed", 5)


class ElasticTest(ServiceCase):
    COORDINATOR = ("--shared-job-store", "--grow-after-idle-seconds", 1, "--resize-interval-seconds", 1, "--restart-cost-seconds", 1)
    WORKERS = ("w1", "w2")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = cls.make_data()

    def submit(self, *arguments):
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.data, *RECIPE, *arguments).stdout.strip()

    def losses(self, job):
        steps = self.await_result(job)["steps"]
        return {step["step"]: step["loss"] for step in steps}, {step["epoch"] for step in steps}

    def test_grows_when_the_other_job_ends(self):
        probe = self.submit("--gpus", 1, "--steps", 10)
        self.losses(probe)
        seconds = statistics.median(step["step_seconds"] for step in self.get(probe)["steps"])
        steps = min(max(math.ceil(ALONE_S / seconds), 20), 5000)
        undisturbed, epochs = self.losses(self.submit("--gpus", 1, "--steps", steps))
        self.assertEqual(epochs, {1})

        other = self.submit("--gpus", 1, "--steps", 1000000)
        elastic = self.submit("--gpus", "1-2", "--steps", steps, "--min-runtime", 0)
        self.wait_for(other, lambda j: j["state"] == "RUNNING", "its start")
        self.wait_for(elastic, lambda j: self.step_of(j) >= 3, "three steps")
        self.assertIn("1 of 1-2 ranks", self.llctl("why", elastic).stdout)
        self.assertIn("1 of 1-2", self.llctl("list", "-o", "table").stdout)
        self.llctl("cancel", other)
        grown = self.wait_for(elastic, lambda j: j["epoch"] == 2 and j["state"] in ("RUNNING", "SUCCEEDED"), "its growth")
        reasons = [change["reason"] for change in grown["history"]]
        self.assertTrue(any(reason.startswith("grows from 1 to 2 ranks") for reason in reasons), reasons)
        self.assertEqual(grown["retries"], 0)

        losses, epochs = self.losses(elastic)
        self.assertEqual(epochs, {1, 2})
        self.assertEqual(list(losses), list(range(1, steps + 1)))
        worst = max(abs(losses[step] - undisturbed[step]) / abs(undisturbed[step]) for step in losses)
        print(f"{steps} steps, largest relative difference of a loss {worst:.2e}")
        self.assertLess(worst, 1e-4)


if __name__ == "__main__":
    unittest.main()
