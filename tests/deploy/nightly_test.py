#!/usr/bin/env python3
"""deploy/nightly as docs/nightly.md uses it: the shipped files, a real coordinator, worker and trainer, a tiny model.

  nightly_test.py BIN_DIR                 two runs by hand, the second with a verdict
  nightly_test.py BIN_DIR --by-the-clock  a rule of every minute: the clock fires twice (three minutes)

What is shortened is said to create.sh in flags, as its users may: model, lengths, steps, gate.
"""
import json
import os
import random
import struct
import subprocess
import sys
import time
import unittest
import urllib.request

BY_THE_CLOCK = "--by-the-clock" in sys.argv
sys.argv = [argument for argument in sys.argv if argument != "--by-the-clock"]

import pathlib  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cli"), str(ROOT / "tests/deploy")]
from service import BIN, DEADLINE_S, ServiceCase  # noqa: E402
from status import record  # noqa: E402

NIGHTLY = ROOT / "deploy/nightly"
SHORTER = {"model": "smollm2", "context_length": "512", "stages": "512", "max_steps": "2", "gradient_accumulation_steps": "1",
           "gate": "ppl<=1e9", "eval_sliding_window": "512", "save_steps": "0"}
# Losses are compared to the bit, the speed of a busy machine is not.
FLAGS = ["--tolerance-tokens-per-second", "0.99"] + [word for key, value in SHORTER.items() for word in ("--set", f"{key}={value}")]


class NightlyTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        draw = random.Random(3)
        ids = [(5 * i + draw.randrange(4)) % 95 + 4 for i in range(3_000)]
        data = cls.root / "book.bin"
        data.write_bytes(struct.pack(f"<{len(ids)}H", *ids))
        cls.environment["PATH"] = f"{BIN}:{os.environ['PATH']}"
        for arguments in (("models", "add", "smollm2", cls.model), ("data", "add", "book", data, "--default")):
            subprocess.run([BIN / "llctl", *arguments], check=True, capture_output=True, timeout=DEADLINE_S, env=cls.environment)

    def script(self, name, *arguments, code=0, **variables):
        run = subprocess.run(["bash", NIGHTLY / name, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL,
                             env=dict(self.environment, **variables), check=False)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run.stdout

    def judged(self, schedule, count, within):
        """The runs once `count` of them have a verdict, oldest first."""
        deadline = time.monotonic() + within
        while True:
            runs = json.loads(self.llctl("-o", "json", "schedule", "show", schedule).stdout)["runs"]
            runs = sorted((run for run in runs if "verdict" in run), key=lambda run: run["fire_time"])
            if len(runs) >= count:
                return runs
            self.assertLess(time.monotonic(), deadline, f"{len(runs)} of {count} runs have a verdict")
            time.sleep(0.2)

    def metric(self, name):
        endpoints = json.loads((self.root / "coordinator/endpoints.json").read_text())
        with urllib.request.urlopen(f"http://{endpoints['http']}/metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
        return [line for line in lines if line.startswith(f'{name}{{schedule="nightly"')]

    def test_two_nights(self):
        if BY_THE_CLOCK:
            self.script("create.sh", *FLAGS, NIGHTLY_CRON="* * * * *", NIGHTLY_NAME="nightly")
            runs = self.judged("nightly", 2, 260)
            self.assertNotIn(True, [run.get("manual", False) for run in runs])
        else:
            self.script("create.sh", *FLAGS)
            self.assertEqual(self.script("create.sh", *FLAGS).strip(), self.script("create.sh", *FLAGS).strip())
            self.assertIn("no verdict yet", self.script("verdict.sh", code=2))
            for count in (1, 2):
                self.llctl("schedule", "run", "nightly")
                runs = self.judged("nightly", count, DEADLINE_S)
        self.assertEqual(runs[0]["verdict"], "BASELINE", runs[0])
        self.assertIn(runs[1]["verdict"], ("SAME", "BETTER"), runs[1])
        self.assertEqual(runs[0]["final_loss"], runs[1]["final_loss"])
        self.assertNotIn("diverging_step", runs[1])

        self.assertIn(f"nightly {runs[-1]['fire_time']}: {runs[-1]['verdict'].lower()}", self.script("verdict.sh"))
        # What the alerts read.
        self.assertNotEqual([line.split()[-1] for line in self.metric("ll_schedule_last_verdict")], ["0"])
        self.assertEqual(len(self.metric("ll_schedule_last_verdict")), 1)
        self.assertEqual(len(self.metric("ll_schedule_last_success_time_seconds")), 1)

    @unittest.skipIf(BY_THE_CLOCK, "is in the other run of this file")
    def test_a_night_that_fails_says_so(self):
        self.script("create.sh", *FLAGS, "--set", "gate=ppl<=1", NIGHTLY_NAME="strict")
        self.llctl("schedule", "run", "strict")
        run = self.judged("strict", 1, DEADLINE_S)[0]
        self.assertEqual(run["verdict"], "FAILED", run)
        self.assertIn("ppl <= 1 is not met", self.script("verdict.sh", "strict", code=1))

    def test_the_simulated_nights_have_its_policies(self):
        """tests/scenarios/50_the_nightly_example.txt runs a week of nights by a simulated clock."""
        scenario = (ROOT / "tests/scenarios/50_the_nightly_example.txt").read_text()
        rule = dict(word.split("=", 1) for word in next(line for line in scenario.splitlines() if line.startswith("schedule nightly")).split()[2:])
        self.script("create.sh", *FLAGS, NIGHTLY_NAME="policies")
        made = json.loads(self.llctl("-o", "json", "schedule", "show", "policies").stdout)
        self.assertEqual((rule["cron"].replace("_", " "), rule["tz"], rule["missed"], rule["overlap"], int(rule["start_within"][:-1]) * 3600),
                         (made["cron"], made["time_zone"], made["missed"], made["overlap"], int(made["start_within"])))

    def test_zz_record(self):
        record("deploy/nightly" + (": by the clock" if BY_THE_CLOCK else ""), "run for real", "the shipped scripts and job against a real coordinator, agent and trainer on a tiny model: "
               + ("two fires of the real clock" if BY_THE_CLOCK else "two nights, one that fails its gate; policies by a simulated clock in tests/scenarios"))

    def test_the_shipped_job_is_valid(self):
        """As it is, but for the registered model's size: on a cluster of one CPU it need not fit."""
        plan = self.llctl("submit", "-f", NIGHTLY / "nightly.yaml", "--dry-run").stdout
        self.assertIn("8192", plan)


if __name__ == "__main__":
    unittest.main(verbosity=2)
