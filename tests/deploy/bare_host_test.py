"""The release as a new operator meets it: from the tarball to a trained job on a machine that has nothing, and back; and
docs/upgrade.md on such a machine, there and back.

bare_host_test.py BIN_DIR [--cuda], with the tarball that package_test.py made. Needs root. The CUDA variant meets a machine
without a GPU here: its libraries, its training on the CPU, and what it says when it is asked for a GPU.
LL_OLD_RELEASE=TARBALL is what is upgraded from; without it this release takes its own place.
"""
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "cli"))
import service  # noqa: E402  takes BIN_DIR
from machine import Machine  # noqa: E402
from packages import CUDA, release_folder  # noqa: E402
from status import record  # noqa: E402

TARBALL = next(release_folder(service.BIN).glob("ll-*.tar.gz"))
OLD_TARBALL = pathlib.Path(os.environ.get("LL_OLD_RELEASE") or TARBALL)
PROMETHEUS = pathlib.Path(__file__).resolve().parents[2] / "deploy/prometheus"
LLCTL = ("env", "LL_DATA_DIR=/var/lib/ll/coordinator", "/opt/ll/bin/llctl")
DROP_IN = "[Service]\nWatchdogSec=4\n"
DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}  # NVIDIA's driver brings them
MOST_S = 600  # from the tarball to a live job on the web page and in Prometheus


