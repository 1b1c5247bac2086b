#!/usr/bin/env python3
"""Hostile clients before the real coordinator: TLS that must not be, and credentials in the wrong hands.

  attacks_test.py BIN_DIR [TEST…]
"""
import json
import os
import pathlib
import pty
import socket
import ssl
import subprocess
import tempfile
import termios
import time
import unittest

import http2
from attack_case import BIN, DEADLINE_S, AttackCase, Coordinator


class TlsTest(AttackCase):
    def refused(self, **settings):
        with self.assertRaises((ssl.SSLError, ConnectionError, OSError)) as caught:
            with http2.tls(self.service.address, self.service.pki / "ca.crt", **settings) as connection:
                connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
                if not connection.recv(1):
                    raise ConnectionError("closed")
        return str(caught.exception)

    def test_old_versions_and_other_protocols(self):
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.load_verify_locations(str(self.service.pki / "ca.crt"))
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2"])
            host, port = self.service.address.split(":")
            with socket.create_connection((host, int(port)), timeout=10) as plain:
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(plain, server_hostname="localhost")
        with http2.tls(self.service.address, self.service.pki / "ca.crt") as good:
            self.assertEqual(good.version(), "TLSv1.3")
        # Without SNI: the same certificate, and no more rights.
        context = ssl.create_default_context(cafile=str(self.service.pki / "ca.crt"))
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        host, port = self.service.address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as nameless:
            self.assertIn(("DNS", "localhost"), nameless.getpeercert()["subjectAltName"])
        self.refused(alpn=("http/1.1",))

    def test_plaintext_gets_nothing(self):
        host, port = self.service.address.split(":")
        for text in (http2.PREFACE, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 100):
            with socket.create_connection((host, int(port)), timeout=10) as plain:
                plain.sendall(text)
                plain.shutdown(socket.SHUT_WR)
                answer = b""
                try:
                    while piece := plain.recv(4096):
                        answer += piece
                except ConnectionError:
                    pass
                self.assertNotIn(b"HTTP", answer)

    def test_strangers_certificates(self):
        other = self.root / "other"
        self.service.run("ll-coordinator", "pki", "init", "--dir", other)
        self.service.run("ll-coordinator", "pki", "issue", "--dir", other, "--worker", "w1")
        self.refused(certificate=other / "worker-w1")
        self.assertIn("certificate", self.service.llctl("list", code=4, ca=other / "ca.crt").stderr.lower())

    def test_a_coordinator_of_another_name_is_not_believed(self):
        with tempfile.TemporaryDirectory(prefix="ll-attacks-") as folder:
            wrong = Coordinator(pathlib.Path(folder), server="elsewhere.example")
            try:
                wrong.llctl("list", code=4)
            finally:
                wrong.stop()


