#!/usr/bin/env python3
"""What keeps a daemon from starting, or from working once it has: each said in one line with its name and what to do.

  startup_test.py BIN_DIR

Wrong keys, stores out of reach, certificates past their end, GPUs that are not there, programs of other releases; docs/troubleshooting.md has them all.
"""
import os
import pathlib
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
DEADLINE_S = 60
LOG = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?:info|warning|error) \[ll-\w+\] ")
RELEASE = re.compile(rb"ll-trainer release (\d+\.\d+\.\d+)\0")


def unused_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class StartupTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="ll-startup-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        (cls.root / "file").touch()
        cls.environment = {"PATH": os.environ["PATH"], "HOME": str(cls.root), "LL_DATA_DIR": str(cls.root / "coordinator")}
        cls.make_certificates()

    @classmethod
    def make_certificates(cls):
        """An authority, a certificate of it that has ended by the time of the tests, and one that has not."""
        cls.pki = cls.root / "pki"
        run = lambda *words: subprocess.run([BIN / "ll-coordinator", "pki", *map(str, words)], check=True, capture_output=True, timeout=DEADLINE_S)
        run("init", "--dir", cls.pki)
        run("issue", "--dir", cls.pki, "--server", "localhost,127.0.0.1")
        for name in ("server.crt", "server.key"):
            (cls.root / name).write_bytes((cls.pki / name).read_bytes())
            (cls.root / name).chmod(0o600)
        key, request = cls.root / "old.key", cls.root / "old.csr"
        openssl = lambda *words: subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=DEADLINE_S, cwd=cls.root)
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=old", "-keyout", key, "-out", request)
        key.chmod(0o600)
        (cls.root / "ca.conf").write_text(f"[ca]\ndefault_ca = one\n[one]\ndatabase = {cls.root}/index\nserial = {cls.root}/serial\nnew_certs_dir = {cls.root}\n"
                                          "default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n")
        (cls.root / "index").touch()
        (cls.root / "serial").write_text("01\n")
        openssl("ca", "-batch", "-config", cls.root / "ca.conf", "-cert", cls.pki / "ca.crt", "-keyfile", cls.pki / "ca.key", "-in", request, "-out",
                cls.root / "old.crt", "-notext", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z")

    def ends(self, *command, code):
        """The one line with which it ends. What the log said before at level info is not counted."""
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL, env=self.environment)
        lines = [line for line in run.stderr.splitlines() if not re.match(r"\S+ info ", line)]
        self.assertEqual((run.returncode, len(lines), run.stdout), (code, 1, ""), run.stdout + run.stderr)
        return lines[0]

    def says(self, pattern, *command):
        """The line, of one that goes on trying, that matches."""
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=self.environment)
        try:
            text, deadline = "", time.monotonic() + DEADLINE_S
            with selectors.DefaultSelector() as selector:
                selector.register(process.stderr, selectors.EVENT_READ)
                while not (found := [line for line in text.split("\n")[:-1] if re.search(pattern, line)]):
                    self.assertLess(time.monotonic(), deadline, text)
                    if selector.select(1):
                        piece = os.read(process.stderr.fileno(), 65536).decode()
                        self.assertTrue(piece, f"it ended: {text}")
                        text += piece
            return found[0]
        finally:
            process.terminate()
            process.wait(timeout=DEADLINE_S)
            process.stderr.close()

    def coordinator(self, *arguments):
        return (BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *arguments)

    def worker(self, *arguments):
        return (BIN / "ll-worker", "--http", "127.0.0.1:0", "--work-dir", self.root / "work", "--coordinator", f"127.0.0.1:{unused_port()}", *arguments)

    def test_wrong_keys(self):
        config = self.root / "wrong.yaml"
        for daemon, start, text, key, nearest in (
                ("ll-coordinator", self.coordinator(), "lisen: 127.0.0.1:1\n", "lisen", "listen"),
                ("ll-worker", self.worker(), "cpu_slot: 1\n", "cpu_slot", "cpu-slots")):
            config.write_text(text)
            line = self.ends(*start, "--config", config, code=2)
            for piece in (f"{daemon}: ", str(config), f"unknown key {key}", f"did you mean {nearest}?", f"{daemon} --help"):
                self.assertIn(piece, line)
        config.write_text("lease-seconds: soon\n")
        line = self.ends(*self.coordinator("--config", config), code=2)
        self.assertIn("lease-seconds", line)
        self.assertIn("soon", line)

    def test_stores_out_of_reach(self):
        line = self.ends(*self.coordinator("--data-dir", self.root / "file/x"), code=1)
        self.assertRegex(line, r"^ll-coordinator: data-dir: \S+/file/x: cannot create folder: Not a directory; .*--data-dir")
        line = self.ends(*self.worker("--cpu-slots", 1, "--job-store", self.root / "file/x"), code=1)
        self.assertRegex(line, r"^ll-worker: job-store: \S+/file/x: cannot create folder: Not a directory; .*mount")
        line = self.says("error.*PostgreSQL", *self.coordinator("--data-dir", self.root / "pg", "--store", f"postgresql://ll@127.0.0.1:{unused_port()}/ll"))
        self.assertIn("cannot connect", line)
        self.assertIn("--store", line)
        line = self.says("no session", *self.worker("--cpu-slots", 1))
        self.assertRegex(line, r"no session with the coordinator at 127\.0\.0\.1:\d+: .*; .*--coordinator")

    def test_certificates_past_their_end(self):
        line = self.ends(*self.coordinator("--data-dir", self.root / "tls", "--tls-cert", self.root / "old.crt", "--tls-key", self.root / "old.key"), code=1)
        self.assertRegex(line, r"^ll-coordinator: tls-cert: expected a certificate that is good now, found \S+old\.crt, which ended 2020-02-01T00:00:00Z; "
                               r".*ll-coordinator pki issue --server")
        line = self.ends(*self.worker("--cpu-slots", 1, "--tls-ca", self.pki / "ca.crt", "--tls-cert", self.root / "old.crt", "--tls-key",
                                      self.root / "old.key"), code=1)
        self.assertRegex(line, r"^ll-worker: tls-cert: .*old\.crt, which ended 2020-02-01T00:00:00Z; .*ll-worker join")
        line = self.ends(*self.worker("--cpu-slots", 1, "--tls-ca", self.root / "old.crt"), code=1)
        self.assertRegex(line, r"^ll-worker: tls-ca: .*old\.crt, which ended")
        # One that has not ended serves.
        self.says("serving|store", *self.coordinator("--data-dir", self.root / "tls2", "--log-level", "debug", "--tls-cert", self.root / "server.crt",
                                                     "--tls-key", self.root / "server.key", "--store", f"postgresql://ll@127.0.0.1:{unused_port()}/ll"))

    def test_gpus_that_are_not_there(self):
        for gpus in ("all", "0,1"):
            line = self.ends(*self.worker("--gpus", gpus), code=2)
            self.assertRegex(line, r"^ll-worker: gpus: expected .*; .*--cpu-slots N")

    @unittest.skipIf(pathlib.Path("/dev/nvidiactl").exists(), "a host with GPUs")
    def test_a_gpu_for_a_trainer_without_one(self):
        """Of the CUDA variant it is the driver that is missing, of the other the variant."""
        run = subprocess.run([BIN / "ll-trainer", "probe", "--small", "--device", "cuda"], capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertRegex(run.stderr, r"^ll-trainer: --device: a GPU cannot be used: (NVIDIA's driver is missing \(libcuda\.so\.1\); install|"
                                     r"this release is not the CUDA variant).*--device cpu\n$")
        self.assertNotEqual(run.returncode, 0)

    def test_the_scaler(self):
        account = self.root / "account"
        account.mkdir(exist_ok=True)
        for name, text in (("namespace", "ll\n"), ("token", "x\n")):
            (account / name).write_text(text)
        (account / "ca.crt").write_bytes((self.pki / "ca.crt").read_bytes())
        start = (BIN / "ll-scaler", "--http", "127.0.0.1:0", "--service-account", account, "--least", 1, "--most", 3, "--poll-seconds", 0.2, "--coordinator",
                 f"127.0.0.1:{unused_port()}", "--api-server")
        good = (*start, f"https://127.0.0.1:{unused_port()}")
        config = self.root / "scaler.yaml"
        config.write_text("leest: 1\n")
        line = self.ends(*good, "--config", config, code=2)
        for piece in ("ll-scaler: ", str(config), "unknown key leest", "did you mean least?", "ll-scaler --help"):
            self.assertIn(piece, line)
        line = self.ends(*start, "http://10.0.0.1:1", code=2)
        self.assertRegex(line, r"^ll-scaler: .*api-server: expected .*https")
        line = self.ends(*good, "--tls-ca", self.root / "old.crt", code=1)
        self.assertRegex(line, r"^ll-scaler: tls-ca: .*old\.crt, which ended 2020-02-01T00:00:00Z")
        line = self.says("warning", *good)
        self.assertRegex(line, r"warning \[ll-scaler\] .*127\.0\.0\.1:\d+.*; ")

    def test_a_trainer_of_another_release(self):
        trainer = self.root / "ll-trainer"
        data = (BIN / "ll-trainer").read_bytes()
        (release,) = set(RELEASE.findall(data))
        trainer.write_bytes(RELEASE.sub(b"ll-trainer release " + b"9" + release[1:] + b"\0", data))
        trainer.chmod(0o755)
        line = self.says("trainer: expected", *self.worker("--cpu-slots", 1, "--trainer", trainer))
        other = "9" + release.decode()[1:]
        self.assertRegex(line, rf"trainer: expected release {release.decode()}, which is this agent's, found {other}, which is {re.escape(str(trainer))}'s; install")


if __name__ == "__main__":
    unittest.main(verbosity=2)
