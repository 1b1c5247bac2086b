#!/usr/bin/env python3
"""Alerts made to fire by what docs/runbooks.md says under "Try it", on real processes with a real Prometheus; each ends when its cause does.

  actions_test.py BIN_DIR FAKE_TRAINER FAKE_NVML   (as root: it mounts a small disk; needs strace and openssl)

Time of the rules is compressed as in service_test.py; thresholds in hours or days are seconds here (THRESHOLDS). Trainers are stand-ins, and so is the GPUs' driver. What is not
here: service_test.py and faults_test.py, which use real ones; NOT_HERE says what only series show (rules_test.py).
"""
import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import time
import unittest

import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / folder) for folder in ("cli", "deploy", "support")]
FAKE_TRAINER, FAKE_NVML = (pathlib.Path(sys.argv.pop(2)).resolve() for _ in range(2))
from braked import braked  # noqa: E402
from fake_kubernetes import FakeKubernetes  # noqa: E402
from prometheus import DEPLOY, Prometheus  # noqa: E402
from service import BIN, DEADLINE_S, ServiceCase  # noqa: E402

PATIENCE_S = 120
SLOTS = 12
THRESHOLDS = {"LlScalerStuck": ("time() - 300", "time() - 10"), "LlBackupTooOld": ("2 * 86400", "15"), "LlCheckpointTooOld": ("2 * 3600", "15"), "LlNightlyTooOld": ("36 * 3600", "25"),
              "LlWebhookWaiting": ("3600", "10")}
DISK_BYTES = 256 << 20  # telemetry leaves 64 MiB of a disk free
SERIES_STAY_S = 400  # a job's series go five minutes after its end
ELSEWHERE = {"service_test.py": {"LlWorkerMetricsMissing", "LlQueueStuck", "LlJobNoProgress"},
             "faults_test.py": {"LlLossNotANumber", "LlLossSpike", "LlJobStraggler", "LlThroughputDrop", "LlQueueStarving"}}
NOT_HERE = {}  # alert: why only series show it


