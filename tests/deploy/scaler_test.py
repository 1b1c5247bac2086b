#!/usr/bin/env python3
"""ll-scaler between a real coordinator with real agents and a stand-in of Kubernetes' API server that starts and ends those agents.

  scaler_test.py BIN_DIR FAKE_TRAINER [--all]     --all: every fault of the API server, answers that come too late among them (a minute)

Trainings are a stand-in's: what counts here is which workers there are and that no rank is ended for want of one.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from fake_kubernetes import FakeKubernetes  # noqa: E402
from status import record  # noqa: E402

ALL = "--all" in sys.argv
BIN, TRAINER = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
DEADLINE_S = 40
QUIET_S, MANUAL_S = 0.5, 1.5
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32"}


class ScalerTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="ll-scaler-")))
        (self.root / "model").mkdir()
        (self.root / "model/config.json").write_text(json.dumps(CONFIG))
        (self.root / "data.bin").write_bytes(b"\1" * 65536)
        self.environment = dict(os.environ, LL_DATA_DIR=str(self.root / "data"), HOME=str(self.root))
        self.coordinator = self.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.root / "data",
                                      "--shared-job-store", "--lease-seconds", 3, "--heartbeat-seconds", 0.5)
        self.environment["LLCTL_COORDINATOR"] = self.said(self.coordinator)["grpc"]
        self.busy_when_stopped = []
        self.kubernetes = self.enterContext(FakeKubernetes(self.root, 1, self.start_worker, self.note_stop))
        account = self.root / "account"
        account.mkdir()
        (account / "namespace").write_text("ll\n")
        (account / "token").write_text("first\n")
        (account / "ca.crt").write_bytes((self.root / "ca.crt").read_bytes())
        self.account = account
        self.scaler = self.start_scaler()

    def start(self, name, *arguments):
        log = open(self.root / f"{name}.log", "a")
        process = subprocess.Popen([BIN / name, *map(str, arguments)], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
                                   env=self.environment)
        log.close()
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=DEADLINE_S)
        process.stdout.close()

    @staticmethod
    def said(process):
        return dict(part.split("=", 1) for part in process.stdout.readline().split() if "=" in part)

    def start_worker(self, ordinal):
        return self.start("ll-worker", "--coordinator", self.environment["LLCTL_COORDINATOR"], "--http", "127.0.0.1:0", "--work-dir",
                          self.root / f"w{ordinal}", "--name", f"ll-worker-{ordinal}", "--cpu-slots", 1, "--trainer", TRAINER, "--root",
                          f"all={self.root}", "--job-store", self.root / "jobs")

    def note_stop(self, ordinal):
        if uses := self.workers().get(f"ll-worker-{ordinal}", {}).get("uses"):
            self.busy_when_stopped.append((ordinal, uses))

    def start_scaler(self, *more):
        scaler = self.start("ll-scaler", "--coordinator", self.environment["LLCTL_COORDINATOR"], "--token-file", self.root / "data/token", "--api-server",
                            self.kubernetes.url, "--service-account", self.account, "--least", 1, "--most", 3, "--poll-seconds", 0.1,
                            "--quiet-seconds", QUIET_S, "--manual-seconds", MANUAL_S, "--http", "127.0.0.1:0", *more)
        self.pages = self.said(scaler)["http"]
        return scaler

    def call(self, *arguments):
        return subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment)

    def llctl(self, *arguments):
        run = self.call(*arguments)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def workers(self):
        return {worker["worker"]: worker for worker in json.loads(self.call("-o", "json", "workers", "list").stdout or "[]")}

    def submit(self, gpus):
        return self.llctl("-o", "name", "submit", "--model", self.root / "model", "--data", self.root / "data.bin", "--ctx", 256, "--gpus", gpus, "--labels",
                          "fake.until_stopped=1", "--steps", 1000000).strip()

    def wait(self, condition, what, seconds=DEADLINE_S):
        deadline = time.monotonic() + seconds
        while not condition():
            log = (self.root / "ll-scaler.log").read_text()[-3000:] if (self.root / "ll-scaler.log").exists() else ""
            self.assertLess(time.monotonic(), deadline, f"no {what}; {self.call('workers', 'list').stdout} {self.kubernetes.seen[-9:]}\n{log}")
            time.sleep(0.05)

    def wait_running(self, *jobs):
        for job in jobs:
            self.wait(lambda job=job: self.job(job)["state"] == "RUNNING", f"{job} running")

    def job(self, job):
        return json.loads(self.llctl("-o", "json", "get", job))

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.pages}/metrics", timeout=DEADLINE_S) as page:
            text = page.read().decode()
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.M)[1])

    def probe(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.pages}{path}", timeout=DEADLINE_S) as page:
                return page.status
        except urllib.error.HTTPError as error:
            return error.code

    def check_untouched(self, *jobs):
        """No attempt but the first, and no worker was ended while it held a slot."""
        for job in jobs:
            found = self.job(job)
            self.assertEqual((found["epoch"], found.get("retries", 0)), (1, 0), found)
        self.assertEqual(self.busy_when_stopped, [])

    def test_workers_follow_the_queue(self):
        two = self.submit(2)
        self.kubernetes.wait_for_pods(2)
        self.wait_running(two)  # on the first two workers: the next one gets the third
        one = self.submit(1)
        self.kubernetes.wait_for_pods(3)
        self.wait_running(one)
        waiting = self.submit(3)  # never more than three workers
        self.wait(lambda: self.metric("ll_scaler_pending_slots") == 3, "three slots waited for")
        self.assertEqual((self.metric("ll_scaler_wanted_replicas"), self.kubernetes.replicas), (3, 3))
        self.llctl("cancel", waiting)
        # Two workers are idle, the last one is not: it is cordoned, and stays for what it runs.
        last = next(name for name, worker in self.workers().items() if any(use["job_id"] == one for use in worker["uses"]))
        self.assertEqual(last, "ll-worker-2")
        self.llctl("cancel", two)
        self.wait(lambda: self.workers()[last]["cordoned"], "a cordon")
        self.assertIn("ll-scaler: not needed", self.workers()[last]["cordon_reason"])
        next_one = self.submit(1)
        self.wait_running(next_one)
        time.sleep(2 * QUIET_S)
        self.assertEqual(self.kubernetes.replicas, 3)
        self.assertEqual(self.job(one)["state"], "RUNNING")
        self.llctl("cancel", one)
        self.kubernetes.wait_for_pods(1)
        self.check_untouched(next_one, one, two)
        # The cordon of a worker that has gone does not keep it from work when it is back.
        again = self.submit(2)
        self.kubernetes.wait_for_pods(3)
        self.wait_running(again, next_one)
        self.check_untouched(again, next_one)
        self.assertEqual(self.metric('ll_scaler_changes_total{direction="up"}'), 3)
        self.person()
        self.coordinator_away()
        record("Kubernetes: ll-scaler", "emulated",
               "real coordinator and agents; the API server and the StatefulSet's controller are tests/deploy/fake_kubernetes.py: workers follow the queue, a "
               "worker with ranks is never ended, changes of a person stay; conflicts, refusals, cut and late answers, a token that ran out, a foreign CA")

    def person(self):
        """Runs with three workers wanted."""
        for job in json.loads(self.llctl("-o", "json", "list")):
            if job["state"] == "RUNNING":
                self.llctl("cancel", job["job_id"])
        self.kubernetes.wait_for_pods(1)
        self.kubernetes.set(2)
        self.kubernetes.wait_for_pods(2)
        self.wait(lambda: self.metric("ll_scaler_left_alone") == 1, "a number that is left alone")
        time.sleep(MANUAL_S / 2)
        self.assertEqual(self.kubernetes.replicas, 2)
        self.kubernetes.wait_for_pods(1)  # once the time is over
        self.kubernetes.set(0)
        self.kubernetes.wait_for_pods(0)
        job = self.submit(1)
        time.sleep(2 * MANUAL_S)
        self.assertEqual(self.kubernetes.replicas, 0)
        self.kubernetes.set(1)  # given back
        self.wait_running(job)
        self.llctl("cancel", job)

    def coordinator_away(self):
        self.assertEqual((self.probe("/healthz"), self.probe("/readyz")), (200, 200))
        self.coordinator.kill()
        self.coordinator.wait()
        self.wait(lambda: self.metric('ll_scaler_failures_total{peer="coordinator"}') > 0, "a failure that is counted")
        self.assertEqual(self.kubernetes.replicas, 1)
        began = time.monotonic()
        self.scaler.terminate()
        self.assertEqual(self.scaler.wait(timeout=DEADLINE_S), 0)
        self.assertLess(time.monotonic() - began, 12)

    def test_an_api_server_with_faults(self):
        """Each stands before one change; the change is made once it is gone, and once only."""
        up = 0
        more = [("PUT", "cut"), ("GET", "cut"), ("GET", 410), ("PUT", 429), ("GET", 503), ("PUT", "slow"), ("GET", "slow")]
        for fault in [("PUT", "conflict"), ("PUT", "done-and-cut"), ("PUT", 500)] + more * ALL:
            self.kubernetes.faults.append(fault)
            job = self.submit(2)
            self.kubernetes.wait_for_pods(2)
            self.wait_running(job)
            self.assertEqual(self.kubernetes.faults, [])
            self.assertEqual(self.metric("ll_scaler_left_alone"), 0)
            self.llctl("cancel", job)
            self.kubernetes.wait_for_pods(1)
            self.check_untouched(job)
            up += 1
        # A change whose answer was lost may go uncounted.
        self.assertIn(self.metric('ll_scaler_changes_total{direction="up"}'), (up - 1, up))
        self.token_ran_out()
        self.foreign_authority()

    def token_ran_out(self):
        self.kubernetes.token = "rotated"
        job = self.submit(2)
        self.wait(lambda: ("GET", 401) in self.kubernetes.seen, "a refusal")
        self.wait(lambda: "still good?" in (self.root / "ll-scaler.log").read_text(), "a line with the fix")
        (self.account / "token").write_text("rotated\n")  # as the kubelet does
        self.kubernetes.wait_for_pods(2)
        self.llctl("cancel", job)
        self.assertNotIn("rotated", (self.root / "ll-scaler.log").read_text())

    def foreign_authority(self):
        self.end(self.scaler)
        (self.account / "ca.crt").write_bytes((self.root / "other.crt").read_bytes())
        asked = len(self.kubernetes.seen)
        self.scaler = self.start_scaler()
        self.wait(lambda: self.metric('ll_scaler_failures_total{peer="kubernetes"}') > 0, "a failure that is counted")
        self.assertEqual(self.probe("/readyz"), 503)
        self.assertEqual(len(self.kubernetes.seen), asked, "the token went to a stranger")

    def test_wrong_flags_are_one_line(self):
        for arguments, named in ((("--most", "0"), "--most"), (("--least", "4"), "least: expected at most"), (("--http", "0.0.0.0:0"), "http"),
                                 (("--api-server", "http://10.0.0.1:1"), "api-server"), (("--service-account", "/nowhere"), "namespace")):
            given = {"--most": "3", "--api-server": "https://127.0.0.1:1", "--service-account": self.account, arguments[0]: arguments[1]}
            run = subprocess.run([BIN / "ll-scaler", *(str(word) for pair in given.items() for word in pair)],
                                 capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment)
            self.assertEqual((run.returncode, run.stderr.count("\n")), (2, 1), run.stderr)
            self.assertIn(named, run.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
