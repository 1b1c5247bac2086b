#!/usr/bin/env python3
"""A planned job on real processes: its forecast is stored, revised from measured steps, and compared at the end.

  forecast_test.py BIN_DIR
"""
import datetime
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
import urllib.request

from service import BIN, DEADLINE_S, ServiceCase

CONTEXT, STEPS = 256, 400


def when(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class ForecastTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        # What a probe would have measured on this host, so that the time is forecast; and what an hour costs.
        cls.rates = tempfile.TemporaryDirectory(prefix="ll-rates-")
        cls.addClassCleanup(cls.rates.cleanup)
        rates = pathlib.Path(cls.rates.name)
        (rates / "probes").mkdir()
        (rates / "probes" / "cpu.json").write_text(json.dumps(
            {"device": "cpu", "host": "here", "time": "2026-01-01T00:00:00Z", "build": "test", "gemm_flops": 2e10, "attention_flops": 1e10,
             "memory_bandwidth": 5e9, "link_bandwidth": 1e9}))
        (rates / "prices.yaml").write_text("cpu: {per_hour: 0.36, watts: 50}\n")
        cls.COORDINATOR = ("--prices", rates / "prices.yaml", "--currency", "EUR", "--calibrations", rates / "probes")
        super().setUpClass()
        cls.make_data()

    def submit(self, steps, *more):
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.root / "text.bin", "--ctx", CONTEXT, "--steps", steps,
                          "--set", "global_batch_size=2", "--set", "save_steps=1000", *more).stdout.strip()

    def metrics(self):
        address = json.loads((self.root / "coordinator" / "endpoints.json").read_text())["http"]
        return urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()

    def test_stored_revised_and_compared(self):
        job = self.submit(STEPS)
        stored = self.get(job)["forecast"]
        self.assertGreater(stored["duration_seconds"], 0)
        self.assertLess(stored["duration_low_seconds"], stored["duration_high_seconds"])
        self.assertAlmostEqual(stored["cost"], stored["gpu_hours"] * 0.36, delta=1e-9)
        self.assertAlmostEqual(stored["energy_joules"], stored["gpu_hours"] * 3600 * 50, delta=1e-3)
        self.assertEqual(stored["currency"], "EUR")
        # One that waits behind it has a start, and an end after that.
        behind = self.submit(100)  # long enough to be seen running
        self.wait_for(job, lambda j: j["state"] == "RUNNING", "its start")
        waits = self.get(behind)
        if waits["state"] == "QUEUED":
            f = waits["forecast"]
            self.assertLessEqual(when(f["start_low"]), when(f["start_high"]))
            self.assertLess(when(f["start_high"]), when(f["finish_high"]))

        running = self.wait_for(job, lambda j: self.step_of(j) >= 20, "some steps")
        f = running["forecast"]
        self.assertEqual(f["duration_seconds"], stored["duration_seconds"], "admission's stays beside it")
        self.assertGreater(f["measured_step_seconds"], 0)
        self.assertAlmostEqual(f["step_error_ratio"], f["measured_step_seconds"] / f["plan"]["step_seconds"] - 1, delta=1e-9)
        self.assertAlmostEqual(f["memory_error_ratio"], running["progress"]["peak_bytes"] / f["bytes_per_rank"] - 1, delta=1e-9)
        if running["state"] == "RUNNING":
            self.assertLessEqual(when(f["finish_low"]), when(f["finish_high"]))
            self.assertGreater(when(f["finish_high"]), time.time() - 5)
            shown = self.llctl("get", job).stdout
            self.assertRegex(shown, r"actual +step .*forecast")

        done = self.await_result(job)
        f = done["forecast"]
        self.assertGreater(f["actual_seconds"], 0)
        self.assertAlmostEqual(f["duration_error_ratio"], f["actual_seconds"] / f["duration_seconds"] - 1, delta=1e-9)
        self.assertAlmostEqual(f["actual_cost"], f["actual_gpu_hours"] * 0.36, delta=1e-9)
        self.await_result(behind)

        records = self.records(2)
        mine = next(r for r in records if r["job_id"] == job)
        self.assertEqual((mine["device"], mine["method"], mine["gpus"]), ("cpu", "longlora", 1))
        self.assertEqual(mine["forecast_bytes"], f["bytes_per_rank"] - f["plan"]["memory"].get("correction", 0))
        self.assertEqual(mine["peak_bytes"], done["progress"]["peak_bytes"])
        self.assertAlmostEqual(mine["forecast_seconds"], f["duration_seconds"], delta=1e-6)
        last = records[-1]
        told = dict(re.findall(r'^ll_forecast_error_ratio{kind="(\w+)"} (\S+)$', self.metrics(), re.M))
        self.assertAlmostEqual(float(told["memory"]), last["peak_bytes"] / last["forecast_bytes"] - 1, delta=1e-5)
        self.assertAlmostEqual(float(told["duration"]), last["actual_seconds"] / last["forecast_seconds"] - 1, delta=1e-5)

        rows = json.loads(self.llctl("-o", "json", "plan", "--residuals").stdout)
        self.assertEqual({r["job_id"] for r in rows}, {job, behind})
        self.assertAlmostEqual(next(r for r in rows if r["job_id"] == job)["duration_error_ratio"], f["duration_error_ratio"], delta=1e-6)
        self.assertIn("memory, median", self.llctl("plan", "--residuals").stdout)

    def records(self, count):
        path = self.root / "coordinator" / "forecasts.jsonl"
        deadline = time.monotonic() + DEADLINE_S
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count:
                self.assertEqual(len(lines), count)
                return [json.loads(line) for line in lines]
            self.assertLess(time.monotonic(), deadline, "no record was written")
            time.sleep(0.2)