class ActionsTest(ServiceCase):
    COORDINATOR = ("--lease-seconds", 3, "--heartbeat-seconds", 1, "--shared-job-store")
    WORKERS = ()
    disk = None  # of the coordinator: small, so that it can be filled

    @classmethod
    def start(cls, name, *arguments):
        if cls.disk is None:
            cls.disk = cls.root / "coordinator"
            cls.disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", cls.disk], check=True)
            cls.addClassCleanup(subprocess.run, ["umount", "-l", cls.disk], check=False)
        return super().start(name, *arguments)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.http = json.loads((cls.disk / "endpoints.json").read_text())["http"]
        (cls.root / "tokens.bin").write_bytes(bytes(2 * 8192))
        cls.agents = {"w1": cls.start_agent("w1", SLOTS), "w2": cls.start_agent("w2", 1)}
        cls.prometheus = Prometheus(cls.root / "prometheus", cls.http)
        cls.addClassCleanup(cls.prometheus.stop)
        alerts = cls.root / "prometheus/rules/alerts.yml"
        alerts.write_text(cls.shortened(alerts.read_text()))
        cls.prometheus.targets("coordinators", [{"targets": [cls.http]}])
        cls.prometheus.targets("workers", [])
        cls.prometheus.start()

    @staticmethod
    def shortened(text):
        rules = yaml.safe_load(text)
        for group in rules["groups"]:
            for rule in group["rules"]:
                if rule["alert"] in THRESHOLDS:
                    old, new = THRESHOLDS[rule["alert"]]
                    assert old in rule["expr"], rule
                    rule["expr"] = rule["expr"].replace(old, new)
        return yaml.safe_dump(rules)

    @classmethod
    def start_agent(cls, name, slots, program=None, job_store=None, coordinator=None):
        """`coordinator`: address and data folder, where its token is."""
        address, data = coordinator or (cls.environment["LLCTL_COORDINATOR"], cls.disk)
        return cls.start("/usr/bin/env", f"LL_DATA_DIR={data}", program or BIN / "ll-worker", "--coordinator", address, "--http", "127.0.0.1:0", "--work-dir", cls.root / name, "--name",
                         name, "--cpu-slots", slots, "--trainer-threads", 1, "--trainer", FAKE_TRAINER, "--job-store", job_store or cls.root / "jobs",
                         "--slot-memory", 1 << 30)

    def start_coordinator(self):
        process = self.start("ll-coordinator", "--listen", self.environment["LLCTL_COORDINATOR"], "--http", self.http, "--data-dir", self.disk,
                             *self.COORDINATOR)
        self.assertIn("serving", process.stdout.readline())
        self.processes.remove(process)
        self.processes[0] = process

    def kill_coordinator(self):
        self.processes[0].kill()
        self.processes[0].wait()
        self.processes[0].stdout.close()

    def submit(self, *arguments, labels="fake.step_ms=200"):
        return self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.root / "tokens.bin", "--ctx", 256, "--labels", labels,
                          *arguments).stdout.split()

    def fires(self, *names, **labels):
        for name in names:
            self.prometheus.wait(lambda: self.prometheus.firing(name, **labels), f"{name} {labels}", PATIENCE_S)

    def ends(self, *names, seconds=PATIENCE_S, **labels):
        for name in names:
            self.prometheus.wait(lambda: not self.prometheus.firing(name, **labels), f"{name} {labels} ends", seconds)

    def in_contact(self, count):
        self.prometheus.wait(lambda: self.prometheus.value("sum(ll_worker_up)") == count, f"{count} workers in contact", PATIENCE_S)

    def setUp(self):
        self.in_contact(2)

    def test_every_alert_is_tried_or_says_why_not(self):
        tried = set()
        for file in [pathlib.Path(__file__), *(HERE / name for name in ELSEWHERE)]:
            tried |= {name for name in self.alerts() if f'"{name}"' in file.read_text()}
        for file, names in ELSEWHERE.items():
            self.assertEqual({name for name in names if f'"{name}"' not in (HERE / file).read_text()}, set(), file)
        runbooks = (HERE.parents[1] / "docs/runbooks.md").read_text()
        for name in self.alerts():
            section = runbooks.split(f"### {name}\n")[1].split("\n### ")[0]
            self.assertIn("**Try it.**", section, name)
            self.assertEqual(name in NOT_HERE, "rules_test.py" in section, name)
        self.assertEqual(self.alerts() - tried, set())

    @staticmethod
    def alerts():
        return {rule["alert"] for group in yaml.safe_load((DEPLOY / "rules/alerts.yml").read_text())["groups"] for rule in group["rules"]}

    def test_the_coordinator_is_killed(self):
        self.kill_coordinator()
        try:
            self.fires("LlCoordinatorDown", "LlWorkerHeadless")
        finally:
            self.start_coordinator()
        self.ends("LlCoordinatorDown", "LlWorkerHeadless")

    def test_agents_are_stopped(self):
        for agent in self.agents.values():
            agent.send_signal(signal.SIGSTOP)
        try:
            self.fires("LlWorkersMostlyDown", "LlWorkerDown")
        finally:
            for agent in self.agents.values():
                agent.send_signal(signal.SIGCONT)
        self.ends("LlWorkersMostlyDown", "LlWorkerDown")

    def test_a_connection_that_comes_and_goes(self):
        deadline = time.monotonic() + PATIENCE_S
        while not self.prometheus.firing("LlWorkerFlapping"):
            self.assertLess(time.monotonic(), deadline, "LlWorkerFlapping")
            self.kill_coordinator()
            self.start_coordinator()
            time.sleep(1.5)
        self.ends("LlWorkerFlapping")

    def test_many_crashes(self):
        jobs = self.submit("--steps", 30, "--sweep", "seed=" + ",".join(map(str, range(SLOTS))), labels="fake.fault=crash,fake.step_ms=100")
        self.assertEqual(len(jobs), SLOTS)
        self.fires("LlRelaunchStorm")
        self.ends("LlRelaunchStorm")

    def test_no_backup(self):
        backup = lambda: subprocess.run([BIN / "ll-coordinator", "backup", "--data-dir", self.disk, "--to", self.root / "backup"], check=True,
                                        capture_output=True, timeout=DEADLINE_S)
        backup()
        self.fires("LlBackupTooOld")
        (self.root / "backup").unlink()
        backup()
        self.ends("LlBackupTooOld")

    def test_no_checkpoint_and_more_series_than_expected(self):
        """Of a dozen trainings at once: the limit is lowered so far that they exceed it."""
        shown = self.prometheus.value(f'scrape_samples_scraped{{instance="{self.http}"}}')
        self.limit_series(int(shown) + 5 * SLOTS)
        try:
            time.sleep(15)
            self.assertEqual(self.prometheus.firing("LlTooManySeries", instance=self.http), [])
            jobs = self.submit("--set", "save_steps=0", "--sweep", "seed=" + ",".join(map(str, range(SLOTS))),
                               labels="fake.until_stopped=1,fake.step_ms=200")
            self.fires("LlTooManySeries", instance=self.http)
            self.fires("LlCheckpointTooOld", job_id=jobs[0])
            self.llctl("cancel", *jobs)
            self.ends("LlCheckpointTooOld", "LlTooManySeries", seconds=SERIES_STAY_S)
        finally:
            self.limit_series(10000)

    def limit_series(self, most):
        alerts = self.root / "prometheus/rules/alerts.yml"
        rules = yaml.safe_load(alerts.read_text())
        (rule,) = (rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == "LlTooManySeries")
        rule["expr"] = f'scrape_samples_scraped{{job=~"ll-.*"}} > {most}'
        alerts.write_text(yaml.safe_dump(rules))
        self.prometheus.process.send_signal(signal.SIGHUP)

    def test_gpus_that_fail_and_run_hot(self):
        folder = self.root / "driver"
        folder.mkdir()
        (folder / "libnvidia-ml.so.1").symlink_to(FAKE_NVML)
        smi = folder / "nvidia-smi"
        smi.write_text("#!/bin/sh\necho '0, NVIDIA H100 80GB HBM3, 81559'\n")
        smi.chmod(0o755)
        troubles = folder / "troubles"
        troubles.write_text("0 0\n")
        # Where the agent looks for nvidia-smi, in a mount namespace of its own.
        agent = self.start("/usr/bin/unshare", "-m", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /usr/local/bin && exec "$@"', folder,
                           "env", f"LD_LIBRARY_PATH={folder}", f"LL_FAKE_NVML={troubles}", BIN / "ll-worker", "--coordinator",
                           self.environment["LLCTL_COORDINATOR"], "--http", "127.0.0.1:0", "--work-dir", self.root / "g1", "--name", "g1", "--trainer",
                           FAKE_TRAINER, "--job-store", self.root / "jobs")
        try:
            self.prometheus.wait(lambda: self.prometheus.value('ll_gpu_ecc_errors_total{worker="g1"}') == 0, "the GPU is scraped", PATIENCE_S)
            troubles.write_text("2 64\n")
            self.fires("LlGpuMemoryErrors", "LlGpuThrottled", worker="g1", gpu="0")
            troubles.write_text("2 0\n")
            self.ends("LlGpuThrottled", "LlGpuMemoryErrors")
        finally:
            self.llctl("workers", "cordon", "g1")
            self.end(agent)

    def test_forecasts_that_are_wrong(self):
        probes, data = self.root / "probes", self.root / "forecasting"
        probes.mkdir()
        (probes / "cpu.json").write_text(json.dumps(
            {"device": "cpu", "host": "here", "time": "2026-01-01T00:00:00Z", "build": "test", "gemm_flops": 1e10, "attention_flops": 5e9,
             "memory_bandwidth": 5e9, "link_bandwidth": 1e9}))
        process = self.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data, "--calibrations", probes,
                             "--shared-job-store")
        address = dict(part.split("=", 1) for part in process.stdout.readline().split() if "=" in part)
        agent = self.start_agent("f1", 1, coordinator=(address["grpc"], data), job_store=self.root / "forecast-jobs")
        self.scrape_beside(address["http"])
        self.prometheus.wait(lambda: self.prometheus.value('ll_worker_up{job="other",worker="f1"}'), "its worker", PATIENCE_S)
        asked = dict(self.environment, LL_DATA_DIR=str(data), LLCTL_COORDINATOR=address["grpc"])

        def train(times, steps=30):
            """A training whose steps take so many times as long as forecast."""
            words = ["-o", "json", "submit", "--model", self.model, "--data", self.root / "tokens.bin", "--ctx", 256, "--steps", steps]
            call = lambda *more: json.loads(subprocess.run([BIN / "llctl", *map(str, (*words, *more))], capture_output=True, text=True, check=True,
                                                           timeout=DEADLINE_S, env=asked).stdout)
            plan = call("--dry-run")["forecast"]["plan"]
            self.assertEqual(plan["device"], "cpu")
            forecast_ms = plan["step_seconds"] * 1e3
            self.assertGreater(forecast_ms, 20)
            call("--labels", f"fake.step_ms={round(times * forecast_ms)}")
        train(4)
        self.fires("LlForecastError", job="other", kind="duration")
        train(1)
        self.ends("LlForecastError", job="other", kind="duration")
        self.prometheus.targets("coordinators", [{"targets": [self.http]}])
        self.end(agent)
        self.end(process)

    def test_decisions_of_a_coordinator_that_gets_little_of_a_processor(self):
        """An eighth of one, as by a container's limit, while sweeps of a thousand jobs come in, each of which is one decision."""
        data = self.root / "starved"
        process = self.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data)
        address = dict(part.split("=", 1) for part in process.stdout.readline().split() if "=" in part)
        self.scrape_beside(address["http"])
        asked = dict(self.environment, LL_DATA_DIR=str(data), LLCTL_COORDINATOR=address["grpc"])
        with braked(process.pid, stopped_s=0.15, running_s=0.02):
            deadline = time.monotonic() + PATIENCE_S
            while not self.prometheus.firing("LlSchedulerSlow"):
                self.assertLess(time.monotonic(), deadline, "LlSchedulerSlow")
                subprocess.run([BIN / "llctl", "-o", "name", "submit", "--model", self.model, "--data", self.root / "tokens.bin", "--ctx", "256", "--sweep",
                                "seed=" + ",".join(map(str, range(1000)))], capture_output=True, timeout=DEADLINE_S, env=asked)
        self.ends("LlSchedulerSlow")
        self.prometheus.targets("coordinators", [{"targets": [self.http]}])
        self.end(process)

    def test_a_night_that_fails_and_nights_that_do_not_come(self):
        create = ("schedule", "create", "nightly", "--cron", "0 2 1 1 *", "--model", self.model, "--data", self.root / "tokens.bin", "--ctx", 256)
        self.llctl(*create, "--steps", 10, "--labels", "fake.fault=exit:20")
        self.llctl("schedule", "run", "nightly")
        self.fires("LlScheduleRegressed", schedule="nightly")
        self.llctl(*create, "--steps", 10, "--replace")
        self.llctl("schedule", "run", "nightly")
        self.ends("LlScheduleRegressed")
        self.fires("LlNightlyTooOld", schedule="nightly")
        self.llctl("schedule", "run", "nightly")
        self.ends("LlNightlyTooOld")
        self.llctl("schedule", "delete", "nightly")

    def test_a_full_disk(self):
        (job,) = self.submit(labels="fake.until_stopped=1,fake.step_ms=200")
        self.prometheus.wait(lambda: self.prometheus.value(f'll_train_step{{job_id="{job}"}}'), f"{job} trains", PATIENCE_S)
        filler = self.disk / "filler"
        try:
            self.fill(filler)
            wanted = ("LlDiskNearlyFull", "LlRpcErrors")
            deadline = time.monotonic() + PATIENCE_S
            while missing := [name for name in wanted if not self.prometheus.firing(name)]:
                self.assertLess(time.monotonic(), deadline, missing)
                # Many jobs at once: the store's log has some room of its own.
                subprocess.run([BIN / "llctl", "--timeout", "2", "submit", "--model", self.model, "--data", self.root / "tokens.bin", "--ctx", "256", "--steps",
                                "3", "--sweep", "seed=" + ",".join(map(str, range(200)))], capture_output=True, timeout=DEADLINE_S, env=self.environment)
                self.fill(filler)
        finally:
            filler.unlink()
        self.ends("LlDiskNearlyFull", "LlRpcErrors")
        self.llctl("cancel", job)

    @staticmethod
    def fill(file):
        """To the last page."""
        with open(file, "ab", buffering=0) as out:
            for piece in (1 << 16, 1 << 12):
                try:
                    while out.write(bytes(piece)) == piece:
                        pass
                except OSError:
                    pass

    @contextlib.contextmanager
    def injected(self, process, calls, what):
        """The kernel answers the process's system calls so meanwhile."""
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(process.pid), "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            tracer.terminate()
            tracer.wait(timeout=DEADLINE_S)

    def test_a_slow_disk(self):
        names = ("LlStoreSlow", "LlRpcSlow", "LlReportsNotAcknowledged")
        (job,) = self.submit("--set", "save_steps=1", labels="fake.until_stopped=1,fake.step_ms=100")  # a report for each step
        self.prometheus.wait(lambda: self.prometheus.value(f'll_train_step{{job_id="{job}"}}'), f"{job} trains", PATIENCE_S)
        with self.injected(self.processes[0], "fsync,fdatasync", "delay_enter=1500000"):
            deadline = time.monotonic() + PATIENCE_S
            while missing := [name for name in names if not self.prometheus.firing(name)]:
                self.assertLess(time.monotonic(), deadline, missing)
                self.llctl("queues", "set", "slow", "--weight", 1 + time.monotonic() % 7)
        self.llctl("cancel", job)
        self.ends(*names)

    def test_a_disk_that_fails_and_stays_so(self):
        (job,) = self.submit("--steps", 40)  # it ends meanwhile, which nobody can make durable
        self.prometheus.wait(lambda: self.prometheus.value(f'll_train_step{{job_id="{job}"}}'), f"{job} trains", PATIENCE_S)
        with self.injected(self.processes[0], "fsync,fdatasync,pwrite64", "error=EIO"):
            self.fires("LlStoreFailing")
        self.ends("LlStoreFailing")
        self.await_result(job)

    def test_a_page_that_is_slow(self):
        # It looks at two disks.
        with self.injected(self.agents["w2"], "statfs", "delay_enter=350000"):
            self.fires("LlScrapeSlow")
        self.ends("LlScrapeSlow")

    def test_events_that_are_none(self):
        (job,) = self.submit("--steps", 40, labels="fake.fault=garbage,fake.step_ms=100")
        self.fires("LlEventLinesDropped")
        self.ends("LlEventLinesDropped")
        self.await_result(job)

    def test_an_agent_of_another_release(self):
        other = self.root / "other-worker"
        other.write_bytes((BIN / "ll-worker").read_bytes().replace(b"0.1.0\0", b"0.1.9\0"))
        other.chmod(0o755)
        agent = self.start_agent("w3", 1, other)
        try:
            self.fires("LlWorkerVersionsDiffer")
        finally:
            self.end(agent)
        self.ends("LlWorkerVersionsDiffer")

    def end(self, process):
        process.terminate()
        process.wait(timeout=DEADLINE_S)
        process.stdout.close()
        self.processes.remove(process)

    def test_a_certificate_that_ends_soon(self):
        pki = self.root / "pki"
        command = lambda *words: subprocess.run([BIN / "ll-coordinator", "pki", *map(str, words)], check=True, capture_output=True, timeout=DEADLINE_S)
        command("init", "--dir", pki)
        command("issue", "--dir", pki, "--server", "localhost", "--days", 1)
        data = self.root / "secure"
        process = self.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data, "--tls-cert", pki / "server.crt",
                             "--tls-key", pki / "server.key")
        self.assertIn("serving", process.stdout.readline())
        self.scrape_beside(json.loads((data / "endpoints.json").read_text())["http"])
        self.fires("LlCertificateExpiring")
        for file in ("server.crt", "server.key"):
            (pki / file).unlink()
        command("issue", "--dir", pki, "--server", "localhost", "--days", 300)
        self.ends("LlCertificateExpiring")
        self.prometheus.targets("coordinators", [{"targets": [self.http]}])
        self.end(process)

    def test_an_endpoint_that_takes_nothing(self):
        secret, data = self.root / "secret", self.root / "hooked"
        secret.write_text("a key of thirty-two bytes or more\n")
        secret.chmod(0o600)
        keys = f"url: http://127.0.0.1:9/x, secret-file: {secret}, all-jobs: true, allow-loopback: true"
        (self.root / "webhooks.yaml").write_text(f"endpoints:\n  patient: {{{keys}}}\n  short: {{{keys}, give-up-after: 5}}\n")
        process = self.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data, "--webhooks",
                             self.root / "webhooks.yaml")
        address = dict(part.split("=", 1) for part in process.stdout.readline().split() if "=" in part)
        self.scrape_beside(address["http"])
        self.prometheus.wait(lambda: self.prometheus.query('up{job="other"} == 1'), "a scrape", PATIENCE_S)
        hooked = dict(self.environment, LL_DATA_DIR=str(data), LLCTL_COORDINATOR=address["grpc"])
        call = lambda *words: subprocess.run([BIN / "llctl", *map(str, words)], capture_output=True, text=True, timeout=DEADLINE_S, env=hooked, check=True).stdout
        job = call("-o", "name", "submit", "--model", self.model, "--data", self.root / "tokens.bin", "--ctx", 256).strip()
        call("cancel", job)
        self.fires("LlWebhookWaiting", endpoint="patient")
        self.fires("LlWebhookGivenUp", endpoint="short")
        self.ends("LlWebhookGivenUp")
        self.prometheus.targets("coordinators", [{"targets": [self.http]}])
        self.end(process)
        self.ends("LlWebhookWaiting")

    def test_a_scaler_that_is_refused_and_one_that_hangs(self):
        """Its pods are none: what counts is whether it gets through."""
        folder = self.root / "scaler"
        folder.mkdir()
        pod = lambda ordinal: subprocess.Popen(["sleep", "infinity"])
        with FakeKubernetes(folder, 1, pod) as kubernetes:
            (folder / "namespace").write_text("ll\n")
            (folder / "token").write_text("first\n")
            token = folder / "coordinator-token"
            token.touch(mode=0o600)
            token.write_text("revoked\n")
            scaler = self.start("ll-scaler", "--coordinator", self.environment["LLCTL_COORDINATOR"], "--token-file", token, "--api-server", kubernetes.url,
                                "--service-account", folder, "--least", 1, "--most", 3, "--poll-seconds", 0.5, "--http", "127.0.0.1:0")
            said = dict(part.split("=", 1) for part in scaler.stdout.readline().split() if "=" in part)
            self.scrape_beside(said["http"], "ll-scaler")
            self.fires("LlScalerStuck", job="ll-scaler")
            token.write_text((self.disk / "token").read_text())
            self.ends("LlScalerStuck")
            scaler.send_signal(signal.SIGSTOP)
            try:
                self.fires("LlScalerStuck", job="ll-scaler")
            finally:
                scaler.send_signal(signal.SIGCONT)
            self.ends("LlScalerStuck")
            self.prometheus.targets("coordinators", [{"targets": [self.http]}])
            self.end(scaler)

    def scrape_beside(self, address, job="other"):
        self.prometheus.targets("coordinators", [{"targets": [self.http]}, {"targets": [address], "labels": {"job": job}}])

    def test_nobody_leads(self):
        data = self.root / "standby"
        process = self.start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data, "--store",
                             "postgresql://ll@127.0.0.1:9/ll")
        self.assertIn("serving", process.stdout.readline())
        self.scrape_beside(json.loads((data / "endpoints.json").read_text())["http"])
        self.fires("LlNoLeader", job="other")
        self.prometheus.targets("coordinators", [{"targets": [self.http]}])
        self.end(process)
        self.ends("LlNoLeader")


if __name__ == "__main__":
    unittest.main(verbosity=2)
