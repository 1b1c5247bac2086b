#!/usr/bin/env python3
"""What operators see is true: a real Prometheus scrapes a real coordinator, two agents and real trainings.

  service_test.py BIN_DIR   (with llctl, ll-coordinator, ll-worker, ll-trainer and ll-data; needs prometheus and promtool)
"""
import collections
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import unittest
import urllib.request

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from dashboards import SYNTHETIC, boards, fill_in, panels, synthetic  # noqa: E402
from metrics_table import families  # noqa: E402
from prometheus import DEPLOY, Prometheus, faster  # noqa: E402
from service import BIN, ServiceCase  # noqa: E402

PATIENCE_S = 90
# What alerts may name although nothing here shows it.
NOT_HERE = {"ll_forecast_error_ratio": "nothing is forecast of the test's model and device",
            "ll_backup_timestamp_seconds": "no backup is made here, but in tests/cluster/failover_test.py",
            "ll_webhook_deliveries_total": "no endpoint is configured here, but in tests/webhooks/webhooks_test.py",
            "ll_webhook_oldest_waiting_seconds": "likewise",
            "ll_scaler_last_round_time_seconds": "no ll-scaler runs here, but in actions_test.py"}
NAME = re.compile(r"\b((?:ll|process|scrape)_[a-z0-9_]+|up)\b(?!\s*[=~!(:])")
RECIPE = ("--ctx", 256, "--precision", "fp32", "--set", "global_batch_size=1", "--seed", 5)


def rules():
    return [rule for file in sorted((DEPLOY / "rules").glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]
            for rule in group["rules"]]


