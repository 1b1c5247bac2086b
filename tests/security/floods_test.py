#!/usr/bin/env python3
"""Floods before the real coordinator: what each costs in memory, and whether another user is served meanwhile.

  floods_test.py BIN_DIR [TEST…]      with LL_ATTACK_SCALE=10 ten times as much of each
"""
import gzip
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest

import http2
from attack_case import DEADLINE_S, AttackCase, Coordinator

SCALE = int(os.environ.get("LL_ATTACK_SCALE", "1"))
MEMORY_BOUND = 64 << 20
OTHERS_P99_MS = 500  # of another user's calls during a flood that has one of two cores; or so many times that without a flood:
OTHERS_TIMES = 20


class Bystander:
    """Another user, in a process of its own, who lists jobs throughout; how long each call took."""

    def __init__(self, service):
        self.process = subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name("bystander.py"), service.address, service.pki / "ca.crt"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(service.token + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ready\n"

    def done(self):
        """Milliseconds, sorted."""
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        return sorted(json.loads(out))


def quantiles(ms):
    at = lambda q: ms[min(len(ms) - 1, int(q * len(ms)))]  # noqa: E731
    return f"{len(ms)} calls, p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, most {ms[-1]:.1f} ms", at(0.99)


class FloodCase(AttackCase):
    @classmethod
    def measure_alone(cls):
        alone = Bystander(cls.service)
        time.sleep(1.5)
        told, p99 = quantiles(alone.done())
        print(f"another user without a flood: {told}", flush=True)
        cls.others_bound = max(OTHERS_P99_MS, OTHERS_TIMES * p99)


class FloodTest(FloodCase):
    """Each flood ends in an error or a closed connection, others are served meanwhile, and memory stays bounded."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.measure_alone()

    def setUp(self):
        self.service.llctl("list")
        self.before = self.service.memory()[0]
        self.most = self.before
        self.done = threading.Event()
        self.other, self.waits = Bystander(self.service), None
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        self.addCleanup(self.finish)

    def watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, self.service.memory()[0])

    def finish(self):
        self.done.set()
        self.watcher.join()
        if self.waits is None:
            self.waits = self.other.done()

    def still_serves(self, what):
        began = time.monotonic()
        self.service.llctl("list")
        self.finish()
        grown = self.most - self.before
        told, p99 = quantiles(self.waits)
        print(f"{what}: memory +{grown / 2**20:.1f} MiB, the next list after {time.monotonic() - began:.2f} s; another user meanwhile: {told}",
              flush=True)
        self.assertLess(grown, MEMORY_BOUND, what)
        self.assertLess(p99, self.others_bound, what)

    def call(self, path, body, token=None, more=(), compressed=False):
        with self.service.connect() as connection:
            block = http2.header_block(http2.request_fields(path, token or self.service.token, more))
            connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block))
            early = connection.send_data(1, http2.message(body, compressed))
            return connection.outcome(1, early)

    def ended_with(self, outcome, *codes):
        self.assertNotEqual(outcome, "silent")
        if isinstance(outcome, str):
            return
        text = outcome.decode("latin-1")
        self.assertTrue(any(f"grpc-status\x01{code}" in text or f"grpc-status\x02{code}" in text for code in codes) or
                        b"grpc-status" not in outcome, outcome)
        self.assertNotIn("grpc-status\x010", text)

    def test_a_message_of_more_than_4_mib(self):
        body = http2.field(2, b"x" * ((4 << 20) + 1))  # the limit is 2 MiB
        for _ in range(5 * SCALE):
            self.ended_with(self.call("/ll.v1.Jobs/Submit", body), 8)
        self.still_serves("4 MiB + 1")

    def test_deep_nesting_and_hundreds_of_thousands_of_fields(self):
        value = b""
        for _ in range(1000):  # Struct in Struct: {"a": {"a": …}}
            value = http2.field(1, http2.field(1, b"a") + http2.field(2, http2.field(5, value)))
        for path, body in (("/ll.v1.Jobs/Say", http2.field(1, b"job-0123456789ab") + http2.field(2, value)),
                           ("/ll.v1.Jobs/Submit", http2.field(1, http2.field(95, b"j") * 400_000)),
                           ("/ll.v1.Jobs/SubmitAll", http2.field(1, b"") * 400_000)):
            for _ in range(SCALE):
                self.ended_with(self.call(path, body), 3, 8, 12, 13)  # 12: gRPC's word for what does not parse
        self.still_serves("nesting, repeated fields")

    def test_a_compressed_bomb(self):
        bomb = gzip.compress(b"\0" * (1 << 27), 6)  # 128 MiB in 128 KiB
        for encoding in ("gzip", "deflate"):
            outcome = self.call("/ll.v1.Jobs/Submit", bomb, more=[("grpc-encoding", encoding)], compressed=True)
            self.ended_with(outcome, 12, 13, 8)
        self.still_serves("128 MiB in 128 KiB of gzip")

    def test_metadata_without_end(self):
        with self.service.connect() as connection:
            many = [(f"x-{i}", "v" * 50) for i in range(100_000)]
            block = http2.header_block(http2.request_fields("/ll.v1.Jobs/List", self.service.token, many))
            pieces = [block[at:at + 16384] for at in range(0, len(block), 16384)]
            try:
                connection.send(http2.frame(http2.HEADERS, 0, 1, pieces[0]))
                for piece in pieces[1:-1]:
                    connection.send(http2.frame(http2.CONTINUATION, 0, 1, piece))
                connection.send(http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, pieces[-1]))
                connection.send(http2.frame(http2.DATA, http2.END_STREAM, 1, http2.message(b"")))
                self.ended_with(connection.outcome(1), 8, 13)
            except (ConnectionError, ssl.SSLError):
                pass  # it hung up on the way
        # One that never ends (CVE-2024-27316): the coordinator hangs up.
        sent = 0
        with self.service.connect() as connection:
            filler = http2.frame(http2.CONTINUATION, 0, 1, http2.header_block([("x", "y" * 1000)] * 16)[:16384])
            with self.assertRaises((ConnectionError, ssl.SSLError)):
                connection.send(http2.frame(http2.HEADERS, 0, 1, http2.header_block(http2.request_fields("/ll.v1.Jobs/List"))))
                while sent < SCALE << 30:
                    connection.send(filler)
                    sent += len(filler)
        print(f"hung up after {sent >> 20} MiB of headers", flush=True)
        self.still_serves("metadata")

    def test_streams_and_connections_that_do_nothing(self):
        host, port = self.service.address.split(":")
        idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(200)]  # no handshake
        for connection in idle[:100]:
            connection.sendall(b"\x16\x03\x01")  # the beginning of one
        opened = []
        for _ in range(100):  # and the beginning of a call's headers, of which a byte comes now and then
            connection = self.service.connect()
            connection.send(http2.frame(http2.HEADERS, 0, 1, http2.header_block([(":method", "POST")]))[:-1])
            opened.append(connection)
        block = http2.header_block(http2.request_fields("/ll.v1.Jobs/List", self.service.token))
        for _ in range(40):  # calls whose message never comes
            connection = self.service.connect()
            connection.send(b"".join(http2.frame(http2.HEADERS, http2.END_HEADERS, 2 * i + 1, block) for i in range(250)))
            opened.append(connection)
        for _ in range(5):
            time.sleep(0.2)
            for connection in opened[:100]:
                connection.send(b"\0")
        began = time.monotonic()
        self.service.llctl("list")
        self.assertLess(time.monotonic() - began, 5)
        for connection in [*idle, *opened]:
            connection.close()
        self.still_serves("200 idle connections, 100 with slow headers, 10,000 idle calls")


class RapidResetTest(FloodCase):
    """CVE-2023-44487, with and without a right to call: the coordinator hangs up. Without that a million streams took 6 GB."""

    def reset(self, token):
        fields = http2.request_fields("/ll.v1.Jobs/List", token)
        block, begun = http2.indexed_block(len(fields)), 0
        with self.service.connect() as connection:
            connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.indexing_block(fields)))
            with self.assertRaises((ConnectionError, ssl.SSLError)):
                while begun < 1_000_000 * SCALE:
                    burst = b""
                    for _ in range(100):
                        begun += 1
                        burst += http2.frame(http2.HEADERS, http2.END_HEADERS, 2 * begun + 1, block)
                        burst += http2.frame(http2.RST_STREAM, 0, 2 * begun + 1, b"\0\0\0\x08")
                    connection.send(burst)
        return begun

    def test_rapid_reset(self):
        # How soon the coordinator sees it depends on what else the machine does: of three times one has the bound of all
        # attacks, each at most four times that.
        self.measure_alone()
        grown = []
        for k in range(3):
            before, other = self.service.memory()[1], Bystander(self.service)
            for token in (self.service.token, None):
                print(f"hung up after {self.reset(token)} streams", flush=True)
                self.service.llctl("list")
            grown.append(self.service.memory()[1] - before)
            told, p99 = quantiles(other.done())
            print(f"rapid reset: memory +{grown[-1] / 2**20:.1f} MiB; another user meanwhile: {told}", flush=True)
            self.assertLess(p99, self.others_bound)
            folder = self.root / f"again-{k}"  # the pages that a process had are no measure any more
            folder.mkdir()
            self.service.stop()
            type(self).service = Coordinator(folder)
        self.assertLess(min(grown), MEMORY_BOUND)
        self.assertLess(max(grown), 4 * MEMORY_BOUND)


if __name__ == "__main__":
    unittest.main(verbosity=2)
