#!/usr/bin/env python3
"""llctl schedule against a real coordinator: made, shown, fired by the real clock, found again after kill -9, refused.

  schedule_test.py BIN_DIR   (with llctl and ll-coordinator)
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "torch_dtype": "float32", "hidden_act": "silu",
}
NIGHTLY = "model: tiny\ncontext_length: 512\ndata: tokens\n"


class ScheduleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ll-schedule-")
        cls.root = pathlib.Path(cls.folder.name)
        (cls.root / "tiny").mkdir()
        (cls.root / "tiny/config.json").write_text(json.dumps(TINY_LLAMA))
        (cls.root / "tokens.bin").write_bytes(bytes(2 * 8192))
        (cls.root / "nightly.yaml").write_text(NIGHTLY)
        cls.log = open(cls.root / "log", "ab")
        cls.start()
        cls.llctl("models", "add", "tiny", cls.root / "tiny")
        cls.llctl("data", "add", "tokens", cls.root / "tokens.bin", "--default")

    @classmethod
    def tearDownClass(cls):
        cls.stop(signal.SIGTERM)
        cls.log.close()
        cls.folder.cleanup()

    @classmethod
    def start(cls):
        cls.process = subprocess.Popen(
            [BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", cls.root / "data"],
            stdout=subprocess.PIPE, stderr=cls.log, stdin=subprocess.DEVNULL, text=True)
        line = cls.process.stdout.readline()
        assert "serving" in line, line

    @classmethod
    def stop(cls, how):
        cls.process.send_signal(how)
        cls.process.wait(timeout=20)
        cls.process.stdout.close()

    @classmethod
    def llctl(cls, *arguments, code=0):
        run = subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                             stdin=subprocess.DEVNULL, cwd=cls.root,
                             env={"PATH": os.environ["PATH"], "HOME": str(cls.root), "LL_DATA_DIR": str(cls.root / "data")})
        assert run.returncode == code, f"{arguments}: {run.returncode}, {run.stdout}{run.stderr}"
        return run

    def json(self, *arguments):
        return json.loads(self.llctl(*arguments, "-o", "json").stdout)

    def refused(self, *arguments, code):
        error = json.loads(self.llctl(*arguments, "-o", "json", code=code).stderr)
        self.assertEqual(sorted(error), ["code", "field", "hint", "message"])
        return error

    def create(self, name, cron, *more):
        return self.json("schedule", "create", name, "--cron", cron, "-f", "nightly.yaml", *more)

    def wait_for(self, what, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = what()
            if found:
                return found
            time.sleep(0.5)
        self.fail(f"not within {seconds} s")

    def test_a_schedules_life(self):
        made = self.create("nightly", "0 2 * * *", "--tz", "Europe/Berlin", "--overlap", "queue", "--start-within", 7200)
        self.assertEqual((made["missed"], made["overlap"], made["start_within"]), ("last", "queue", 7200))
        self.assertRegex(made["next_fire"], r"T0[01]:00:00.000Z$")
        self.assertEqual(self.create("nightly", "0 2 * * *", "--tz", "Europe/Berlin", "--overlap", "queue",
                                     "--start-within", 7200)["created"], made["created"])
        self.assertEqual(self.refused("schedule", "create", "nightly", "--cron", "@daily", "-f", "nightly.yaml",
                                      code=9)["field"], "name")

        job = self.json("schedule", "run", "nightly")
        self.assertEqual(job["spec"]["labels"], {"schedule": "nightly"})
        self.assertTrue(job["request_id"].startswith("schedule/nightly/now/"), job["request_id"])
        self.llctl("schedule", "pause", "nightly")
        self.stop(signal.SIGKILL)
        self.start()
        shown = self.json("schedule", "show", "nightly")
        self.assertTrue(shown["paused"])
        self.assertEqual(shown["spec"]["model"], "tiny")
        self.assertEqual([(run["job_id"], run["manual"]) for run in shown["runs"]], [(job["job_id"], True)])

        # The job's end brings a verdict.
        self.llctl("cancel", job["job_id"])
        run = self.wait_for(lambda: [r for r in self.json("schedule", "show", "nightly")["runs"] if "verdict" in r], 20)[0]
        self.assertEqual((run["verdict"], run["state"]), ("UNKNOWN", "CANCELLED"))

        self.assertNotIn("next_fire", shown)
        self.assertEqual(self.json("schedule", "resume", "nightly")["next_fire"], made["next_fire"])
        self.assertIn("nightly", self.llctl("schedule", "list", "-o", "name").stdout.split())
        self.llctl("schedule", "delete", "nightly")
        self.llctl("schedule", "show", "nightly", code=8)
        self.llctl("get", job["job_id"])

    def test_the_clock_fires_it_once(self):
        self.create("minutely", "* * * * *", "--overlap", "skip")
        runs = self.wait_for(lambda: self.json("schedule", "show", "minutely")["runs"], 75)
        self.assertEqual(len(runs), 1)
        job = self.json("get", runs[0]["job_id"])
        self.assertEqual(job["request_id"], "schedule/minutely/" + runs[0]["fire_time"].replace(".000Z", "Z"))
        self.assertEqual(job["spec"]["model"], "tiny")
        # Before the minute is over, killed and started again: nothing fires twice.
        self.stop(signal.SIGKILL)
        self.start()
        time.sleep(2)
        again = self.json("schedule", "show", "minutely")["runs"]
        self.assertEqual([run["job_id"] for run in again if run["fire_time"] == runs[0]["fire_time"]], [runs[0]["job_id"]])
        self.llctl("schedule", "delete", "minutely")

    def test_bad_input_names_its_field(self):
        for field, code, arguments in [
                ("cron", 2, ("--cron", "0 25 * * *")),
                ("cron", 2, ("--cron", "0 0 30 2 *")),
                ("cron", 2, ("--cron", "every night")),
                ("time_zone", 2, ("--cron", "@daily", "--tz", "Europe/Atlantis")),
                ("missed", 2, ("--cron", "@daily", "--missed", "sometimes")),
                ("overlap", 2, ("--cron", "@daily", "--overlap", "maybe")),
                ("overlap", 2, ("--cron", "@daily", "--missed", "all")),
                ("history_limit", 2, ("--cron", "@daily", "--history", 0)),
                ("start_within", 2, ("--cron", "@daily", "--start-within", 1)),
                ("tolerance_loss", 2, ("--cron", "@daily", "--tolerance-loss", -1)),
                ("queue", 8, ("--cron", "@daily", "--queue", "nobody")),
                ("context_length", 2, ("--cron", "@daily", "--ctx", 128)),
        ]:
            error = self.refused("schedule", "create", "bad", "-f", "nightly.yaml", *arguments, code=code)
            self.assertEqual(error["field"], field, (arguments, error))
        self.assertEqual(self.refused("schedule", "create", "a b", "--cron", "@daily", "-f", "nightly.yaml",
                                      code=2)["field"], "name")
        for command in ("show", "run", "pause", "resume", "delete"):
            self.assertEqual(self.refused("schedule", command, "gone", code=8)["field"], "schedule")
        self.assertEqual(self.json("schedule", "list"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