def metric_names(expression):
    """Names of scraped metrics in a PromQL expression."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    without_recorded = re.sub(r"\b\w+(?::\w+)+\b", "", without_strings)
    return set(NAME.findall(without_recorded))


class ObservabilityTest(ServiceCase):
    COORDINATOR = ("--lease-seconds", 3, "--heartbeat-seconds", 1, "--shared-job-store")
    WORKERS = ()  # started below, where their addresses are read

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.agents = {}
        for name in ("w1", "w2"):
            cls.start_agent(name)
        cls.coordinator_http = json.loads((cls.root / "coordinator/endpoints.json").read_text())["http"]
        cls.prometheus = Prometheus(cls.root / "prometheus", cls.coordinator_http)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.prometheus.targets("workers", [{"targets": [cls.serve_synthetic()], "labels": {"worker": "synthetic"}}])
        cls.prometheus.targets("coordinators", [{"targets": [cls.coordinator_http]}])
        cls.prometheus.start()
        cls.data = cls.make_data()

    @classmethod
    def start_agent(cls, name):
        process = cls.start("ll-worker", "--coordinator", cls.environment["LLCTL_COORDINATOR"], "--http", "127.0.0.1:0", "--work-dir",
                            cls.root / name, "--name", name, "--cpu-slots", 1, "--trainer-threads", "1", "--trainer", BIN / "ll-trainer",
                            "--root", f"models={cls.root}", "--job-store", cls.root / "jobs")
        words = dict(part.split("=", 1) for part in process.stdout.readline().split() if "=" in part)
        cls.agents[name] = (process, words["http"])

    @classmethod
    def serve_synthetic(cls):
        """The address of a page with the metrics that only GPUs, faults and TLS bring."""
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(synthetic().encode())

            def log_message(self, *_):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        return f"127.0.0.1:{server.server_port}"

    def submit(self, *arguments):
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.data, *RECIPE, *arguments).stdout.strip()

    def wait(self, condition, what, seconds=PATIENCE_S):
        return self.prometheus.wait(condition, what, seconds)

    def running(self, *arguments):
        """A training that goes on until it is cancelled."""
        job = self.submit("--steps", 1000000, "--set", "save_steps=50", "--set", "eval_steps=50", "--set", f"eval_data={self.data}",
                          *arguments)
        self.addCleanup(self.llctl, "cancel", job, code=None)
        self.wait(lambda: self.prometheus.value(f'll_train_step{{job_id="{job}"}}'), f"{job} trains")
        return job

    def llctl(self, *arguments, code=0, **options):
        if code is None:
            return subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, timeout=60, env=self.environment)
        return super().llctl(*arguments, code=code, **options)

    def cordon(self, verb):
        for name in self.agents:
            self.llctl("workers", verb, name)

    def jobs_by_state(self):
        counts = collections.Counter()
        for job in json.loads(self.llctl("-o", "json", "list", "--all").stdout):
            counts[job["state"]] += 1
        return counts

    def test_1_scrapes_are_well_formed(self):
        self.running()
        for address in (self.coordinator_http, self.agents["w1"][1]):
            text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read()
            run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
            self.assertEqual((run.returncode, run.stdout + run.stderr), (0, b""), address)
            told = dict(re.findall(r"^# HELP (\S+) (.*)$", text.decode(), re.M))
            self.assertGreater(len(told), 20)
            self.assertEqual(told, {name: families()[name].help for name in told if name in families()}, address)

    def test_2_every_name_exists_and_every_rule_has_data(self):
        self.llctl("models", "add", "talker", self.model)
        spec = self.root / "nightly.yaml"
        spec.write_text(f"model: talker\ncontext_length: 256\ndata: {self.data}\nprecision: fp32\nglobal_batch_size: 1\nmax_steps: 3\n"
                        f"eval_steps: 3\neval_data: {self.data}\n")
        self.llctl("schedule", "create", "nightly", "--cron", "0 2 * * *", "-f", spec)
        self.llctl("schedule", "run", "nightly")
        self.llctl("eval", "passkey", "--model", "talker", "--lengths", 400, "--context-size", 512, "--num-tests", 1, "--depths", 1)
        self.llctl("queues", "set", "default", "--weight", 2, "--quota-gpus", 8, "--max-gpus", 16)
        job = self.running("--gpus", 2)
        self.submit("--steps", 3)  # waits for slots
        missing = lambda: [rule["record"] for rule in rules() if "record" in rule and not self.prometheus.query(rule["record"])]
        self.wait(lambda: not missing(), lambda: f"data of {missing()}")
        named = set().union(*(metric_names(rule["expr"]) for rule in rules()))
        self.assertGreater(len(named), 20)
        self.wait(lambda: named - self.prometheus.names() <= set(NOT_HERE), lambda: f"scraped: {named - self.prometheus.names()}")
        broken = [rule["name"] for group in self.prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]
                  if rule["health"] != "ok"]
        self.assertEqual(broken, [])
        self.every_panel_has_data(job)

    def every_panel_has_data(self, job):
        """Asked as Grafana would with this job chosen; those of GPUs and faults with the synthetic one."""
        values = {"job_id": job, "queue": "default", "rank": ".*", "schedule": ".*", "worker": ".*"}
        empty = {}
        for board in boards():
            for variable in board["templating"]["list"]:
                if variable["type"] == "query":
                    selector = re.search(r"label_values\((.*), (\w+)\)", variable["definition"])
                    empty[board["uid"], variable["name"]] = [faster(fill_in(selector[1], values))]
            for panel in panels(board):
                place = board["uid"], panel["title"]
                chosen = {**values, "job_id": "job-synthetic"} if place in SYNTHETIC else values
                empty[place] = [faster(fill_in(target["expr"], chosen)) for target in panel["targets"]]
        self.assertGreater(len(empty), 60)

        def without_data():
            for place in list(empty):
                empty[place] = [query for query in empty[place] if not self.prometheus.query(query)]
                if not empty[place]:
                    del empty[place]
            return empty
        self.wait(lambda: not without_data(), lambda: f"data of {empty}")

    def test_3_a_killed_agent_is_told_and_its_return_too(self):
        self.agents["w2"][0].kill()
        self.wait(lambda: self.prometheus.firing("LlWorkerDown", worker="w2"), "LlWorkerDown")
        self.wait(lambda: self.prometheus.firing("LlWorkerMetricsMissing", worker="w2"), "LlWorkerMetricsMissing")
        self.assertEqual(self.prometheus.firing("LlWorkerDown", worker="w1"), [])
        self.start_agent("w2")
        self.wait(lambda: not self.prometheus.firing("LlWorkerDown"), "LlWorkerDown ends")
        self.wait(lambda: not self.prometheus.firing("LlWorkerMetricsMissing"), "LlWorkerMetricsMissing ends")

    def test_4_a_starving_queue_is_told(self):
        self.cordon("cordon")
        job = self.submit("--steps", 3)
        self.wait(lambda: self.prometheus.firing("LlQueueStuck"), "LlQueueStuck")
        self.assertIn("cordon", self.llctl("why", job).stdout)
        self.cordon("uncordon")
        self.await_result(job)
        self.wait(lambda: not self.prometheus.firing("LlQueueStuck"), "LlQueueStuck ends")

    def test_5_a_job_that_hangs_is_told(self):
        job = self.running()
        ranks = subprocess.run(["pgrep", "-f", f"ll-trainer.*{job}"], capture_output=True, text=True, timeout=10).stdout.split()
        self.assertTrue(ranks)
        for pid in ranks:
            os.kill(int(pid), signal.SIGSTOP)
        try:
            self.wait(lambda: self.prometheus.firing("LlJobNoProgress", job_id=job), "LlJobNoProgress")
        finally:
            for pid in ranks:
                os.kill(int(pid), signal.SIGCONT)
        self.wait(lambda: not self.prometheus.firing("LlJobNoProgress"), "LlJobNoProgress ends")

    def test_6_counters_equal_the_store_after_a_crash(self):
        job = self.submit("--steps", 400, "--set", "save_steps=20")
        self.wait_for(job, lambda j: int(j.get("progress", {}).get("step", 0)) >= 30, "30 steps")
        rank = subprocess.run(["pgrep", "-f", f"ll-trainer.*{job}"], capture_output=True, text=True, timeout=10).stdout.split()
        os.kill(int(rank[0]), signal.SIGKILL)
        end = self.await_result(job)
        self.assertEqual(end["epoch"], 2)
        self.wait(lambda: self.prometheus.value(f'll_train_step{{job_id="{job}"}}') == 400, "the last step is scraped")

        # Every step that was ever told, also one that was done twice.
        told = sum(json.loads(line)["tokens"] for file in (self.root / "jobs" / job).glob("e*/events.jsonl")
                   for line in file.read_text().splitlines() if '"event":"step"' in line and '"rank":0' in line)
        self.assertEqual(self.prometheus.value(f'll_train_tokens_total{{job_id="{job}"}}'), told)
        stored = self.jobs_by_state()
        self.wait(lambda: {labels["state"]: value for labels, value in self.prometheus.query("ll_jobs > 0")} == stored,
                  f"ll_jobs shows {stored}", 20)


if __name__ == "__main__":
    unittest.main(verbosity=2)