class BareHost(unittest.TestCase):
    def setUp(self):
        self.machine = self.enterContext(Machine("prometheus"))
        self.began = time.monotonic()

    @property
    def root(self):
        return self.machine.root

    def seconds(self):
        return time.monotonic() - self.began

    def llctl(self, *arguments, timeout=90):
        return self.machine.run(*LLCTL, *map(str, arguments), timeout=timeout).stdout

    def make_model(self):
        """A tiny model with random weights and words to train on, as an operator's own files."""
        models, data = self.root / "srv/ll/models", self.root / "srv/ll/data"
        models.mkdir(parents=True)
        data.mkdir()
        config = self.machine.folder / "config.json"
        config.write_text(json.dumps(service.CONFIG))
        subprocess.run([service.BIN / "ll-trainer", "init", "--config", config, "--out", models / "talker", "--seed", "3"], check=True,
                       capture_output=True)
        (models / "talker/tokenizer.json").write_text(json.dumps(service.tokenizer()))
        (data / "text.txt").write_text(" ".join(f"word{i * 7919 % 1000}" for i in range(20000)))

    def test_from_tarball_to_job_and_back(self):
        self.make_model()
        boot = self.machine.boot()
        before = self.machine.files()
        self.assertEqual(self.machine.run("sh", "-c", "command -v cc gcc python3 pip curl", check=False).stdout, "")
        self.began = time.monotonic()
        self.install()
        installed = self.seconds()
        if CUDA:
            self.gpu_that_is_not_there()
        self.serve()
        self.prometheus()
        running = self.train()
        seen = self.look()
        self.assertLess(seen, MOST_S)
        self.train_to_the_end()
        self.logs()
        self.reload()
        self.restarts()
        self.uninstall(before)
        size_mb = round(sum(status.st_size for status in self.unpacked.values()) / 1e6)
        if CUDA:
            record("bare host: tarball, CUDA variant", "run for real",
                   f"as the CPU variant's, on the same machine without a GPU or its driver: all {self.libraries} libraries resolve but the driver's own; job on "
                   f"the CPU; a GPU asked for is refused in one line that names the driver; installed after {installed:.0f} s; installed size {size_mb} MB, "
                   f"tarball {TARBALL.stat().st_size / 1e6:.0f} MB; never started on a GPU")
            return
        record("bare host: tarball, systemd units", "run for real",
               f"systemd 252 as process 1 in namespaces over a minimal Debian 12 without compiler, Python or network; boot {boot:.1f} s; "
               f"by docs/install.md, with nothing else (Debian's prometheus was there, for want of a network): "
               f"installed after {installed:.0f} s, first job running after {running:.0f} s, on the web page and scraped "
               f"by Prometheus after {seen:.0f} s; installed size {size_mb} MB, tarball {TARBALL.stat().st_size / 1e6:.0f} MB; systemctl reload under a running job, kill -9, a hung daemon and "
               "uninstall checked")
        record("Prometheus: deploy/prometheus (configuration, service discovery, rules)", "run for real",
               "Debian's prometheus.service with the files of the release, as docs/install.md copies them: coordinator, agent and job scraped, rules loaded "
               "without error")
        record("bare host: logs and their rotation", "run for real",
               "the daemons write to systemd's journal; after journalctl --rotate they go on in the new one; its limits are journald.conf's")

    def unpack(self, tarball):
        """Its folder on the machine."""
        with open(tarball, "rb") as file:
            self.machine.run("tar", "-C", "/root", "-xz", stdin=file, timeout=500)
        return "/root/" + tarball.name.removesuffix(".tar.gz")

    def install(self):
        folder = self.unpack(TARBALL)
        self.machine.run(folder + "/install.sh", timeout=500)
        again = self.machine.run(folder + "/install.sh", check=False)
        self.assertIn("/opt/ll holds a release; give --replace", again.stderr)
        self.machine.run("rm", "-rf", folder)
        tree = self.root / "opt/ll"
        self.unpacked = {path: path.lstat() for path in tree.rglob("*") if path.is_file()}
        again = self.machine.run("sh", "-c", "cd /opt/ll && ./install.sh", check=False)
        self.assertIn("not that of /opt/ll", again.stderr)
        for daemon in ("coordinator", "worker"):
            loaded = self.machine.run("systemd-analyze", "verify", f"/etc/systemd/system/ll-{daemon}.service", check=False)
            self.assertEqual((loaded.returncode, loaded.stderr), (0, ""))
            drop_in = self.root / f"etc/systemd/system/ll-{daemon}.service.d"
            drop_in.mkdir()
            (drop_in / "test.conf").write_text(DROP_IN)
        self.one_slot()
        self.machine.run("systemctl", "daemon-reload")

    def one_slot(self):
        worker = self.root / "etc/ll/worker.yaml"
        worker.write_text(worker.read_text() + "cpu-slots: 1\ntrainer-threads: 1\n")

    def gpu_that_is_not_there(self):
        libraries = sorted(path.name for path in (self.root / "opt/ll/lib/ll").iterdir())
        # Each is looked for, with what it needs, as the trainer looks for what it opens by name.
        found = self.machine.run("env", "LD_TRACE_LOADED_OBJECTS=1", "LD_PRELOAD=" + " ".join(libraries), "/opt/ll/bin/ll-trainer").stdout
        self.assertLessEqual({line.split()[0] for line in found.splitlines() if "not found" in line}, DRIVER)
        self.assertEqual([name for name in libraries if name not in found], [])
        self.libraries = len(libraries)
        config = "/srv/ll/models/talker/config.json"
        run = self.machine.run("/opt/ll/bin/ll-trainer", "probe", "--device", "cuda", check=False)
        self.assertRegex(run.stderr, r"^ll-trainer: --device: a GPU cannot be used: NVIDIA's driver is missing \(libcuda\.so\.1\); install release 580 or later.*"
                                     r"--device cpu\n$", config)
        self.assertNotEqual(run.returncode, 0)
        run = self.machine.run("/opt/ll/bin/ll-worker", "--work-dir", "/tmp/w", "--gpus", "all", check=False)
        self.assertRegex(run.stderr, r"^ll-worker: gpus: expected a GPU on this host, found no NVIDIA driver; install it, release 580 or later.*\n$")
        self.assertEqual(run.returncode, 2)

    def serve(self):
        self.machine.run("systemctl", "enable", "--now", "ll-coordinator", "ll-worker")
        self.wait_in_contact()
        self.machine.wait_for(lambda: "ll_worker_up" in self.machine.run_host_in_network("curl", "-fsS", "http://127.0.0.1:7071/metrics").stdout,
                              "worker in the metrics")
        self.assertEqual(self.machine.run_host_in_network("curl", "-fsS", "http://127.0.0.1:7071/healthz").stdout, "ok\n")

    def wait_in_contact(self):
        self.machine.wait_for(lambda: "in contact" in self.show("ll-worker", "StatusText"), "worker in contact with the coordinator")

    def show(self, unit, key):
        return self.machine.run("systemctl", "show", "-P", key, unit).stdout.strip()

    def get(self, url, *flags):
        """A page, as a program on the machine gets it."""
        return self.machine.run_host_in_network("curl", "-fsS", "--max-time", "20", *flags, url).stdout

    def prometheus(self):
        """Debian's package is in the machine, which has no network to get it from; the rest is as the page says."""
        self.machine.run("cp", "-r", "/opt/ll/share/ll/prometheus/.", "/etc/prometheus/")
        self.machine.run("systemctl", "restart", "prometheus")
        self.machine.wait_for(lambda: self.asked("min(up{job=~'ll-.*'})") and len(self.asked("up{job=~'ll-.*'}")) == 2, "both targets up", 90)
        self.machine.wait_for(lambda: self.rules_health() == {"ok"}, "every rule evaluated", 90)

    def rules_health(self):
        groups = json.loads(self.get("http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    def asked(self, query):
        """Rows of a query whose value is not 0; none while Prometheus does not answer."""
        try:
            found = self.get("http://127.0.0.1:9090/api/v1/query", "-G", "--data-urlencode", f"query={query}")
        except subprocess.CalledProcessError:
            return []
        return [row for row in json.loads(found)["data"]["result"] if float(row["value"][1]) != 0]

    def look(self):
        """The live job on the web page and in Prometheus; returns when both had been seen."""
        token = (self.root / "var/lib/ll/coordinator/token").read_text().strip()
        page = self.get("http://127.0.0.1:7071/", "-H", f"Authorization: Bearer {token}")
        self.assertIn(self.live, page)
        self.assertIn("RUNNING", page)
        self.machine.wait_for(lambda: self.asked(f"ll_train_step{{job_id='{self.live}'}}") and self.asked(f"ll_rank_step{{job_id='{self.live}'}}"),
                              "the job in Prometheus", 120)
        return self.seconds()

    def logs(self):
        def lines():
            return int(self.machine.run("sh", "-c", "journalctl -q -u ll-coordinator -o cat | wc -l").stdout)
        before = lines()
        self.assertGreater(before, 0)
        self.machine.run("journalctl", "--rotate")
        self.machine.run("systemctl", "restart", "ll-coordinator")
        self.machine.wait_for(lambda: lines() > before, "lines behind the rotation")
        self.wait_in_contact()

    def train(self):
        """Returns when the first step had been made."""
        self.llctl("models", "add", "talker", "/srv/ll/models/talker")
        self.machine.run("/opt/ll/bin/llctl", "data", "pack", "/srv/ll/data/text.txt", "--tokenizer", "/srv/ll/models/talker", "--out",
                         "/srv/ll/data/text.bin")
        self.llctl("data", "add", "words", "/srv/ll/data/text.bin", "--default")
        self.live = self.submit(1_000_000)
        self.wait_for_job(self.live, lambda found: found.get("progress", {}).get("step", 0) > 0)
        return self.seconds()

    def submit(self, steps):
        return self.llctl("-o", "name", "submit", "--model", "talker", "--ctx", "512", "--steps", steps, "--set", "save_steps=10").strip()

    def train_to_the_end(self):
        self.llctl("cancel", self.live)
        self.ended = self.submit(30)
        self.wait_for_job(self.ended, lambda found: found["state"] == "SUCCEEDED")

    def wait_for_job(self, job, condition, seconds=90):
        def holds():
            found = json.loads(self.llctl("-o", "json", "get", job))
            self.assertNotIn(found["state"], ("FAILED", "CANCELLED"), found["reason"])
            return condition(found)
        self.machine.wait_for(holds, f"job {job}", seconds)

    def reload(self):
        """systemctl reload goes on as the program that stands there now: same process, same ranks, same attempt."""
        job = self.llctl("-o", "name", "submit", "--model", "talker", "--ctx", "512", "--steps", "100000").strip()
        self.wait_for_job(job, lambda found: found.get("progress", {}).get("step", 0) > 0)
        main = self.show("ll-worker", "MainPID")
        children = lambda: self.children(main)  # noqa: E731
        ranks, installed = children(), self.root / "opt/ll/bin/ll-worker"
        self.assertNotEqual(ranks, [])
        # Exchanged as a package does it: another file of that name.
        fresh = installed.with_name("ll-worker.new")
        subprocess.run(["cp", "--preserve=all", installed, fresh], check=True)
        fresh.rename(installed)
        for time_ in ("the 1. time", "the 2. time"):
            self.machine.run("systemctl", "reload", "ll-worker")
            self.wait_in_contact()
            self.assertEqual((self.show("ll-worker", "MainPID"), children()), (main, ranks))
            self.assertIn(time_, self.machine.run("journalctl", "-u", "ll-worker", "-n", "50", "-o", "cat").stdout)
        step = json.loads(self.llctl("-o", "json", "get", job))["progress"]["step"]
        self.wait_for_job(job, lambda found: found.get("progress", {}).get("step", 0) > step + 1)
        found = json.loads(self.llctl("-o", "json", "get", job))
        self.assertEqual((found["epoch"], found.get("retries", 0)), (1, 0))
        # A program that cannot go on is refused, and the agent stays.
        kept = installed.with_name("ll-worker.kept")
        installed.rename(kept)
        installed.write_text("#!/bin/sh\nexit 1\n")
        installed.chmod(0o755)
        self.assertNotEqual(self.machine.run("systemctl", "reload", "ll-worker", check=False).returncode, 0)
        self.assertEqual((self.show("ll-worker", "MainPID"), children()), (main, ranks))
        kept.rename(installed)
        self.llctl("cancel", job)

    def children(self, main):
        return sorted(self.machine.run("sh", "-c", f"cat /proc/{main}/task/*/children").stdout.split())

    def job(self, job):
        return json.loads(self.llctl("-o", "json", "get", job))

    @unittest.skipIf(CUDA, "the same scripts")
    def test_upgrade_and_back(self):
        """docs/upgrade.md with tarballs: jobs train on through the upgrade, and go on after the way back."""
        self.make_model()
        self.machine.boot()
        before = self.machine.files()
        old, new = "/srv/old", "/srv/new"
        for tarball, folder in ((OLD_TARBALL, old), (TARBALL, new)):
            self.machine.run("mv", self.unpack(tarball), folder)
        self.machine.run(old + "/install.sh", timeout=500)
        self.one_slot()
        self.serve()
        self.train()
        self.machine.run("/opt/ll/bin/ll-coordinator", "backup", "--data-dir", "/var/lib/ll/coordinator", "--to", "/var/lib/ll/before.backup")

        mains = {unit: self.show(unit, "MainPID") for unit in ("ll-coordinator", "ll-worker")}
        ranks = self.children(mains["ll-worker"])
        self.assertNotEqual(ranks, [])
        self.machine.run(new + "/install.sh", "--replace", timeout=500)
        self.assertEqual({unit: self.show(unit, "MainPID") for unit in mains}, mains, "a daemon was touched")
        self.machine.run("sh", "-c", "cd /opt/ll && sha256sum --quiet -c SHA256SUMS", timeout=200)
        own = self.files_of(new)
        self.assertEqual(self.files_of("/opt/ll"), own, "what belongs to neither release, or to the old one alone")
        self.machine.run("systemctl", "restart", "ll-coordinator")
        kept = self.machine.run("systemctl", "reload", "ll-worker", check=OLD_TARBALL == TARBALL).returncode == 0
        if not kept:  # an agent that cannot do this yet is left as it is
            self.assertEqual(self.children(mains["ll-worker"]), ranks)
            self.machine.run("systemctl", "restart", "ll-worker")
        self.wait_in_contact()
        step = self.job(self.live)["progress"]["step"]
        self.wait_for_job(self.live, lambda found: found.get("progress", {}).get("step", 0) > step + 10)
        if kept:
            self.assertEqual((self.job(self.live)["epoch"], self.children(mains["ll-worker"])), (1, ranks))
        later = self.submit(10)

        self.machine.run("systemctl", "stop", "ll-coordinator")
        if "--replace" in self.machine.run(old + "/install.sh", "--help").stdout:
            self.machine.run(old + "/install.sh", "--replace", timeout=500)
        else:
            self.machine.run("/opt/ll/uninstall.sh")
            self.machine.run(old + "/install.sh", timeout=500)
        self.machine.run("sh", "-c", "mkdir /var/lib/ll/newer && mv /var/lib/ll/coordinator/ll.db* /var/lib/ll/newer/")
        self.machine.run("/opt/ll/bin/ll-coordinator", "restore", "--data-dir", "/var/lib/ll/coordinator", "--from", "/var/lib/ll/before.backup")
        if not kept:
            self.machine.run("sh", "-c", "chown ll: /var/lib/ll/coordinator/*")
        self.machine.run("systemctl", "enable", "--now", "ll-coordinator", "ll-worker")
        self.wait_in_contact()
        self.wait_for_job(self.live, lambda found: found.get("progress", {}).get("step", 0) > step)
        self.assertNotIn(later, self.llctl("list"))
        self.assertEqual(self.show("ll-coordinator", "UnitFileState"), "enabled")

        self.llctl("cancel", self.live)
        self.machine.run("/opt/ll/uninstall.sh", "--purge", timeout=200)
        self.machine.run("rm", "-r", old, new)
        self.assertEqual(self.machine.files() - before, {"f /srv/ll/data/text.bin", "f /srv/ll/data/text.bin.json"})
        earlier = OLD_TARBALL != TARBALL
        record("bare host: tarball, upgrade " + "from an earlier build " * earlier + "and back", "run for real",
               "by docs/upgrade.md under a running job" + ", the release in its own place" * (not earlier) +
               ": replaced by install.sh --replace, coordinator restarted, agent " +
               ("reloaded, its ranks the same processes throughout" if kept else "restarted, since that one knows no reload: its job resumed") +
               "; back with a backup restored: the job goes on from its newest checkpoint; then uninstalled without a trace")

    def files_of(self, folder):
        return set(self.machine.run("sh", "-c", f"cd {folder} && find . -printf '%y %p\\n'").stdout.split("\n"))

    def restarts(self):
        """A killed daemon, and one that hangs, come back by themselves; a stop is prompt and clean."""
        for unit, signal in (("ll-coordinator", "KILL"), ("ll-worker", "KILL"), ("ll-coordinator", "STOP"), ("ll-worker", "STOP")):
            old = self.show(unit, "MainPID")
            self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", unit)
            self.machine.wait_for(lambda: self.show(unit, "MainPID") not in ("0", old) and self.show(unit, "ActiveState") == "active",
                                  f"{unit} after SIG{signal}")
        self.wait_in_contact()
        self.assertEqual(json.loads(self.llctl("-o", "json", "get", self.ended))["state"], "SUCCEEDED")
        for unit in ("ll-worker", "ll-coordinator"):
            self.machine.run("systemctl", "stop", unit)
            self.assertEqual(self.show(unit, "Result"), "success")
        # A wrong key is one line in the journal and no row of restarts.
        config = self.root / "etc/ll/coordinator.yaml"
        config.write_text(config.read_text() + "lisen: 127.0.0.1:7070\n")
        self.machine.run("systemctl", "start", "ll-coordinator", check=False)
        self.machine.wait_for(lambda: self.show("ll-coordinator", "ActiveState") == "failed", "refusal of a wrong key")
        self.assertEqual(self.show("ll-coordinator", "ExecMainStatus"), "2")
        journal = self.machine.run("journalctl", "-u", "ll-coordinator", "-n", "20", "-o", "cat").stdout
        self.assertIn("lisen", journal)

    def uninstall(self, before):
        for daemon in ("coordinator", "worker"):
            self.machine.run("rm", "-r", f"/etc/systemd/system/ll-{daemon}.service.d")
        self.machine.run("/opt/ll/uninstall.sh", "--purge")
        self.assertEqual(self.machine.run("getent", "passwd", "ll", check=False).stdout, "")
        copied = {f"{'d' if path.is_dir() else 'f'} /etc/prometheus/{path.relative_to(PROMETHEUS)}" for path in PROMETHEUS.rglob("*")}
        self.assertEqual(self.machine.files() - before - copied, {"f /srv/ll/data/text.bin", "f /srv/ll/data/text.bin.json"},
                         "the operator's own files alone stay")
        self.assertEqual(before - self.machine.files(), set())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
