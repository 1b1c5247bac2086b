"""A real PostgreSQL server of this machine's packages, in a folder of its own, for tests."""
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

PROGRAMS = pathlib.Path("/usr/lib/postgresql/15/bin")


class Postgres:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ll-postgres-"))
        self.user = {}
        if os.geteuid() == 0:  # it refuses to run as root
            entry = pwd.getpwnam("postgres")
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        subprocess.run([PROGRAMS / "initdb", "-D", self.folder / "data", "-U", "ll", "-A", "trust", "--no-locale", "-E", "UTF8", "-N"],
                       check=True, capture_output=True, cwd=self.folder, **self.user)
        self.server = None
        self.start()

    @property
    def uri(self):
        return f"postgresql://ll@/postgres?host={self.folder}"

    def start(self):
        log = open(self.folder / "log", "ab")
        self.server = subprocess.Popen([PROGRAMS / "postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses="],
                                       stdout=log, stderr=log, cwd=self.folder, **self.user)
        log.close()
        deadline = time.monotonic() + 20
        while subprocess.run([PROGRAMS / "pg_isready", "-q", "-h", self.folder], check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def crash(self):
        """As pg_ctl stop -m immediate: no goodbye to anybody."""
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(timeout=20)

    def query(self, sql):
        """Rows of text columns."""
        run = subprocess.run([PROGRAMS / "psql", "-X", "-A", "-t", "-h", self.folder, "-U", "ll", "-c", sql, "postgres"], check=True,
                             capture_output=True, text=True, timeout=20)
        return [line.split("|") for line in run.stdout.splitlines()]

    def close(self):
        if self.server.poll() is None:
            self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)
