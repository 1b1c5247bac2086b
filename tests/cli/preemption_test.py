#!/usr/bin/env python3
"""A training that gives way to one of a higher priority loses no step: it checkpoints where it stands, and what it becomes in the end has
the same bits as an undisturbed run.

  preemption_test.py BIN_DIR
"""
import datetime
import statistics
import unittest

from service import ServiceCase

STEPS = 60
DELIVERY = datetime.timedelta(seconds=0.3)  # of an order to a trainer, on a loaded machine
# Rows enough that a step takes long beside the time between two looks of the trainer at its orders; dropout, so that a mask that is
# not the undisturbed run's would show.
RECIPE = ("--ctx", 512, "--set", "global_batch_size=12", "--set", "lora_dropout=0.1", "--set", "save_steps=1000000", "--seed", 5, "--gpus", 1,
          "--min-runtime", 0)


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class PreemptionTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = cls.make_data()

    def submit(self, *arguments):
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.data, *RECIPE, *arguments).stdout.strip()

    def adapter(self, job):
        folder = self.root / "jobs" / job["job_id"] / f"e{job['epoch']:04d}" / "checkpoints" / f"step-{STEPS:06d}"
        return (folder / "adapter_model.safetensors").read_bytes()

    def test_the_victim_loses_nothing(self):
        undisturbed = self.await_result(self.submit("--steps", STEPS))
        victim = self.submit("--steps", STEPS)
        self.wait_for(victim, lambda j: self.step_of(j) >= 5, "five steps")
        urgent = self.submit("--steps", 3, "--priority", 50)
        self.await_result(urgent)
        end = self.await_result(victim)

        self.assertEqual(end["epoch"], 2)
        self.assertEqual(end["retries"], 0)
        ordered = next(c for c in end["history"] if c["state"] == "PREEMPTING")
        self.assertIn(urgent, ordered["reason"])
        gone = next(c for c in end["history"] if c["state"] == "QUEUED" and c["time"] > ordered["time"])
        first = [s for s in end["steps"] if s["epoch"] == 1]
        second = [s for s in end["steps"] if s["epoch"] == 2]
        self.assertEqual([s["step"] for s in first + second], list(range(1, STEPS + 1)))
        # The step that runs when the order comes, and one more whose beginning was past the look at the orders.
        delivered = moment(ordered["time"]) + DELIVERY
        begun = [s for s in first if moment(s["time"]) - datetime.timedelta(seconds=s["step_seconds"]) > delivered]
        self.assertLessEqual(len(begun), 1, "steps begun after the order")
        # From there on it takes what a checkpoint and the process's end take, as the undisturbed run shows them.
        stop = (moment(gone["time"]) - moment(first[-1]["time"])).total_seconds()
        undisturbed_stop = (moment(undisturbed["finished"]) - moment(undisturbed["steps"][-1]["time"])).total_seconds()
        self.assertLess(stop, 3 * undisturbed_stop + 2, "off its slot later than a checkpoint after its last step")
        print(f"gave way after {len(first)} steps, {len(begun)} of them begun after the order, off its slot "
              f"{(moment(gone['time']) - moment(ordered['time'])).total_seconds():.2f} s after it; a step takes "
              f"{statistics.median(s['step_seconds'] for s in first):.2f} s")

        self.assertEqual([(s["step"], s["loss"], s["grad_norm"]) for s in end["steps"]],
                         [(s["step"], s["loss"], s["grad_norm"]) for s in undisturbed["steps"]])
        self.assertEqual(self.adapter(end), self.adapter(undisturbed))


if __name__ == "__main__":
    unittest.main()