class CalibrateTest(unittest.TestCase):
    def test_a_probe_is_kept_and_plans_use_it(self):
        with tempfile.TemporaryDirectory(prefix="ll-cache-") as cache:
            environment = dict(os.environ, XDG_CACHE_HOME=cache, LLCTL_COORDINATOR="127.0.0.1:1")

            def llctl(*arguments):
                run = subprocess.run([BIN / "llctl", "-o", "json", *arguments], capture_output=True, text=True, timeout=DEADLINE_S,
                                     env=environment)
                self.assertEqual(run.returncode, 0, run.stderr)
                return json.loads(run.stdout)

            plan = ("plan", "--model", "7b", "--ctx", "8192", "--device", "cpu", "--device-memory", "200GB", "--gpus", "1")
            self.assertEqual(llctl(*plan)["forecast"]["duration_seconds"], 0, "nothing has been measured")
            probe = subprocess.run([BIN / "ll-trainer", "probe", "--device", "cpu", "--threads", "1", "--seconds", "0.2", "--small"],
                                   capture_output=True, text=True, timeout=DEADLINE_S)
            self.assertEqual(probe.returncode, 0, probe.stderr)
            measured = json.loads(probe.stdout)
            self.assertEqual(measured["device"], "cpu")
            for key in ("gemm_flops", "attention_flops", "memory_bandwidth", "link_bandwidth"):
                self.assertGreater(measured[key], 1e6, key)
            # A program in the trainer's place, so that the test need not wait for a real measurement.
            fake = pathlib.Path(cache) / "trainer"
            (pathlib.Path(cache) / "measured.json").write_text(probe.stdout)
            fake.write_text(f"#!/bin/sh\nexec cat {cache}/measured.json\n")
            fake.chmod(0o755)
            kept = llctl("plan", "--calibrate", "--trainer", str(fake))
            self.assertEqual(kept["gemm_flops"], measured["gemm_flops"])
            self.assertTrue(pathlib.Path(kept["path"]).is_file())
            self.assertGreater(llctl(*plan)["forecast"]["duration_seconds"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