class JoiningTest(AttackCase):
    """The way a new host and a new user come in, by the commands that the guides name."""

    def test_a_worker_joins_and_a_user_logs_in(self):
        service, out = self.service, self.root / "w7"
        join = service.run("ll-coordinator", "pki", "join-token", "--dir", service.pki, "--worker", "w7").stdout
        arguments = ("join", "--coordinator", service.address, "--tls-ca", service.pki / "ca.crt", "--name", "w7", "--out", out)
        self.assertIn("join token", service.run("ll-worker", *arguments, input="guess\n", code=6).stderr)
        service.run("ll-worker", *arguments, input=join)
        self.assertEqual(os.stat(out / "worker.key").st_mode & 0o777, 0o600)
        self.assertIn("join token", service.run("ll-worker", *arguments, input=join, code=6).stderr)  # once
        worker = subprocess.Popen(
            [BIN / "ll-worker", "--coordinator", service.address, "--http", "127.0.0.1:0", "--work-dir", self.root / "work", "--name", "w7",
             "--cpu-slots", "1", "--trainer", "/bin/true", "--tls-ca", out / "ca.crt", "--tls-cert", out / "worker.crt", "--tls-key",
             out / "worker.key"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"HOME": str(self.root)})
        try:
            until = time.monotonic() + DEADLINE_S
            while "w7" not in service.llctl("workers", "list").stdout:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.1)
            for process in (worker, service.process):  # what others on the host may look at
                for name in ("cmdline", "environ"):
                    seen = pathlib.Path(f"/proc/{process.pid}/{name}").read_text()
                    for secret in (join.strip(), service.token):
                        self.assertNotIn(secret, seen)
        finally:
            worker.terminate()
            worker.wait(DEADLINE_S)

        token = service.make_token("uta", "read", "--expires", "1h")
        here = ("--coordinator", service.address, "--ca", service.pki / "ca.crt")
        self.assertIn("not known", service.run("llctl", "login", "lab", *here, input="guess\n", code=6).stderr)
        self.assertFalse((self.root / ".config/ll/tokens/lab").exists())
        service.run("llctl", "login", "lab", *here, input=token + "\n")
        self.assertEqual(os.stat(self.root / ".config/ll/tokens/lab").st_mode & 0o777, 0o600)
        self.assertNotIn(token, (self.root / ".config/ll/config.yaml").read_text())
        service.run("llctl", "list")  # the current context
        service.run("llctl", "config", "set-context", "away", "--coordinator", "127.0.0.1:1")
        service.run("llctl", "list", "--context", "away", code=4)
        service.run("llctl", "list", code=4, env={"LLCTL_CONTEXT": "away"})
        service.run("llctl", "config", "use-context", "away")
        service.run("llctl", "list", code=4)
        service.run("llctl", "list", "--context", "lab")
        service.run("llctl", "config", "use-context", "lab")
        names = json.loads(service.run("llctl", "config", "get-contexts", "-o", "json").stdout)
        self.assertEqual([(c["name"], c["current"]) for c in names], [("away", False), ("lab", True)])
        listed = json.loads(service.run("llctl", "token", "list", "--tokens", service.tokens, "-o", "json").stdout)
        mine = [t for t in listed if t["user"] == "uta"]
        self.assertEqual(len(mine), 1)
        service.run("llctl", "token", "revoke", "--tokens", service.tokens, mine[0]["id"])
        until = time.monotonic() + DEADLINE_S
        while service.run_code("llctl", "list") != 6:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.1)
        log = (self.root / "data/audit.jsonl").read_text()
        for secret in (join.strip(), token, service.token):
            self.assertNotIn(secret, log)
        self.assertIn("all follow", service.run("ll-coordinator", "audit", "verify", "--data-dir", self.root / "data").stdout)


    def test_a_join_token_is_not_shown_nor_spent_in_vain(self):
        service = self.service
        token = service.run("ll-coordinator", "pki", "join-token", "--dir", service.pki, "--worker", "w8").stdout.strip()
        arguments = ("join", "--coordinator", service.address, "--tls-ca", service.pki / "ca.crt", "--name", "w8", "--out")
        # What cannot be written is seen before the token is used up.
        self.assertIn("Not a directory", service.run("ll-worker", *arguments, service.tokens / "x", input=token, code=2).stderr)
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        join = subprocess.Popen([BIN / "ll-worker", *map(str, arguments), str(self.root / "w8")], stdin=theirs, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + DEADLINE_S
        while termios.tcgetattr(theirs)[3] & termios.ECHO:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)
        os.write(ours, token.encode() + b"\n")
        out, err = join.communicate(timeout=DEADLINE_S)
        self.assertEqual((join.returncode, out.startswith("joined as w8"), err), (0, True, "Join token: \n"))
        self.assertTrue(termios.tcgetattr(theirs)[3] & termios.ECHO)
        os.close(theirs)


