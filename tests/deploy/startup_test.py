#!/usr/bin/env python3
"""What keeps a daemon from starting, or from working once it has: each said in one line with its name and what to do.

  startup_test.py BIN_DIR

Wrong keys, stores out of reach, certificates past their end, GPUs that are not there, programs of other releases, files that are not what a
flag takes them for. Each line must be found on docs/troubleshooting.md, as a reader would look for it: by a heading whose words stand in it.
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
PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs/troubleshooting.md").read_text()
HEADINGS = [[piece.strip() for piece in heading.split("…")] for heading in re.findall(r"^### `(.*)`$", PAGE, flags=re.M)]
RELEASE = re.compile(rb"ll-trainer release (\d+\.\d+\.\d+)\0")


def unused_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_on_the_page(line):
    """Whether a heading of the troubleshooting page has its words, in their order, in the line."""
    return any(re.search(".*".join(map(re.escape, pieces)), line) for pieces in HEADINGS)


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
        self.assertTrue(is_on_the_page(lines[0]), f"docs/troubleshooting.md has no heading for: {lines[0]}")
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
            if not re.search(" info ", found[0]):
                self.assertTrue(is_on_the_page(found[0]), f"docs/troubleshooting.md has no heading for: {found[0]}")
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
        line = self.ends(*self.coordinator("--data-dir", self.root / "file/x"), code=2)
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

    def test_the_page_can_lack_a_message(self):
        self.assertFalse(is_on_the_page("ll-worker: the moon is not in its quarter"))

    def wrong(self):
        """(what is wrong with a start, its exit status, words of its line)."""
        root, pki, port = self.root, self.pki, unused_port()
        (root / "junk").write_text("junk\n")
        (root / "junk").chmod(0o600)
        (root / "open.key").write_bytes((root / "server.key").read_bytes())
        (root / "open.key").chmod(0o644)
        (root / "hooks.yaml").write_text(f"endpoints: {{ops: {{url: 'https://x/', secret-file: {pki / 'ca.crt'}}}}}\n")
        for name, text in (("list.yaml", "- a\n"), ("map.yaml", "listen: {a: 1}\n"), ("torn.yaml", "a: [1\n"), ("word.yaml", "lease-seconds: soon\n")):
            (root / name).write_text(text)
        (root / "damaged").mkdir(exist_ok=True)
        (root / "damaged/ll.db").write_text("no database, but a text of some length\n" * 9)
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        taken = "127.0.0.1:%d" % taken.getsockname()[1]
        nowhere, junk, server = root / "nowhere", root / "junk", ("--tls-cert", root / "server.crt", "--tls-key", root / "server.key")
        start = (BIN / "ll-coordinator", "--data-dir", root / "never")
        coordinator = self.coordinator("--data-dir", root / "never")
        for flag in ("--tokens", "--tenants", "--webhooks", "--prices"):
            yield (*coordinator, flag, nowhere), 1, [flag[2:], str(nowhere), "; "]
        yield (*coordinator, "--tokens", junk), 2, ["tokens", "line 1", str(junk)]
        yield (*coordinator, "--tenants", junk), 2, ["tenants"]
        yield (*coordinator, "--webhooks", root / "hooks.yaml"), 2, ["secret-file", "others may read it", "chmod 600"]
        yield (*coordinator, "--pki-dir", nowhere), 1, ["pki-dir", "ll-coordinator pki init"]
        yield (*coordinator, "--calibrations", nowhere), 1, ["calibrations", str(nowhere)]
        yield (*coordinator, "--mlflow", "http://127.0.0.1:9", "--mlflow-headers", nowhere), 1, ["mlflow-headers"]
        yield (*coordinator, "--mlflow", "nonsense"), 2, ["mlflow", "http://HOST"]
        yield (*coordinator, "--oidc-keys", nowhere, "--oidc-issuer", "x", "--oidc-audience", "y"), 1, ["oidc-keys"]
        yield (*coordinator, "--oidc-issuer", "x"), 2, ["oidc-keys"]
        yield (*coordinator, "--telemetry-dir", root / "file/x"), 2, ["telemetry-dir", "--telemetry-dir"]
        yield (*coordinator, "--tensorboard-dir", root / "file/x"), 2, ["tensorboard-dir", "--tensorboard-dir"]
        yield (*coordinator, "--store", "mysql://x"), 2, ["store", "postgresql://"]
        yield (*coordinator, "--store", "postgresql://a:b@h/ll"), 2, ["passfile"]
        yield (*coordinator, "--tls-cert", root / "server.crt"), 2, ["tls-cert", "--tls-key"]
        yield (*coordinator, "--tls-cert", nowhere, "--tls-key", root / "server.key"), 1, ["tls-cert", str(nowhere)]
        yield (*coordinator, "--tls-cert", junk, "--tls-key", root / "server.key"), 2, ["tls-cert", "PEM"]
        yield (*coordinator, "--tls-cert", root / "server.crt", "--tls-key", root / "open.key"), 2, ["tls-key", "chmod o-rwx"]
        yield (*coordinator, "--tls-cert", root / "server.crt", "--tls-key", pki / "ca.key"), 2, ["tls-key", "ca.key"]
        yield (*coordinator, *server, "--tls-client-ca", junk), 2, ["tls-client-ca", "PEM"]
        yield (*start, "--http", "127.0.0.1:0", "--listen", "0.0.0.0:0"), 2, ["listen", "--tls-cert"]
        yield (*start, "--http", "127.0.0.1:0", "--listen", "0.0.0.0:0", *server), 2, ["listen", "--tokens"]
        yield (*start, "--http", "0.0.0.0:0", "--listen", "127.0.0.1:0"), 2, ["http", "proxy"]
        yield (*start, "--http", taken, "--listen", "127.0.0.1:0"), 1, ["http", taken, "--http"]
        yield (*start, "--http", "127.0.0.1:0", "--listen", taken), 1, ["listen", taken, "--listen"]
        yield self.coordinator("--data-dir", root / "damaged"), 1, [str(root / "damaged/ll.db"), "ll-coordinator restore"]
        yield self.coordinator("--lissen", "x"), 2, ["--lissen", "did you mean --listen?", "ll-coordinator --help"]
        for name in ("list", "map", "torn", "word", "no"):
            yield self.coordinator("--config", root / f"{name}.yaml"), 2, ["ll-coordinator: "]
        yield (BIN / "ll-coordinator", "backup", "--data-dir", nowhere, "--to", root / "b"), 1, [str(nowhere / "ll.db")]
        yield (BIN / "ll-coordinator", "restore", "--data-dir", root / "r", "--from", junk), 1, [str(junk), "not a whole backup"]
        yield (BIN / "ll-coordinator", "pki", "init", "--dir", pki), 1, ["there is an authority in"]
        worker = self.worker("--cpu-slots", 1)
        agent = (BIN / "ll-worker", "--work-dir", root / "work", "--cpu-slots", 1)
        yield (*worker, "--token-file", nowhere), 2, ["token-file", str(nowhere), "; "]
        yield (*worker, "--root", "x"), 2, ["root", "NAME=DIR"]
        yield (*worker, "--root", f"a={nowhere}"), 2, ["root", str(nowhere)]
        yield (*worker, "--tls-ca", junk), 2, ["tls-ca", "PEM"]
        yield (*worker, "--trainer", nowhere), 2, ["trainer", str(nowhere), "--trainer"]
        yield (*worker, "--trainer-user", "nobody-there"), 2, ["trainer-user", "nobody-there"]
        yield (*worker, "--trainer-read", nowhere), 2, ["trainer-read", str(nowhere)]
        yield (*worker, "--name", "a b"), 2, ["name", "a b", "--name"]
        yield (*worker, "--cpu-slotz", "1"), 2, ["--cpu-slotz", "did you mean --cpu-slots?"]
        yield (*agent, "--coordinator", "there"), 2, ["coordinator", "HOST:PORT"]
        yield (*agent, "--coordinator", "10.255.255.1:7070"), 2, ["root", "NAME=DIR"]
        yield (*agent, "--http", "0.0.0.0:0"), 2, ["http", "--http-public"]
        yield (*agent, "--http", taken), 1, ["http", taken, "--http"]
        yield (BIN / "ll-worker", "join", "--coordinator", f"127.0.0.1:{port}"), 2, ["--out", "ll-worker join --help"]
        yield (BIN / "ll-worker", "reexec", "--work-dir", nowhere), 1, ["no agent runs in"]
        trainer = BIN / "ll-trainer"
        yield (trainer,), 20, ["ll-trainer --help"]
        yield (trainer, "train", "--speck", "x"), 20, ["did you mean --spec?", "ll-trainer train --help"]
        yield (trainer, "train", "--spec", nowhere, "--out", root / "out"), 20, [str(nowhere)]

    def test_whatever_is_wrong_is_one_line_that_the_page_has(self):
        for command, code, words in self.wrong():
            with self.subTest(" ".join(map(str, command[1:]))):
                line = self.ends(*command, code=code)
                for word in words:
                    self.assertIn(word, line)

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
        for words, code in (("--token-file nowhere", 1), ("--service-account nowhere --namespace ll", 1), ("--tls-ca junk", 2), ("--least 5", 2), ("--leest 1", 2)):
            flag, found = words.split()[0], str(self.root / "nowhere")
            (self.root / "junk").write_text("junk\n")
            given = [str(self.root / word) if word in ("nowhere", "junk") else word for word in words.split()]
            start_ = [word for i, word in enumerate(good) if flag not in (word, good[i - 1])]
            line = self.ends(*start_, *given, code=code)
            self.assertIn(flag.lstrip("-"), line)
            self.assertIn(found if "nowhere" in words else "; " if flag == "--leest" else "expected", line)
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
