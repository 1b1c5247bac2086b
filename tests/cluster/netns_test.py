#!/usr/bin/env python3
"""A job over several hosts whose network is cut, slowed and restored, and whose hosts die. Hosts are network namespaces.

  netns_test.py BIN_DIR   (with llctl, ll-coordinator, ll-worker and ll-trainer)

host0 runs the coordinator, the others an agent with one CPU slot each. All share a job store, as hosts of a cluster share a file system.
"""
import hashlib
import json
import os
import pathlib
import secrets
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from service import BIN, CONFIG  # noqa: E402

from hosts import Hosts, why_not  # noqa: E402

DEADLINE_S = 180
WHY_NOT = why_not()


@unittest.skipIf(WHY_NOT, f"hosts cannot be made of network namespaces here: {WHY_NOT}")
class NetnsTest(unittest.TestCase):
    AGENTS = 4

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ll-netns-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = pathlib.Path(cls.folder.name)
        cls.hosts = Hosts(1 + cls.AGENTS)
        cls.addClassCleanup(cls.hosts.remove)
        (cls.root / "config.json").write_text(json.dumps(CONFIG))
        cls.model, cls.data = cls.root / "model", cls.root / "data.bin"
        subprocess.run([BIN / "ll-trainer", "init", "--config", cls.root / "config.json", "--out", cls.model, "--seed", "3"], check=True,
                       capture_output=True)
        cls.data.write_bytes(struct.pack("<40000H", *[(5 * i + i // 7 % 4) % 95 + 4 for i in range(40000)]))
        token = secrets.token_hex(32)
        (cls.root / "tokens").write_text(json.dumps({"token_sha256": hashlib.sha256(token.encode()).hexdigest(), "user": "op",
                                                     "scopes": ["admin", "submit", "read", "cancel", "worker"]}) + "\n")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=coordinator", "-addext",
                        f"subjectAltName=IP:{cls.hosts.address(0)}", "-keyout", cls.root / "key.pem", "-out", cls.root / "cert.pem"], check=True,
                       capture_output=True)
        cls.environment = dict(os.environ, LLCTL_TOKEN=token, LLCTL_CA=str(cls.root / "cert.pem"), OMP_NUM_THREADS="1")
        coordinator = cls.hosts.start(0, [BIN / "ll-coordinator", "--listen", f"{cls.hosts.address(0)}:0", "--http", "127.0.0.1:0", "--data-dir",
                                          cls.root / "coordinator", "--tls-cert", cls.root / "cert.pem", "--tls-key", cls.root / "key.pem",
                                          "--tokens", cls.root / "tokens", "--shared-job-store"],
                                      stdout=subprocess.PIPE, stderr=cls.log("coordinator"), text=True, env=cls.environment)
        cls.addClassCleanup(coordinator.stdout.close)
        line = coordinator.stdout.readline()
        cls.environment["LLCTL_COORDINATOR"] = dict(p.split("=", 1) for p in line.split() if "=" in p)["grpc"]
        cls.agents = {}
        for i in range(1, 1 + cls.AGENTS):
            cls.start_agent(i)

    @classmethod
    def start_agent(cls, i):
        cls.agents[i] = cls.hosts.start(i, [BIN / "ll-worker", "--coordinator", cls.environment["LLCTL_COORDINATOR"], "--http", "127.0.0.1:0",
                                            "--work-dir", cls.root / f"w{i}", "--name", f"w{i}", "--cpu-slots", 1, "--slot-memory", 1 << 30,
                                            "--trainer-threads", 1, "--trainer", BIN / "ll-trainer", "--root", f"files={cls.root}", "--job-store",
                                            cls.root / "jobs", "--tls-ca", cls.root / "cert.pem"],
                                        stdout=subprocess.DEVNULL, stderr=cls.log(f"w{i}"), env=cls.environment)

    @classmethod
    def log(cls, name):
        file = open(cls.root / f"{name}.log", "a")
        cls.addClassCleanup(file.close)
        return file

    # ---- llctl on the coordinator's host

    def llctl(self, *arguments):
        run = self.hosts.run(0, [BIN / "llctl", *arguments], capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def submit(self, ranks, steps, *more):
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.data, "--ctx", 512, "--steps", steps, "--warmup-steps", 0,
                          "--learning-rate", 0.001, "--global-batch-size", 4, "--precision", "fp32", "--context-parallel", ranks, "--gpus", ranks,
                          "--save-steps", 20, "--logging-steps", 1, "--seed", 5, *more).strip()

    def get(self, job):
        return json.loads(self.llctl("-o", "json", "get", "--history", job))

    def wait_for(self, job, condition, what, deadline_s=DEADLINE_S):
        deadline = time.monotonic() + deadline_s
        while not condition(found := self.get(job)):
            self.assertLess(time.monotonic(), deadline, f"{job} waited for {what}: {found['state']}, {found['reason']}")
            self.assertNotIn(found["state"], ("FAILED", "CANCELLED"), found["reason"])
            time.sleep(0.3)
        return found

    def step(self, job):
        return int(self.get(job).get("progress", {}).get("step", 0))

    def await_step(self, job, step):
        return self.wait_for(job, lambda j: int(j.get("progress", {}).get("step", 0)) >= step, f"step {step}")

    def await_result(self, job):
        return self.wait_for(job, lambda j: j["state"] == "SUCCEEDED" and j.get("progress", {}).get("step") == j["progress"]["max_steps"], "its end")

    def await_agents(self, count):
        deadline = time.monotonic() + DEADLINE_S
        while sum(w["connected"] for w in json.loads(self.llctl("-o", "json", "workers", "list"))) < count:
            self.assertLess(time.monotonic(), deadline, "agents in contact")
            time.sleep(0.5)

    def losses(self, job):
        return [(int(s["step"]), s["loss"], s["grad_norm"]) for s in job["steps"]]

    def adapter(self, job):
        steps = int(job["progress"]["max_steps"])
        return (self.root / "jobs" / job["job_id"] / f"e{int(job['epoch']):04d}" / "checkpoints" / f"step-{steps:06d}" /
                "adapter_model.safetensors").read_bytes()

    def assert_same_training(self, job, reference):
        self.assertEqual(self.losses(job), self.losses(reference))
        self.assertEqual(self.adapter(job), self.adapter(reference))

    def hosts_of(self, job):
        return [int(worker[1:]) for worker in job["workers"]]

    # ---- what must hold

    def undisturbed(self, ranks, steps):
        key = f"reference-{ranks}-{steps}"
        if not hasattr(type(self), key):
            self.await_agents(self.AGENTS)
            setattr(type(self), key, self.await_result(self.submit(ranks, steps)))
        return getattr(type(self), key)

    def cut_during(self, ranks, steps, seconds):
        """Cuts the host of the last rank off for so long; the finished job, and how it went meanwhile."""
        self.await_agents(self.AGENTS)
        job = self.submit(ranks, steps)
        running = self.await_step(job, 5)
        victim = self.hosts_of(running)[-1]
        self.hosts.cut(victim)
        start = time.monotonic()
        try:
            time.sleep(seconds)
        finally:
            self.hosts.restore(victim)
        at_restore = self.get(job)
        end = self.await_result(job)
        print(f"{ranks} ranks, w{victim} cut off for {seconds} s at step {running['progress']['step']}: attempts {end['epoch']}, step "
              f"{at_restore['progress']['step']} at the end of the cut, done {time.monotonic() - start - seconds:.1f} s after it", flush=True)
        return end

    def test_1_ranks_on_different_hosts_train_as_one(self):
        reference = self.undisturbed(2, 200)
        self.assertEqual(int(reference["epoch"]), 1)
        one = self.await_result(self.submit(1, 200))
        for (step, loss, norm), (_, expected, expected_norm) in zip(self.losses(reference), self.losses(one)):
            self.assertAlmostEqual(loss, expected, delta=1e-4 * expected, msg=f"step {step}")
            self.assertAlmostEqual(norm, expected_norm, delta=1e-2 * expected_norm, msg=f"step {step}")
        four = self.undisturbed(4, 100)
        for (step, loss, _), (_, expected, _) in zip(self.losses(four), self.losses(one)):
            self.assertAlmostEqual(loss, expected, delta=1e-4 * expected, msg=f"step {step}")

    def test_2_a_cut_of_a_second_changes_nothing(self):
        for ranks, steps in ((2, 200), (4, 100)):
            end = self.cut_during(ranks, steps, 1)
            self.assertEqual(int(end["epoch"]), 1)
            self.assert_same_training(end, self.undisturbed(ranks, steps))

    def test_3_a_cut_of_ten_seconds_is_waited_out(self):
        for ranks, steps in ((2, 200), (4, 100)):
            end = self.cut_during(ranks, steps, 10)
            self.assertEqual(int(end["epoch"]), 1)
            self.assert_same_training(end, self.undisturbed(ranks, steps))

    def test_4_a_cut_of_a_minute_costs_one_relaunch(self):
        for ranks, steps in ((2, 200), (4, 100)):
            end = self.cut_during(ranks, steps, 60)
            self.assertEqual(int(end["epoch"]), 2)
            self.assert_same_training(end, self.undisturbed(ranks, steps))

    def test_5_a_slow_link_only_slows(self):
        self.await_agents(self.AGENTS)
        job = self.submit(2, 200)
        running = self.await_step(job, 5)
        victim = self.hosts_of(running)[-1]
        refused = self.hosts.slow(victim, "500kbit")
        if refused:
            print(f"this kernel cannot slow a link: {refused}", flush=True)
        time.sleep(8)
        self.hosts.full_speed(victim)
        end = self.await_result(job)
        self.assertEqual(int(end["epoch"]), 1)
        self.assert_same_training(end, self.undisturbed(2, 200))
        longest = max(s["step_seconds"] for s in end["steps"])
        print(f"a link of 0.5 Mbit/s for 8 s: longest step {longest:.2f} s", flush=True)

    def test_6_a_host_that_dies_is_replaced(self):
        self.await_agents(self.AGENTS)
        job = self.submit(2, 200)
        running = self.await_step(job, 45)
        victim = self.hosts_of(running)[-1]
        start = time.monotonic()
        self.hosts.kill(victim)
        again = self.wait_for(job, lambda j: int(j["epoch"]) == 2 and j["state"] == "RUNNING", "another attempt")
        took = time.monotonic() - start
        self.assertNotIn(victim, self.hosts_of(again))
        end = self.await_result(job)
        self.start_agent(victim)
        self.assertEqual(int(end["epoch"]), 2)
        self.assert_same_training(end, self.undisturbed(2, 200))
        resumed = min(int(s["step"]) for s in end["steps"] if int(s["epoch"]) == 2)
        print(f"w{victim} died at step {running['progress']['step']}: runs elsewhere after {took:.1f} s, from step {resumed}", flush=True)

    def test_7_sigterm_to_an_agent_loses_no_step(self):
        """A spot machine is told to end: its ranks checkpoint, the gang goes on elsewhere from that very step."""
        self.await_agents(self.AGENTS)
        job = self.submit(2, 200, "--save-steps", 100000)
        running = self.await_step(job, 30)
        victim = self.hosts_of(running)[-1]
        self.agents[victim].terminate()
        self.assertEqual(self.agents[victim].wait(timeout=DEADLINE_S), 0)
        end = self.await_result(job)
        self.start_agent(victim)
        self.assertEqual(int(end["epoch"]), 2)
        self.assert_same_training(end, self.undisturbed(2, 200))
        first = [int(s["step"]) for s in end["steps"] if int(s["epoch"]) == 1]
        second = [int(s["step"]) for s in end["steps"] if int(s["epoch"]) == 2]
        self.assertEqual(first + second, list(range(1, 201)))
        self.assertEqual(self.steps_trained(end), 200, "a step was trained twice")
        print(f"w{victim} was told to end: went on at step {second[0]}, the last one before was {first[-1]}", flush=True)

    def steps_trained(self, job):
        """Over all attempts, as the ranks told them: a step trained twice counts twice."""
        count = 0
        for epoch in range(1, int(job["epoch"]) + 1):
            folder = self.root / "jobs" / job["job_id"] / f"e{epoch:04d}"
            for line in (folder / "events.jsonl").read_text().splitlines():
                count += json.loads(line).get("event") == "step"
        return count


if __name__ == "__main__":
    unittest.main(verbosity=2)
