"""An endpoint for webhooks: verifies each signature as a receiver does, keeps what came, and answers as it is told."""
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time

TOLERANCE_S = 300  # docs/webhooks.md


def signature(secret, identity, timestamp, body):
    digest = hmac.new(secret, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def verified(secrets, headers, body, now):
    """What docs/webhooks.md asks a receiver to check."""
    identity, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(now - int(stamp)) > TOLERANCE_S:
        return False
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(signature(secret, identity, stamp, body), one) for secret in secrets for one in given)


class Receiver:
    def __init__(self, secrets):
        self.secrets = secrets
        self.lock = threading.Lock()
        self.events = []  # (id, body, answered status)
        self.unsigned = 0
        self.answer = lambda event, attempt: 204  # or (status, headers)
        self.attempts = {}
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = receiver.take(dict((k.lower(), v) for k, v in self.headers.items()), body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, headers, body):
        with self.lock:
            if not verified(self.secrets, headers, body, time.time()):
                self.unsigned += 1
                return 401, {}
            event = json.loads(body)
            assert event["id"] == headers["webhook-id"]
            self.attempts[event["id"]] = self.attempts.get(event["id"], 0) + 1
            answer = self.answer(event, self.attempts[event["id"]])
            status, more = answer if isinstance(answer, tuple) else (answer, {})
            self.events.append((event["id"], event, status))
            return status, more

    def taken(self):
        """The events that were answered with success, in order, repeated ones too."""
        with self.lock:
            return [event for _, event, status in self.events if 200 <= status < 300]

    def of(self, job):
        return [event for event in self.taken() if event["data"]["job_id"] == job]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
