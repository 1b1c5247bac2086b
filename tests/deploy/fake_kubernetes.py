"""A stand-in for what ll-scaler meets of Kubernetes: the API server's autoscaling/v1 Scale of one StatefulSet over TLS, and the controller that
starts and ends its pods, highest ordinal first. What it does is written after Kubernetes' documentation; it is no Kubernetes."""
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import time

PATH = "/apis/apps/v1/namespaces/ll/statefulsets/ll-worker/scale"


def make_certificates(folder):
    """ca.crt and a server's pair for 127.0.0.1; other.crt is an authority that signed nothing here."""
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)
    for ca in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={ca}", "-keyout",
                f"{ca}.key", "-out", f"{ca}.crt")
    (pathlib.Path(folder) / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=k", "-keyout", "server.key", "-out", "server.csr")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san", "-out",
            "server.crt")


class FakeKubernetes:
    """`start_pod(ordinal)` returns a process; `on_stop(ordinal)` is called before one is told to end. `token` is what callers must bring."""

    def __init__(self, folder, replicas, start_pod, on_stop=lambda ordinal: None):
        self.folder, self.replicas, self.version = pathlib.Path(folder), replicas, 1
        self.start_pod, self.on_stop, self.token = start_pod, on_stop, "first"
        self.pods, self.lock, self.over = {}, threading.Lock(), threading.Event()
        self.faults = []  # of the calls to come, each at most once: ("PUT", "conflict")
        self.seen = []    # (method, status or fault)

    def __enter__(self):
        make_certificates(self.folder)
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                fake.answer(self, "GET")

            def do_PUT(self):
                fake.answer(self, "PUT")

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        # The handshake is the connection's thread's matter, so that nobody holds up the others.
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # who does not trust the certificate hangs up
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.threads = [threading.Thread(target=self.server.serve_forever), threading.Thread(target=self.control)]
        for thread in self.threads:
            thread.start()
        return self

    def set(self, replicas):
        """As `kubectl scale` does."""
        with self.lock:
            self.replicas, self.version = replicas, self.version + 1

    def take_fault(self, method):
        with self.lock:
            fault = next((fault for fault in self.faults if fault[0] == method), None)
            if fault:
                self.faults.remove(fault)
            return fault[1] if fault else None

    def answer(self, call, method):
        body = json.loads(call.rfile.read(int(call.headers.get("content-length", 0))) or "{}")
        fault = self.take_fault(method)
        if fault == "slow":
            self.over.wait(12)
        elif fault == "cut":
            self.seen.append((method, "cut"))
            call.connection.close()
            call.close_connection = True
            return
        status, answer, headers = self.judge(call, method, body, fault)
        self.seen.append((method, fault or status))
        if fault == "done-and-cut":
            call.close_connection = True
            return
        text = json.dumps(answer).encode()
        try:
            call.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
                call.send_header(name, value)
            call.end_headers()
            call.wfile.write(text)
        except OSError:
            call.close_connection = True  # who asked has gone

    def judge(self, call, method, body, fault):
        def refusal(code, message, **headers):
            return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}, headers
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return refusal(401, "Unauthorized")
        if call.path != PATH:
            return refusal(404, "statefulsets.apps not found")
        if isinstance(fault, int):
            return refusal(fault, "injected", **({"Retry-After": "1"} if fault == 429 else {}))
        with self.lock:
            if fault == "conflict":
                self.version += 1
            if method == "PUT":
                if body.get("kind") != "Scale" or body["metadata"]["name"] != "ll-worker":
                    return refusal(422, "the object is no Scale of ll-worker")
                if body["metadata"]["resourceVersion"] != str(self.version):
                    return refusal(409, "the object has been modified; please apply your changes to the latest version and try again")
                self.replicas, self.version = body["spec"].get("replicas", 0), self.version + 1
            return 200, {"kind": "Scale", "apiVersion": "autoscaling/v1",
                         "metadata": {"name": "ll-worker", "namespace": "ll", "uid": "1", "resourceVersion": str(self.version)},
                         "spec": {"replicas": self.replicas} if self.replicas else {},
                         "status": {"replicas": len(self.pods), "selector": "app.kubernetes.io/name=ll-worker"}}, {}

    def control(self):
        """podManagementPolicy: Parallel, as deploy/kubernetes has it."""
        while not self.over.wait(0.05):
            with self.lock:
                wanted = self.replicas
            for ordinal in sorted(set(self.pods) - set(range(wanted)), reverse=True):
                self.on_stop(ordinal)
                self.end(ordinal)
            for ordinal in range(wanted):
                if ordinal not in self.pods:
                    self.pods[ordinal] = self.start_pod(ordinal)

    def end(self, ordinal):
        pod = self.pods.pop(ordinal)
        pod.terminate()
        pod.wait(timeout=60)

    def wait_for_pods(self, count, seconds=40):
        deadline = time.monotonic() + seconds
        while len(self.pods) != count or self.replicas != count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{count} pods expected, found {sorted(self.pods)} and replicas {self.replicas}; {self.seen[-12:]}\n"
                                     + "".join(log.read_text()[-2000:] for log in self.folder.glob("ll-scaler.log")))
            time.sleep(0.05)

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        for thread in self.threads:
            thread.join(60)
        for ordinal in sorted(self.pods):
            self.end(ordinal)
