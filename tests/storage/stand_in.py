"""An S3 stand-in (moto's server) for tests, and a proxy in front of it that misbehaves on demand."""
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
from waiting import free_port  # noqa: E402

DEADLINE_S = 60
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester-secret", "AWS_REGION": "us-east-1"}


# S3 decides a conditional write at one moment; moto looks and then writes, with other requests in between.
SERVER = """
import io, sys, threading
from moto import server

lock, serve = threading.Lock(), server.run_simple

def one_at_a_time(app):
    def call(environ, start):
        if "HTTP_IF_NONE_MATCH" not in environ:
            return app(environ, start)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with lock:
            return list(app(environ, start))
    return call

server.run_simple = lambda host, port, app, **more: serve(host, port, one_at_a_time(app), **more)
server.main(sys.argv[1:])
"""


class S3:
    """A server with the bucket `checkpoints`; `with S3() as s3`."""

    def __enter__(self):
        self.port = free_port()
        environment = dict(os.environ, MOTO_S3_DEFAULT_KEY_BUFFER_SIZE="100000000")
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, "-H", "127.0.0.1", "-p", str(self.port)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self.url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.url}/checkpoints", method="PUT"), timeout=5)
                return self
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.1)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def environment(self, endpoint=None):
        return dict(os.environ, AWS_ENDPOINT_URL=endpoint or self.url, **CREDENTIALS)

    def client(self):
        import boto3
        return boto3.client("s3", endpoint_url=self.url, aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")

    def keys(self, prefix=""):
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket="checkpoints", Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def uploads(self):
        """Multipart uploads that were neither completed nor aborted."""
        return self.client().list_multipart_uploads(Bucket="checkpoints").get("Uploads", [])


SLOW_DOWN = (b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s")


class Proxy:
    """Passes one exchange a connection to `port`. `faults` is called for each with its request line and says what goes
    wrong: None, "503", "500", "cut-request", "cut-answer", "truncate", "hang" or seconds of delay."""

    def __init__(self, port, faults):
        self.port, self.faults, self.lines, self.stopping = port, faults, [], False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.listener.close()

    def accept(self):
        while not self.stopping:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    @staticmethod
    def read_message(sock):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            piece = sock.recv(65536)
            if not piece:
                return None
            body += piece
        return head, body

    def serve(self, client):
        try:
            client.settimeout(DEADLINE_S)
            message = self.read_message(client)
            if message is None:
                return
            head, body = message
            line = head.split(b"\r\n")[0].decode()
            self.lines.append(line)
            fault = self.faults(line)
            if fault in ("503", "500"):
                code = b"SlowDown" if fault == "503" else b"InternalError"
                xml = b"<Error><Code>" + code + b"</Code><Message>try again</Message></Error>"
                client.sendall((SLOW_DOWN % (len(xml), xml)).replace(b"503 Slow Down", fault.encode() + b" Fault"))
                return
            if fault == "cut-request":
                return
            if fault == "hang":
                time.sleep(DEADLINE_S)
                return
            if isinstance(fault, (int, float)):
                time.sleep(fault)
            # One exchange a connection: what goes wrong belongs to one request.
            lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(b"connection:")] + [b"Connection: close"]
            with socket.create_connection(("127.0.0.1", self.port), DEADLINE_S) as server:
                server.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
                answer = b""
                while piece := server.recv(65536):
                    answer += piece
            if fault == "cut-answer":
                return
            if fault == "truncate" and not line.startswith("HEAD"):
                answer = answer[:max(1, len(answer) - 1 - len(answer) // 3)]
            client.sendall(answer)
        except OSError:
            pass
        finally:
            client.close()


def seeded_faults(seed, share):
    """A fault for about that share of the exchanges, the same ones for the same seed and order."""
    rng = random.Random(seed)
    kinds = ["503", "500", "cut-request", "cut-answer", "truncate", 0.05]
    lock = threading.Lock()

    def fault(_line):
        with lock:
            return rng.choice(kinds) if rng.random() < share else None
    return fault
