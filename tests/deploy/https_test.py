"""The HTTPS front of deploy/kubernetes (https.conf) before a real coordinator, by Debian's nginx."""
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

from packages import need_programs
from slurm import free_ports
from status import record

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin").resolve()


class Https(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_programs(nginx="nginx-light", openssl="openssl", curl="curl")
        cls.dir = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ll-https-")))
        cls.make_certificates()
        cls.port = free_ports(2)
        cls.coordinator = cls.start(BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", f"127.0.0.1:{cls.port + 1}", "--data-dir", cls.dir / "data")
        text = (ROOT / "deploy/kubernetes/base/config/https.conf").read_text()
        # Other paths and ports than a pod's; the rest as it is.
        for old, new in ((" /tmp/", f" {cls.dir}/"), ("/etc/ll/tls/tls.crt", f"{cls.dir}/server.crt"), ("/etc/ll/tls/tls.key", f"{cls.dir}/server.key"),
                         ("/etc/ll/tls/ca.crt", f"{cls.dir}/ca.crt"), ("listen 7443 ssl", f"listen 127.0.0.1:{cls.port} ssl"),
                         ("127.0.0.1:7071", f"127.0.0.1:{cls.port + 1}")):
            assert old in text, old
            text = text.replace(old, new)
        (cls.dir / "https.conf").write_text(text)
        cls.nginx = cls.start("nginx", "-c", cls.dir / "https.conf", "-e", "stderr", "-g", "daemon off;")
        for _ in range(300):
            if cls.ask("/healthz")[0] == 200:
                return
            time.sleep(0.1)
        raise RuntimeError("the front does not come up: " + (cls.dir / "nginx.log").read_text())

    @classmethod
    def start(cls, *command):
        log = open(cls.dir / f"{pathlib.Path(command[0]).name}.log", "w")
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        cls.addClassCleanup(process.wait, 30)
        cls.addClassCleanup(process.terminate)
        return process

    @classmethod
    def make_certificates(cls):
        def openssl(*arguments):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=cls.dir)
        for ca in ("ca", "other"):
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.crt")
        for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
            (cls.dir / "san").write_text("subjectAltName=DNS:ll-coordinator\n")
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ll-coordinator", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2", "-extfile", "san",
                    "-out", f"{name}.crt")

    @classmethod
    def ask(cls, path, *flags):
        """(status, body); status 0: no answer."""
        run = subprocess.run(["curl", "-s", "-w", "\n%{http_code}", "--cacert", cls.dir / "ca.crt", "--resolve", f"ll-coordinator:{cls.port}:127.0.0.1",
                              *map(str, flags), f"https://ll-coordinator:{cls.port}{path}"], capture_output=True, text=True, timeout=30)
        body, _, status = run.stdout.rpartition("\n")
        return int(status), body

    def pair(self, name):
        return "--cert", self.dir / f"{name}.crt", "--key", self.dir / f"{name}.key"

    def test_health_for_everybody_with_the_status_alone(self):
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.ask(path), (200, "ok\n"))

    def test_metrics_for_certificates_of_the_ca(self):
        self.assertEqual(self.ask("/metrics")[0], 403)
        self.assertIn(self.ask("/metrics", *self.pair("stranger"))[0], (400, 403))
        status, body = self.ask("/metrics", *self.pair("client"))
        self.assertEqual(status, 200)
        self.assertTrue(re.search(r"^ll_\w+", body, re.M))

    def test_nothing_else_and_no_old_tls(self):
        for path in ("/", "/metrics/", "/healthz/../metrics", "//metrics", "/stub_status"):
            self.assertIn(self.ask(path, "--path-as-is")[0], (403, 404), path)
        self.assertEqual(self.ask("/healthz", "--tls-max", "1.1")[0], 0)

    def test_zz_record(self):
        record("Kubernetes: HTTPS front of the coordinator's pages", "run for real",
               "Debian's nginx with base/config/https.conf (other paths) before a real coordinator: health, metrics by client certificate, TLS 1.2 and later")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
