#!/usr/bin/env python3
"""`ll-worker preflight` on this host, beside a real coordinator: what is well, and each thing that can be wrong here.

  preflight_test.py BIN_DIR
"""
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
MOUNTED = "mount -t tmpfs -o size=16k none \"$0\" && exec \"$@\""


class PreflightTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="ll-preflight-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        cls.environment = {"PATH": os.environ["PATH"], "HOME": str(cls.root), "LL_DATA_DIR": str(cls.root / "coordinator")}
        cls.coordinator = subprocess.Popen(
            [BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", cls.root / "coordinator"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)
        cls.addClassCleanup(cls.stop)
        line = cls.coordinator.stdout.readline()
        cls.address = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]

    @classmethod
    def stop(cls):
        cls.coordinator.terminate()
        cls.coordinator.wait(timeout=30)
        cls.coordinator.stdout.close()

    def preflight(self, *arguments, before=(), environment=None):
        """(exit status, {check's name: check})."""
        usual = {"--work-dir": self.root / "work", "--cpu-slots": 1, "--http": "127.0.0.1:0", "--coordinator": self.address}
        given = [str(word) for flag, value in usual.items() if flag not in arguments for word in (flag, value)]
        run = subprocess.run([*before, BIN / "ll-worker", "preflight", "--json", *given, *map(str, arguments)], capture_output=True, text=True,
                             timeout=120, stdin=subprocess.DEVNULL, env=environment or self.environment)
        self.assertIn(run.returncode, (0, 1), run.stdout + run.stderr)
        report = json.loads(run.stdout)
        self.assertEqual(report["passed"], run.returncode == 0)
        return run.returncode, {check["name"]: check for check in report["checks"]}

    def failed(self, name, *arguments, **options):
        """The one check that fails, with its fix."""
        code, checks = self.preflight(*arguments, **options)
        self.assertEqual((code, [check for check in checks if checks[check]["result"] == "failed"]), (1, [name]), checks)
        self.assertTrue(checks[name]["fix"], checks[name])
        return checks[name]

    def test_a_good_host_passes(self):
        code, checks = self.preflight()
        self.assertEqual(code, 0, checks)
        self.assertIn("is 0.", checks["clock"]["found"])
        self.assertIn("LibTorch", checks["trainer"]["found"])
        self.assertEqual(checks["nccl bandwidth"]["result"], "not measured")
        self.assertEqual(list((self.root / "work").iterdir()), [])

    def test_a_table_for_people(self):
        run = subprocess.run([BIN / "ll-worker", "--work-dir", self.root / "work", "--cpu-slots", "1", "--http", "127.0.0.1:0",
                              "--coordinator", self.address, "preflight"], capture_output=True, text=True, timeout=120, env=self.environment)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertRegex(run.stdout, r"(?m)^trainer +ok +ll-trainer ")

    def test_a_missing_trainer(self):
        self.assertIn("nowhere", self.failed("trainer", "--trainer", self.root / "nowhere")["found"])

    def test_a_taken_port(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            self.failed("metrics port", "--http", "127.0.0.1:%d" % taken.getsockname()[1])

    def test_no_coordinator_and_no_clock(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % unused.getsockname()[1]
            self.failed("coordinator", "--coordinator", address)

    def test_an_unknown_token_still_tells_the_time(self):
        code, checks = self.preflight(environment=dict(self.environment, LLCTL_TOKEN="wrong"))
        self.assertEqual((code, checks["coordinator"]["result"], checks["clock"]["result"]), (1, "failed", "ok"), checks)
        self.assertIn("--token-file", checks["coordinator"]["fix"])

    def test_few_descriptors(self):
        self.failed("open files", before=("sh", "-c", "ulimit -n 512; exec \"$@\"", "sh"))

    def test_a_full_disk(self):
        """On a tmpfs of 16 KiB, in name spaces of its own."""
        probe = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True, check=False)
        if probe.returncode != 0:
            self.skipTest(f"no mount name spaces here: {probe.stderr}")
        full = self.root / "full"
        full.mkdir(exist_ok=True)
        check = self.failed("work dir", "--work-dir", full / "work",
                            before=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED, str(full)))
        self.assertIn("free", check["fix"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
