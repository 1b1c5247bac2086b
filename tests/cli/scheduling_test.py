#!/usr/bin/env python3
"""What the scheduler decides, seen as a user and an operator see it: llctl, a real coordinator, real agents in two racks and a stand-in for
the trainer.

  scheduling_test.py BIN_DIR FAKE_TRAINER
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from waiting import await_that  # noqa: E402

BIN, TRAINER = (pathlib.Path(sys.argv.pop(1)).resolve() for _ in range(2))
DEADLINE_S = 60
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32"}
FOREVER = ("--labels", "fake.until_stopped=1", "--steps", 1000000)
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
# Alone or by name a gang of two would take w1 and w2, which do not share a rack.
RACKS = {"w1": "a", "w2": "b", "w3": "a", "w4": "b"}


class SchedulingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="ll-scheduling-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        (cls.root / "model").mkdir()
        (cls.root / "model/config.json").write_text(json.dumps(CONFIG))
        (cls.root / "data.bin").write_bytes(b"\1" * 65536)
        # A host on which no trainer starts.
        (cls.root / "broken-trainer").write_text("#!/bin/sh\nexit 30\n")
        (cls.root / "broken-trainer").chmod(0o755)
        cls.environment = dict(os.environ, LL_DATA_DIR=str(cls.root / "data"), HOME=str(cls.root))
        cls.processes = {}
        cls.addClassCleanup(lambda: [cls.end(name) for name in list(cls.processes)])
        line = cls.start("coordinator", BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", cls.root / "data",
                         "--shared-job-store").stdout.readline()
        cls.environment["LLCTL_COORDINATOR"] = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]
        for name, rack in RACKS.items():
            cls.worker(name, "--rack", rack)
        cls.await_workers(set(RACKS))

    @classmethod
    def start(cls, name, *command):
        cls.processes[name] = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                               stdin=subprocess.DEVNULL, text=True, env=cls.environment)
        return cls.processes[name]

    @classmethod
    def end(cls, name):
        process = cls.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=DEADLINE_S)
        process.stdout.close()

    @classmethod
    def worker(cls, name, *more, trainer=TRAINER, memory=4_000_000_000, gpu=None):
        # Each on a host of its own, as far as placement is concerned; `gpu`: which GPU its driver tells of, else it has a CPU slot.
        own = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        host = 'hostname "$0"'
        slots = ("--cpu-slots", 1, "--slot-memory", memory)
        if gpu is not None:
            driver = cls.root / f"{name}-smi"
            driver.write_text(f"#!/bin/sh\necho '0, {gpu}'\n")
            driver.chmod(0o755)
            host += (f" && if test -e /usr/bin/nvidia-smi; then mount --bind {driver} /usr/bin/nvidia-smi"
                     f"; else mount -t tmpfs none /usr/local/bin && cp {driver} /usr/local/bin/nvidia-smi; fi")
            slots = ()
        cls.start(name, "unshare", *own, "--uts", "--mount", "sh", "-c", f'{host} && exec "$@"', name, BIN / "ll-worker", "--coordinator",
                  cls.environment["LLCTL_COORDINATOR"], "--http", "127.0.0.1:0", "--work-dir", cls.root / name, "--name", name, "--fabric-host", "127.0.0.1",
                  *slots, "--trainer", trainer, "--trainer-threads", 1, "--probe-days", 0, "--job-store", cls.root / "jobs", *more)

    @classmethod
    def llctl(cls, *arguments, code=0):
        run = subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S, env=cls.environment)
        assert run.returncode == code, f"{arguments}: {run.returncode}, {run.stdout}{run.stderr}"
        return run

    @classmethod
    def json(cls, *arguments):
        return json.loads(cls.llctl("-o", "json", *arguments).stdout)

    @classmethod
    def workers(cls):
        return {w["worker"]: w for w in cls.json("workers", "list") if w.get("connected")}

    @classmethod
    def await_workers(cls, names):
        await_that(lambda: set(cls.workers()) == names, f"workers {names}")

    def submit(self, *arguments):
        return self.llctl("-o", "name", "submit", "--model", self.root / "model", "--data", self.root / "data.bin", "--ctx", 512, "--steps", 20,
                          *arguments).stdout.split()

    def one(self, *arguments):
        (job,) = self.submit(*arguments)
        self.addCleanup(self.clear, job)
        return job

    def clear(self, job):
        subprocess.run([BIN / "llctl", "cancel", job], capture_output=True, env=self.environment, timeout=DEADLINE_S)
        await_that(lambda: self.get(job)["state"] in ENDED, f"the end of {job}")

    def get(self, job):
        return self.json("get", job)

    def wait_for(self, job, state, epoch=0):
        def there():
            found = self.get(job)
            if found["state"] == state and int(found.get("epoch", 0)) >= epoch:
                return found
            self.assertFalse(found["state"] in ENDED, f"{job} {found['state']}: {found['reason']}")
            return None
        return await_that(there, lambda: f"{job} {state}: {self.llctl('why', job).stdout}")

    def places(self, job):
        """The workers of its newest attempt."""
        return sorted(name for name, w in self.workers().items() for use in w.get("uses", []) if use.get("job_id") == job)

    def ran_on(self, job):
        """The worker of the first attempt of a job of one rank."""
        starts = next(change for change in self.json("get", "--history", job)["history"] if change["state"] == "STARTING")
        return re.match(r"attempt 1 on ([^/]+)/0", starts["reason"])[1]

    def test_a_gang_stays_in_one_rack_and_a_drain_moves_it_there(self):
        job = self.one("--gpus", 2, *FOREVER)
        self.wait_for(job, "RUNNING")
        self.assertEqual(self.places(job), ["w1", "w3"])
        await_that(lambda: int(self.get(job).get("progress", {}).get("step", 0)) >= 5, "five steps")
        self.llctl("workers", "drain", "w3", "--reason", "new fan")
        self.addCleanup(self.llctl, "workers", "uncordon", "w3")
        moved = self.wait_for(job, "RUNNING", epoch=2)
        self.assertEqual(self.places(job), ["w2", "w4"])
        self.assertEqual(int(moved.get("retries", 0)), 0)
        history = self.json("get", "--history", job)["history"]
        drained = next(change for change in history if change["state"] == "PREEMPTING")
        self.assertIn("moves off worker w3, drained by", drained["reason"])
        self.assertIn("new fan", drained["reason"])
        self.assertRegex(history[-2]["reason"], "from the checkpoint of step [0-9]+")
        steps = [step["step"] for step in self.json("get", "--history", job)["steps"]]
        self.assertEqual(steps, list(range(1, len(steps) + 1)), "no step is lost or done twice")
        self.assertIn("new fan", self.llctl("-o", "table", "workers", "list").stdout)

    def test_too_small_slots_are_left_alone(self):
        self.worker("a-small", "--rack", "a", memory=32_000_000)
        self.addCleanup(self.await_workers, set(RACKS))
        self.addCleanup(self.end, "a-small")
        self.await_workers({*RACKS, "a-small"})
        gang = self.one("--gpus", 4, *FOREVER)
        self.wait_for(gang, "RUNNING")
        self.assertEqual(self.places(gang), sorted(RACKS))
        waits = self.one("--gpus", 1)
        self.assertRegex(self.llctl("why", waits).stdout, r"needs 1 slot (of kind cpu )?with at least [0-9]+ MB; 0 of [0-9]+ are free")

    def test_the_type_of_gpus_that_a_user_names(self):
        gpus = {"g-a100": "NVIDIA A100-SXM4-80GB, 81920", "g-h100": "NVIDIA H100 80GB HBM3, 81559", "g-v100": "Tesla V100-SXM2-32GB, 32768"}
        self.addCleanup(self.await_workers, set(RACKS))
        for name, gpu in gpus.items():
            self.worker(name, gpu=gpu)
            self.addCleanup(self.end, name)
        self.await_workers({*RACKS, *gpus})
        holder = self.one("--gpu-types", "h100", *FOREVER)
        running = self.wait_for(holder, "RUNNING")
        self.assertEqual(self.places(holder), ["g-h100"])
        self.assertEqual(running["resolved_spec"]["gpu_types"], ["H100"])
        self.assertEqual(running["forecast"]["plan"]["device"], "H100", "planned for what it runs on")
        waits = self.one("--gpu-types", "H100")
        self.assertRegex(self.llctl("why", waits).stdout, r"needs 1 slot of kind H100 \(gpu_types\) with at least [0-9.]+ .B; 0 of 1 are free.*; "
                                                          r"with gpu_types A100-80 it fits now")
        either = self.one("--gpu-types", "A100,H100")
        await_that(lambda: self.get(either)["state"] == "SUCCEEDED", lambda: self.llctl("why", either).stdout)
        self.assertEqual(self.ran_on(either), "g-a100")
        self.llctl("cancel", holder)
        await_that(lambda: self.get(waits)["state"] == "SUCCEEDED", lambda: self.llctl("why", waits).stdout)
        self.assertEqual(self.ran_on(waits), "g-h100")
        job = ("--model", self.root / "model", "--data", self.root / "data.bin", "--ctx", 512, "--gpu-types")
        plan = self.json("plan", *job, "a100")
        self.assertEqual((plan["forecast"]["plan"]["device"], plan["resolved_spec"]["gpu_types"]), ("A100-80", ["A100-40", "A100-80"]))
        for command in ("plan", "submit"):
            refused = json.loads(self.llctl("-o", "json", command, *job, "V100", code=3).stderr)
            self.assertEqual(refused["field"], "gpu_types")
            self.assertIn("unsupported: V100-16 and V100-32: needs sm_80+", refused["message"])
        cpu = self.one("--gpu-types", "cpu")
        await_that(lambda: self.get(cpu)["state"] == "SUCCEEDED", lambda: self.llctl("why", cpu).stdout)
        self.assertIn(self.ran_on(cpu), RACKS)

    def test_who_waits_for_whom(self):
        fails = self.one("--labels", "fake.fault=exit:20,fake.load_ms=2000")
        needs, any_end = self.one("--after", fails), self.one("--after-any", fails)
        after_good = self.one("--after", any_end)
        await_that(lambda: self.get(after_good)["state"] == "SUCCEEDED", "the end of the chain")
        self.assertEqual(self.get(fails)["state"], "FAILED")
        self.assertEqual(self.get(any_end)["state"], "SUCCEEDED")
        failed = self.get(needs)
        self.assertEqual(failed["state"], "FAILED")
        self.assertIn(f"{fails}, which it waits for, ended as FAILED", failed["reason"])

    def test_a_sweep_is_one_request(self):
        jobs = self.submit("--name", "grid", "--sweep", "learning_rate=1e-5,2e-5", "--sweep", "lora_rank=4,8")
        self.assertEqual(len(jobs), 4)
        await_that(lambda: all(self.get(job)["state"] == "SUCCEEDED" for job in jobs), "four ends")
        listed = self.json("list", "--label", "array=grid", "--label", "lora_rank=8")
        self.assertEqual(sorted(job["spec"]["name"] for job in listed), ["grid-1", "grid-3"])

    def test_deadlines_and_records_that_expire(self):
        late = self.one("--deadline", 2, *FOREVER)
        await_that(lambda: self.get(late)["state"] == "FAILED", "its deadline")
        found = self.json("get", "--history", late)
        self.assertRegex(found["reason"], "its deadline, .*, has passed")
        # What it has trained is in a checkpoint.
        self.assertTrue(any(path.name.startswith("step-") for path in (self.root / "jobs" / late).glob("e0001/checkpoints/step-*")))
        gone = self.submit("--ttl-after-finished", 1)[0]
        await_that(lambda: subprocess.run([BIN / "llctl", "get", gone], capture_output=True, env=self.environment).returncode == 8,
                        "the end of its record")

    def test_a_host_on_which_three_jobs_fail_is_cordoned(self):
        self.worker("a-lemon", "--rack", "a", trainer=self.root / "broken-trainer")
        self.addCleanup(self.await_workers, set(RACKS))
        self.addCleanup(self.end, "a-lemon")
        self.await_workers({*RACKS, "a-lemon"})
        for _ in range(3):  # one after the other, so that each finds it idle: it is the first in the alphabet
            job = self.one("--max-retries", 0)
            await_that(lambda: self.get(job)["state"] == "FAILED", "its end")
        await_that(lambda: self.workers()["a-lemon"].get("cordoned"), "the cordon")
        self.assertIn("3 jobs failed on it by infrastructure", self.workers()["a-lemon"]["cordon_reason"])
        job = self.one()
        await_that(lambda: self.get(job)["state"] == "SUCCEEDED", lambda: self.llctl("why", job).stdout)
        self.llctl("workers", "uncordon", "a-lemon")

    def test_a_quota_is_taken_back(self):
        self.llctl("queues", "set", "guest", "--quota-gpus", 0)
        self.llctl("queues", "set", "own", "--quota-gpus", 4)
        borrower = self.one("--gpus", 4, "--queue", "guest", "--min-runtime", 0, *FOREVER)
        self.wait_for(borrower, "RUNNING")
        owner = self.one("--gpus", 2, "--queue", "own")
        await_that(lambda: self.get(owner)["state"] == "SUCCEEDED", "the owner")
        again = self.wait_for(borrower, "RUNNING", epoch=2)
        self.assertEqual(int(again.get("retries", 0)), 0)
        reasons = [change["reason"] for change in self.json("get", "--history", borrower)["history"]]
        expected = f"preempted by {owner}: queue own takes back its quota"
        self.assertTrue(any(reason.startswith(f"{expected}; goes on from the checkpoint of step") for reason in reasons), reasons)

    def test_what_can_never_be_is_refused_with_its_field(self):
        self.llctl("queues", "set", "closed", "--max-gpus", 0)
        for field, word, arguments in (
                ("queue", "there is no queue nobody", ("--queue", "nobody")),
                ("queue", "queue closed may never hold more than 0", ("--queue", "closed")),
                ("gpus", "", ("--gpus", 0)), ("gpus", "", ("--gpus", 100_000)), ("after", "job-nobody", ("--after", "job-nobody")),
                ("priority", "", ("--priority", 10_000_000)),
                ("gpu_types", "types among A100-40, A100-80", ("--gpu-types", "H1000")),
                ("gpu_types", "no worker has slots of kind B200", ("--gpu-types", "B200"))):
            run = subprocess.run([BIN / "llctl", "-o", "json", "submit", "--model", self.root / "model", "--data", self.root / "data.bin",
                                  "--ctx", "512", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment)
            self.assertNotEqual(run.returncode, 0, arguments)
            error = json.loads(run.stderr)
            self.assertEqual(error["field"], field, error)
            self.assertIn(word, error["message"])


if __name__ == "__main__":
    unittest.main()
