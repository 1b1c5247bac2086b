#!/usr/bin/env python3
"""R14's networks: readers behind a link of 64 kbit/s, one that resets connections, and one that falls silent. Others' calls do not
notice, the readers are told everything once, and who is gone is let go.

  slow_net_test.py BIN_DIR

The links are proxies in this process. Prints a line "SLOWNET {…}" with what was measured.
"""
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("cli", "support")]
from service import BIN, ServiceCase  # noqa: E402
from waiting import await_that  # noqa: E402

STEPS = 800
SEED = int(os.environ.get("LL_SEED", random.SystemRandom().randrange(1_000_000)))
CHUNK = 4096
SPARED = 12  # pieces: who cannot reach a coordinator at all is told so at once


class Link:
    """A proxy in front of `target` ("host:port")."""

    def __init__(self, target, bytes_per_second=None, resets=0.0):
        self.target = target.rsplit(":", 1)
        self.bytes_per_second, self.resets, self.dice = bytes_per_second, resets, random.Random(SEED)
        self.silent = threading.Event()
        self.reset_count = self.let_go = self.pieces = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection((self.target[0], int(self.target[1])))
            for source, sink, down in ((near, far, False), (far, near, True)):
                threading.Thread(target=self.pump, args=(source, sink, down), daemon=True).start()

    def pump(self, source, sink, down):
        try:
            while data := source.recv(CHUNK):
                if self.silent.is_set():
                    continue  # on the wire, and never there
                if down and self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
                self.pieces += 1
                if self.pieces > SPARED and self.dice.random() < self.resets:
                    self.reset_count += 1
                    for end in (source, sink):  # RST instead of FIN
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.close()
                    return
                sink.sendall(data)
        except OSError:
            pass
        if down:
            self.let_go += 1
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


def p99(values):
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


class SlowNetTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.make_data()
        print(f"seed {SEED} (LL_SEED={SEED} repeats it)", flush=True)

    def setUp(self):
        if not hasattr(type(self), "job"):
            type(self).job = self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.root / "text.bin", "--ctx", 256, "--steps", STEPS,
                                        "--set", "global_batch_size=1", "--set", f"save_steps={STEPS}").stdout.strip()
            self.await_result(self.job)

    def watch_through(self, link):
        output = open(self.root / f"watch-{id(link)}", "w+")
        self.addCleanup(output.close)
        watch = subprocess.Popen([BIN / "llctl", "-o", "json", "watch", self.job], env=dict(self.environment, LLCTL_COORDINATOR=link.address),
                                 stdout=output, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.addCleanup(watch.kill)
        self.addCleanup(link.close)
        return watch, output

    def steps_told(self, output):
        output.seek(0)
        return [int(told["step"]["step"]) for line in output if line.endswith("\n") and "step" in (told := json.loads(line))]

    def calls(self, count=60):
        """Milliseconds of so many calls by a program of their own."""
        out = []
        for _ in range(count):
            began = time.monotonic()
            self.llctl("-o", "json", "get", self.job)
            out.append(1000 * (time.monotonic() - began))
        return out

    def memory(self):
        coordinator = next(p for p in self.processes if "ll-coordinator" in str(p.args[0]))
        return int(pathlib.Path(f"/proc/{coordinator.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def test_1_links_of_64_kbit_disturb_nobody(self):
        alone, before = self.calls(), self.memory()
        readers = [self.watch_through(Link(self.environment["LLCTL_COORDINATOR"], bytes_per_second=8000)) for _ in range(8)]
        await_that(lambda: all(self.steps_told(output) for _, output in readers), "the first step behind every link")
        beside = self.calls()
        self.assertTrue(any(watch.poll() is None for watch, _ in readers), "the links were too fast to tell")
        grown = self.memory() - before
        for watch, output in readers:
            self.assertEqual(watch.wait(timeout=300), 0)
            self.assertEqual(self.steps_told(output), list(range(1, STEPS + 1)))
        told = {"readers": len(readers), "p99_ms_alone": round(p99(alone), 1), "p99_ms_beside": round(p99(beside), 1), "grown_mb": round(grown / 1e6, 1)}
        print("SLOWNET", json.dumps(told), flush=True)
        self.assertLess(grown, 64 << 20)
        self.assertLess(p99(beside), max(100, 3 * p99(alone)))

    def test_2_one_piece_in_a_hundred_resets_the_connection(self):
        resets = 0
        for _ in range(20):
            link = Link(self.environment["LLCTL_COORDINATOR"], resets=0.01)
            watch, output = self.watch_through(link)
            self.assertEqual(watch.wait(timeout=120), 0)
            self.assertEqual(self.steps_told(output), list(range(1, STEPS + 1)))
            resets += link.reset_count
        self.assertGreater(resets, 0)
        print("SLOWNET", json.dumps({"watches": 20, "resets": resets, "told": "every step once"}), flush=True)

    def test_3_who_falls_silent_is_let_go(self):
        link = Link(self.environment["LLCTL_COORDINATOR"], bytes_per_second=8000)
        watch, output = self.watch_through(link)
        await_that(lambda: self.steps_told(output), "a step")
        link.silent.set()
        began = time.monotonic()
        self.assertLess(p99(self.calls()), 1000)
        await_that(lambda: link.let_go, "the coordinator to close the connection", seconds=240)
        print("SLOWNET", json.dumps({"let_go_after_s": round(time.monotonic() - began)}), flush=True)
        watch.kill()


if __name__ == "__main__":
    unittest.main(warnings="ignore")  # sockets of links end with the process
