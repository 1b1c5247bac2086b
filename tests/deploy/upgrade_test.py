#!/usr/bin/env python3
"""docs/upgrade.md with real stores: of an earlier schema, of a later one, put back after an upgrade; and the agent's part of it.

  upgrade_test.py BIN_DIR
"""
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from service import BIN, CONFIG  # noqa: E402

DEADLINE_S = 60
# What takes away again what each schema of coordinator/store/migrations.cc brought, so that it is the one before.
BACK = {
    4: ("CREATE TABLE j (job_id TEXT PRIMARY KEY, sequence INTEGER NOT NULL UNIQUE, state INTEGER NOT NULL, body TEXT NOT NULL, "
        "result BLOB NOT NULL)",
        "INSERT INTO j SELECT job_id, sequence, state, body, result FROM jobs",
        "CREATE TABLE s (job_id TEXT PRIMARY KEY, spec BLOB NOT NULL, resolved_spec BLOB NOT NULL, forecast BLOB NOT NULL)",
        "INSERT INTO s SELECT job_id, spec, resolved_spec, forecast FROM jobs JOIN submissions USING (sequence)",
        "CREATE TABLE t (job_id TEXT NOT NULL, number INTEGER NOT NULL, time_ns INTEGER NOT NULL, state INTEGER NOT NULL, "
        "epoch INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (job_id, number)) WITHOUT ROWID",
        "INSERT INTO t SELECT job_id, number, time_ns, t.state, epoch, reason FROM jobs JOIN transitions t USING (sequence)",
        "CREATE TABLE r (user TEXT NOT NULL, request_id TEXT NOT NULL, body_sha256 TEXT NOT NULL, job_id TEXT NOT NULL, "
        "time_ns INTEGER NOT NULL, PRIMARY KEY (user, request_id)) WITHOUT ROWID",
        "INSERT INTO r SELECT user, request_id, body_sha256, job_id, time_ns FROM requests",
        *(statement for table in ("jobs", "submissions", "transitions", "requests")
          for statement in (f"DROP TABLE {table}", f"ALTER TABLE {table[0]} RENAME TO {table}"))),
    3: ("DROP TABLE schedules", "DROP TABLE schedule_runs"),
    2: ("DROP TABLE queues",),
}
PRESENT = max(BACK)


class UpgradeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ll-upgrade-")
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.data_dir = self.root / "coordinator"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LL_DATA_DIR": str(self.data_dir)}
        self.processes = {}
        self.addCleanup(lambda: [self.stop(name) for name in list(self.processes)])
        self.address = "127.0.0.1:0"

    def start(self, name, *arguments):
        log = open(self.root / f"{name}.log", "ab")
        self.addCleanup(log.close)
        process = subprocess.Popen([BIN / name, *map(str, arguments)], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
                                   env=self.environment)
        self.processes[name] = process
        return process.stdout.readline()

    def stop(self, name):
        process = self.processes.pop(name)
        process.terminate()
        process.wait(timeout=DEADLINE_S)
        process.stdout.close()

    def start_coordinator(self):
        line = self.start("ll-coordinator", "--listen", self.address, "--http", "127.0.0.1:0", "--data-dir", self.data_dir)
        self.assertIn("serving", line, self.log("ll-coordinator"))
        self.address = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]

    def log(self, name):
        return (self.root / f"{name}.log").read_text()

    def llctl(self, *arguments):
        run = subprocess.run([BIN / "llctl", "-o", "json", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S,
                             env=self.environment, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return json.loads(run.stdout)

    def command(self, *arguments, code=0):
        run = subprocess.run([BIN / "ll-coordinator", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S,
                             env=self.environment, check=False)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run.stdout + run.stderr

    def write_a_store(self):
        """One with a job, a name for data and a term; the job."""
        (self.root / "tokens.bin").write_bytes(bytes(4096))
        self.start_coordinator()
        self.llctl("data", "add", "tokens", self.root / "tokens.bin", "--default")
        (self.root / "tiny").mkdir()
        (self.root / "tiny/config.json").write_text(json.dumps(CONFIG))
        self.llctl("models", "add", "tiny", self.root / "tiny")
        job = self.llctl("submit", "--model", "tiny", "--ctx", 512, "--name", "kept")
        self.stop("ll-coordinator")
        return job

    def change_store(self, *statements):
        with sqlite3.connect(self.data_dir / "ll.db") as store:
            for statement in statements:
                store.execute(statement)
        store.close()

    def schema(self):
        store = sqlite3.connect(self.data_dir / "ll.db")
        try:
            return store.execute("PRAGMA user_version").fetchone()[0]
        finally:
            store.close()

    def test_a_store_of_every_earlier_schema_opens_with_its_rows(self):
        job = self.write_a_store()
        self.assertEqual(self.schema(), PRESENT, "say in BACK how the new schema is undone")
        for version in sorted(BACK, reverse=True):
            undone = [statement for later in sorted(BACK, reverse=True) if later >= version for statement in BACK[later]]
            self.change_store(*undone, f"PRAGMA user_version={version - 1}")
            self.start_coordinator()
            self.assertEqual(self.llctl("get", job["job_id"])["spec"]["name"], "kept")
            self.assertEqual([data["name"] for data in self.llctl("data", "list")], ["tokens"])
            self.assertEqual(self.llctl("schedule", "list"), [])
            self.llctl("queues", "set", "night", "--weight", 2)
            self.stop("ll-coordinator")
            self.assertEqual(self.schema(), PRESENT)

    def test_a_later_schema_is_refused_in_one_line_and_left_alone(self):
        self.write_a_store()
        self.change_store(f"PRAGMA user_version={PRESENT + 1}")
        run = subprocess.run([BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.data_dir],
                             capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment, check=False)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(f"schema version {PRESENT + 1}, this program knows up to {PRESENT}: start the newer version again", run.stderr)
        self.assertEqual(self.schema(), PRESENT + 1)

    def start_worker(self):
        self.start("ll-worker", "--coordinator", self.address, "--http", "127.0.0.1:0", "--work-dir", self.root / "w1", "--name", "w1",
                   "--cpu-slots", 1, "--trainer", "/bin/true")

    def await_worker(self):
        deadline = time.monotonic() + DEADLINE_S
        while not any(worker["connected"] for worker in self.llctl("workers", "list")):
            self.assertLess(time.monotonic(), deadline, self.log("ll-worker"))
            time.sleep(0.1)

    def test_a_store_put_back_after_an_upgrade(self):
        """docs/upgrade.md, Back: the copy serves, and an agent that has obeyed the newer coordinator says what it needs."""
        job = self.write_a_store()
        before, copy = self.root / "before.backup", self.root / "coordinator.before"
        self.start_coordinator()
        self.command("backup", "--data-dir", self.data_dir, "--to", before)  # while it runs
        self.stop("ll-coordinator")
        self.assertEqual(before.stat().st_mode & 0o777, 0o600)
        shutil.copytree(self.data_dir, copy, symlinks=True)
        # "The new release" raises the term, twice started; a job is submitted to it.
        self.start_coordinator()
        self.start_worker()
        self.await_worker()
        self.stop("ll-coordinator")
        self.start_coordinator()
        self.await_worker()
        later = self.llctl("submit", "--model", "tiny", "--ctx", 512, "--name", "later")
        self.stop("ll-worker")
        self.stop("ll-coordinator")

        # A mere copy: the agent remembers the higher term, and says so.
        self.data_dir.rename(self.root / "coordinator.newer")  # mv, as the page does
        shutil.copytree(copy, self.data_dir, symlinks=True)
        self.start_coordinator()
        self.start_worker()
        refused = self.processes.pop("ll-worker")
        self.addCleanup(refused.stdout.close)
        self.assertEqual(refused.wait(timeout=DEADLINE_S), 3, self.log("ll-worker"))
        self.assertIn("put it back with ll-coordinator restore", self.log("ll-worker"))
        self.stop("ll-coordinator")

        # The backup: taken by the agent as it is.
        refused = self.command("restore", "--data-dir", self.data_dir, "--from", before, code=1)
        self.assertIn("the store is not empty", refused)
        for file in self.data_dir.glob("ll.db*"):
            file.unlink()
        self.command("restore", "--data-dir", self.data_dir, "--from", before)
        self.start_coordinator()
        self.assertEqual([found["job_id"] for found in self.llctl("list")], [job["job_id"]])
        self.assertNotEqual(later["job_id"], job["job_id"])
        self.start_worker()
        self.await_worker()


if __name__ == "__main__":
    unittest.main(verbosity=2)
