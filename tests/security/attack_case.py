"""A coordinator behind TLS for the attacks to go at."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import http2

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
DEADLINE_S = 30


class Coordinator:
    """ll-coordinator behind TLS, with an authority, certificates and tokens that its own commands made."""

    def __init__(self, root, *flags, server="localhost,127.0.0.1"):
        self.root = root
        self.pki = root / "pki"
        self.run("ll-coordinator", "pki", "init", "--dir", self.pki)
        self.run("ll-coordinator", "pki", "issue", "--dir", self.pki, "--server", server)
        self.tokens = root / "tokens"
        self.token = self.make_token("ann", "read,submit,cancel,admin")
        self.process = subprocess.Popen(
            [BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", root / "data", "--tls-cert",
             self.pki / "server.crt", "--tls-key", self.pki / "server.key", "--tls-client-ca", self.pki / "ca.crt", "--tokens",
             self.tokens, "--pki-dir", self.pki, *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.address = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]

    def run(self, program, *arguments, code=0, **more):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), **more.pop("env", {})}
        done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True, env=environment,
                              timeout=DEADLINE_S, **more)
        assert done.returncode == code, (program, arguments, done.returncode, done.stdout, done.stderr)
        return done

    def run_code(self, program, *arguments):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        return subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, env=environment, timeout=DEADLINE_S).returncode

    def make_token(self, user, scopes, *more):
        return self.run("llctl", "token", "create", "--tokens", self.tokens, "--user", user, "--scopes", scopes, *more).stdout.strip()

    def llctl(self, *arguments, token=None, code=0, ca=None, **more):
        env = {"LLCTL_TOKEN": token or self.token, "LLCTL_CA": str(ca or self.pki / "ca.crt"), "LLCTL_COORDINATOR": self.address}
        return self.run("llctl", *arguments, code=code, env=env, **more)

    def memory(self):
        """Bytes that the process has, and the most that it ever had."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        return int(values["VmRSS"].split()[0]) << 10, int(values["VmHWM"].split()[0]) << 10

    def connect(self, **more):
        return http2.Connection(self.address, self.pki / "ca.crt", **more)

    def stop(self):
        self.process.terminate()
        code = self.process.wait(DEADLINE_S)
        self.process.stdout.close()
        assert code == 0, code


class AttackCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ll-attacks-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = pathlib.Path(cls.folder.name)
        cls.service = Coordinator(cls.root)
        cls.addClassCleanup(lambda: cls.service.stop())
