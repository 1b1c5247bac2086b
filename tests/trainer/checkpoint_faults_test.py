"""Damaged checkpoints are found, whichever file and however; a disk that fails costs a checkpoint, not the training."""
import ctypes
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import unittest

import harness
from harness import DEADLINE_S, TrainerTest, events_of, losses, read, train

FAULTS = sys.argv.pop(sys.argv.index("--faults") + 1) if "--faults" in sys.argv else None
if FAULTS:
    sys.argv.remove("--faults")


class DamageTest(TrainerTest):
    def damage(self, kind, folder, other, name):
        path = os.path.join(folder, name)
        body = bytearray(read(path, mode="rb"))
        if kind == "flip":
            body[random.Random(harness.SEED).randrange(len(body))] ^= 1 << harness.SEED % 8
        elif kind == "truncate":
            body = body[:len(body) // 2]
        elif kind == "zero":
            body = bytearray(len(body))
        elif kind == "swap":
            body = bytearray(read(other, name, mode="rb"))
        os.remove(path)
        if kind != "remove":
            with open(path, "wb") as f:
                f.write(body)

    def test_every_file_in_every_way(self):
        spec = self.write_spec(max_steps=6, save_steps=2)
        done = train(spec, self.path("good"))
        self.assertEqual(done.returncode, 0, done.stderr)
        expected = losses(events_of(done.stdout))
        names = sorted(os.listdir(self.path("good", "checkpoints", "step-000006")))
        self.assertGreaterEqual(len(names), 7)
        kinds = ["flip", "truncate", "zero", "swap", "remove"]
        for i, name in enumerate(names):
            # Every way for every file is swept over the format itself (checkpoint_format_test); the program gets one of them each.
            kind = kinds[(i + harness.SEED) % len(kinds)]
            with self.subTest(file=name, kind=kind):
                out = self.path("damaged")
                shutil.rmtree(out, ignore_errors=True)
                shutil.copytree(self.path("good"), out)
                newest, other = (os.path.join(out, "checkpoints", f"step-00000{step}") for step in (6, 4))
                if kind == "swap" and read(newest, name, mode="rb") == read(other, name, mode="rb"):
                    continue  # the files are equal: nothing is damaged
                self.damage(kind, newest, other, name)
                done = train(spec, out)
                self.assertEqual(done.returncode, 0, done.stderr)
                events = events_of(done.stdout)
                warnings = [e["message"] for e in events if e["event"] == "warning"]
                told = "MANIFEST.json" if name == "COMPLETE" and kind != "remove" else name
                self.assertTrue(any("step-000006" in w and told in w for w in warnings), (name, kind, warnings))
                self.assertEqual(losses(events), {s: expected[s] for s in (5, 6)})

    def test_the_ordered_checkpoint_too(self):
        spec = self.write_spec(max_steps=6, save_steps=2)
        expected = losses(events_of(train(spec, self.path("e1")).stdout))
        ordered = self.path("e1", "checkpoints", "step-000006")
        sha = read(ordered, "COMPLETE").strip()
        self.damage("flip", ordered, None, "adapter_model.safetensors")
        gang = harness.Gang(spec, self.path("e2"), 2, ("--resume-from", ordered, "--resume-manifest", sha))
        self.assertEqual(gang.wait(), [0, 0], gang.stderr)
        self.assertEqual(sorted(losses(gang.events[0])), [5, 6])
        self.assertAlmostEqual(losses(gang.events[0])[6][0], expected[6][0], places=5)
        shutil.rmtree(self.path("e1", "checkpoints"))
        gang = harness.Gang(spec, self.path("e3"), 1, ("--resume-from", ordered, "--resume-manifest", sha))
        self.assertEqual(gang.wait(), [30])  # it never starts from the beginning


class DiskTest(TrainerTest):
    """With faults.cc in the trainer."""

    def run_with_faults(self, operation, error, until):
        """Trains with the fault until `until`(events) is true, without it to the next checkpoint, and stops."""
        plan = self.path("plan")
        spec = self.write_spec(max_steps=100000, save_steps=3, save_total_limit=1)
        with open(plan, "w") as f:
            f.write("none 0\n")
        process = subprocess.Popen([harness.TRAINER, "train", "--spec", spec, "--out", self.path(operation + str(error)), "--threads", "1"],
                                   env=dict(os.environ, LD_PRELOAD=FAULTS, LL_TEST_FAULTS=plan), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        watchdog = threading.Timer(DEADLINE_S, process.kill)
        watchdog.start()
        events, mended = [], None
        for line in process.stdout:
            events.append(json.loads(line))
            checkpoints = [e for e in events if e["event"] == "checkpoint"]
            if len(checkpoints) == 1 and mended is None and events[-1] is checkpoints[0]:
                with open(plan, "w") as f:
                    f.write(f"{operation} {error}\n")
            if mended is None and until(events):
                os.remove(plan)
                mended = len(events)
            if mended is not None and any(e["event"] == "checkpoint" for e in events[mended:]):
                process.terminate()
        process.stdout.close()
        stderr = process.stderr.read()
        process.stderr.close()
        code = process.wait()
        watchdog.cancel()
        return code, events, stderr

    def test_training_goes_on_and_the_next_checkpoint_succeeds(self):
        for operation, error in (("write", errno.ENOSPC), ("write", errno.EIO), ("fsync", errno.EIO), ("open", errno.EROFS),
                                 ("rename", errno.EIO), ("mkdir", errno.ENOSPC)):
            with self.subTest(operation=operation, error=errno.errorcode[error]):
                failed = lambda events: sum(e.get("about") == "checkpoint" for e in events) >= 2  # noqa: E731
                code, events, stderr = self.run_with_faults(operation, error, failed)
                self.assertEqual(code, 10, stderr)
                warnings = [e for e in events if e.get("about") == "checkpoint"]
                self.assertIn(os.strerror(error), warnings[0]["message"])
                steps = [e["step"] for e in events if e["event"] == "step"]
                self.assertEqual(steps, list(range(1, len(steps) + 1)))  # none lost, none twice
                self.assertGreater(steps[-1], warnings[-1]["step"])
                left = os.listdir(self.path(operation + str(error), "checkpoints"))
                self.assertEqual(left, [f"step-{steps[-1]:06d}"])  # nothing half is left

    def test_a_final_checkpoint_that_cannot_be_written_fails_the_job(self):
        plan = self.path("plan")
        with open(plan, "w") as f:
            f.write(f"write {errno.ENOSPC}\n")
        done = train(self.write_spec(max_steps=2, save_steps=0), self.path("out"),
                     env=dict(os.environ, LD_PRELOAD=FAULTS, LL_TEST_FAULTS=plan))
        self.assertEqual(done.returncode, 30, done.stderr)
        self.assertIn(os.strerror(errno.ENOSPC), done.stderr)


class RealDiskTest(TrainerTest):
    """Real file systems (tmpfs), in a mount namespace of this test's own: a full one, and one that is remounted read-only."""

    LIBC = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 0x4000, 1 << 18

    @classmethod
    def mount(cls, source, target, kind, flags, options=None):
        encode = lambda text: text.encode() if text is not None else None  # noqa: E731
        if cls.LIBC.mount(encode(source), encode(target), encode(kind), flags, encode(options)) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")

    @classmethod
    def setUpClass(cls):
        if cls.LIBC.unshare(cls.CLONE_NEWNS) != 0:
            raise unittest.SkipTest(f"this user may not make a mount namespace: {os.strerror(ctypes.get_errno())}")
        cls.mount("none", "/", None, cls.MS_REC | cls.MS_PRIVATE)

    def tmpfs(self, path, size_bytes):
        os.makedirs(path)
        self.mount("tmpfs", path, "tmpfs", 0, f"size={size_bytes}")
        self.addCleanup(self.LIBC.umount2, path.encode(), 2)  # 2: detach

    def train_with_trouble(self, out, begin, end):
        """Trains for ever, calls `begin` after the first checkpoint and `end` after two that failed, and stops after the next good one."""
        spec = self.write_spec(max_steps=1000000, save_steps=3, save_total_limit=1)
        process = subprocess.Popen([harness.TRAINER, "train", "--spec", spec, "--out", out, "--threads", "1"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        watchdog = threading.Timer(DEADLINE_S, process.kill)
        watchdog.start()
        events, state = [], "good"
        for line in process.stdout:
            events.append(json.loads(line))
            failed = sum(e.get("about") == "checkpoint" for e in events)
            if state == "good" and events[-1]["event"] == "checkpoint":
                begin()
                state = "bad"
            elif state == "bad" and failed >= 2:
                end()
                state, mended = "mended", len(events)
            elif state == "mended" and any(e["event"] == "checkpoint" for e in events[mended:]):
                process.terminate()
                state = "stopping"
        process.stdout.close()
        stderr = process.stderr.read()
        process.stderr.close()
        code = process.wait()
        watchdog.cancel()
        self.assertEqual((code, state), (10, "stopping"), stderr)
        steps = [e["step"] for e in events if e["event"] == "step"]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))  # none lost, none twice
        self.assertEqual(os.listdir(os.path.join(out, "checkpoints")), [f"step-{steps[-1]:06d}"])  # nothing half is left
        return events, [e["message"] for e in events if e.get("about") == "checkpoint"]

    def test_a_full_disk(self):
        store = self.path("store")
        self.tmpfs(store, 4 << 20)
        ballast = os.path.join(store, "ballast")

        def fill():
            with open(ballast, "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(bytes(1 << 12))
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)

        out = os.path.join(store, "job")
        events, warnings = self.train_with_trouble(out, fill, lambda: os.remove(ballast))
        self.assertIn(os.strerror(errno.ENOSPC), warnings[0])
        # events.jsonl lay on the full disk: it misses events of that time, but no line of a later one is spoilt.
        written = []
        for line in read(out, "events.jsonl").splitlines():
            try:
                written.append(json.loads(line))
            except ValueError:  # cut by the full disk
                pass
        mended = [e["step"] for e in events if e["event"] == "checkpoint"][1]
        later = [e for e in events if e["event"] == "step" and e["step"] > mended]
        self.assertEqual([e for e in written if e["event"] == "step" and e["step"] > mended], later)
        # And the checkpoint that was written afterwards is good.
        done = train(self.write_spec("more.yaml", max_steps=later[-1]["step"] + 2), out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(min(losses(events_of(done.stdout))), later[-1]["step"] + 1)

    def test_a_file_system_that_becomes_read_only(self):
        checkpoints = self.path("job", "checkpoints")
        self.tmpfs(checkpoints, 16 << 20)

        def remount(flags):
            deadline = time.monotonic() + DEADLINE_S
            while True:
                try:
                    return self.mount("tmpfs", checkpoints, "tmpfs", self.MS_REMOUNT | flags)
                except OSError as error:  # busy: the next checkpoint is being written
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise

        _, warnings = self.train_with_trouble(self.path("job"), lambda: remount(self.MS_RDONLY), lambda: remount(0))
        self.assertIn(os.strerror(errno.EROFS), warnings[0])


if __name__ == "__main__":
    harness.main()