class WrongHandsTest(AttackCase):
    """Files and addresses that are wrong: one line each that names what is wrong and what to do, and no secret."""

    def one_line(self, done, *words):
        self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertNotIn(self.service.token, done.stderr)

    def start(self, *flags, code):
        """A coordinator that does not start."""
        return self.service.run("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.root / "second", *flags, code=code)

    def test_authorities_and_names(self):
        service, other = self.service, self.root / "others"
        service.run("ll-coordinator", "pki", "init", "--dir", other)
        ca = str(other / "ca.crt")
        self.one_line(service.llctl("list", ca=ca, code=4), "it answers, but its certificate", ca, "--ca or LLCTL_CA")
        self.one_line(service.llctl("list", ca=service.tokens, code=2), "ca: expected certificates of authorities in PEM")
        self.one_line(service.llctl("list", ca="/nowhere/ca.crt", code=2), "ca: /nowhere/ca.crt", "No such file")
        away = {"LLCTL_TOKEN": service.token, "LLCTL_COORDINATOR": service.address}
        self.one_line(service.run("llctl", "list", code=4, env=away), "does it want TLS?", "--ca or LLCTL_CA")
        agent = subprocess.Popen([BIN / "ll-worker", "--coordinator", service.address, "--http", "127.0.0.1:0", "--work-dir", self.root / "lost",
                                  "--name", "lost", "--cpu-slots", "1", "--trainer", "/bin/true", "--tls-ca", ca],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={"HOME": str(self.root)})
        try:
            line = next(line for line in agent.stderr if "no session" in line)
            for word in ("certificate verify failed", "it answers, but its certificate", ca, "--tls-ca"):
                self.assertIn(word, line)
        finally:
            agent.terminate()
            agent.wait(DEADLINE_S)
            agent.stderr.close()

    def test_tokens_in_the_wrong_hands(self):
        service, token = self.service, self.root / "a.token"
        token.write_text(service.token + "\n")
        token.chmod(0o644)
        self.one_line(service.llctl("list", "--token-file", token, code=2), "everybody on this host may read", str(token), "chmod o-rwx")
        self.one_line(service.run("ll-worker", "--coordinator", service.address, "--work-dir", self.root / "w", "--cpu-slots", "1", "--trainer",
                                  "/bin/true", "--token-file", token, code=2), "everybody on this host may read", "chmod o-rwx")
        token.chmod(0o600)
        service.llctl("list", "--token-file", token)
        self.one_line(service.llctl("list", token=service.token + "\nx", code=2), "token: expected printable characters")
        tokens = self.root / "open.tokens"
        tokens.write_bytes(service.tokens.read_bytes())
        tokens.chmod(0o666)
        self.one_line(self.start("--tokens", tokens, code=2), "tokens: everybody on this host may write", "chmod o-w")
        tenants = self.root / "open.yaml"
        tenants.write_text("default: {}\n")
        tenants.chmod(0o666)
        self.one_line(self.start("--tenants", tenants, code=2), "tenants: everybody on this host may write")
        self.one_line(self.start("--tokens", self.root / "no.tokens", code=1), "tokens: ", "no.tokens", "llctl token create")

    def test_backups_go_where_they_can(self):
        backup = lambda to, code: self.service.run("ll-coordinator", "backup", "--data-dir", self.root / "data", "--to", to, code=code)  # noqa: E731
        self.one_line(backup(self.root, 2), "to: expected a file", "the folder")
        self.one_line(backup(self.root / "nowhere/b", 2), "to: expected a file in a folder that is there")
        self.one_line(self.service.run("ll-coordinator", "backup", "--data-dir", self.root / "none", "--to", self.root / "b", code=1),
                      "data-dir: there is no store")
        # What a backup that was killed has left goes with the next one; what may be another's at work stays.
        old, young, other = (self.root / name for name in ("b.tmp-0123456789abcdef", "b.tmp-fedcba9876543210", "bb.tmp-0123456789abcdef"))
        for left in (old, young, other):
            left.write_text("half a ba")
        for left in (old, other):
            os.utime(left, (time.time() - 7200, time.time() - 7200))
        backup(self.root / "b", 0)
        self.assertEqual([left.exists() for left in (old, young, other)], [False, True, True])
        self.assertEqual(os.stat(self.root / "b").st_mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main(verbosity=2)
