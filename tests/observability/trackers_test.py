#!/usr/bin/env python3
"""TensorBoard files, MLflow and OpenTelemetry of a real training, through a coordinator that is killed in the middle.

  trackers_test.py BIN_DIR

Collector and tracking server are stand-ins in this process: they check what is sent as the real ones do. Spans are read into OpenTelemetry's own
messages (its Python package of them, from tests/deploy/requirements.lock), which know no other key and no other type. With the package `tensorboard` installed the
event files are read by it too.
"""
import base64
import http.server
import json
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "cli"), str(HERE.parent / "deploy")]
from packages import import_packages  # noqa: E402
from service import BIN, DEADLINE_S, ServiceCase  # noqa: E402

import_packages()
from google.protobuf.json_format import ParseDict, ParseError  # noqa: E402
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: E402

STEPS = 12
IDS = ("traceId", "spanId", "parentSpanId")


def export_request(value):
    """OTLP's JSON as OpenTelemetry's message; it writes ids in hexadecimal, where Protobuf's JSON has base64."""
    def rewritten(part):
        if isinstance(part, dict):
            return {key: base64.b64encode(bytes.fromhex(one)).decode() if key in IDS else rewritten(one) for key, one in part.items()}
        return [rewritten(one) for one in part] if isinstance(part, list) else part
    return ParseDict(rewritten(value), ExportTraceServiceRequest())


class StandIn(http.server.BaseHTTPRequestHandler):
    """Both servers; not the real ones. What comes in is kept in the class."""
    spans, messages, runs, wrong, lock = [], [], {}, [], threading.Lock()

    def log_message(self, *_):
        pass

    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            if self.headers.get("X-Key") != "secret of the file":
                self.wrong.append(f"{self.path}: no key")
            if self.path == "/v1/traces":
                try:
                    self.messages.append(export_request(body))
                except (ParseError, ValueError) as error:
                    self.wrong.append(f"{self.path}: {error}")
                for resource in body["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        self.spans.extend(scope["spans"])
                return self.answer(200, {})
            self.answer(200, self.mlflow(self.path.removeprefix("/api/2.0/mlflow/"), body))

    def mlflow(self, what, body):
        if what == "experiments/create":
            return {"experiment_id": "1"}
        if what == "runs/search":
            wanted = body["filter"].split("'")[1]
            return {"runs": [{"info": {"run_id": run}} for run, kept in self.runs.items() if kept["job"] == wanted]}
        if what == "runs/create":
            run = f"run{len(self.runs)}"
            tags = {tag["key"]: tag["value"] for tag in body["tags"]}
            self.runs[run] = {"job": tags["ll.job_id"], "params": {}, "metrics": [], "status": ""}
            return {"run": {"info": {"run_id": run}}}
        kept = self.runs[body["run_id"]]
        if what == "runs/log-batch":
            kept["metrics"] += body.get("metrics", [])
            kept["params"].update({param["key"]: param["value"] for param in body.get("params", [])})
        if what == "runs/update":
            kept["status"] = body["status"]
        return {}


def records(path):
    """Steps and values of an event file: framing and fields read by hand."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12:at + 12 + length]
        at += 16 + length


class TrackersTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)
        url = f"http://127.0.0.1:{cls.server.server_port}"
        cls.place = tempfile.TemporaryDirectory(prefix="ll-trackers-")
        cls.addClassCleanup(cls.place.cleanup)
        headers = pathlib.Path(cls.place.name) / "headers"
        headers.write_text("X-Key: secret of the file\n")
        cls.boards = pathlib.Path(cls.place.name) / "boards"
        cls.COORDINATOR = ("--tensorboard-dir", cls.boards, "--mlflow", url, "--mlflow-headers", headers, "--otlp-endpoint", url,
                           "--otlp-headers", headers)
        super().setUpClass()
        cls.make_data()

    def restart_coordinator(self):
        old = self.processes[0]
        old.send_signal(signal.SIGKILL)
        old.wait(timeout=DEADLINE_S)
        old.stdout.close()
        listen = self.environment["LLCTL_COORDINATOR"]
        new = self.start("ll-coordinator", "--listen", listen, "--http", "127.0.0.1:0", "--data-dir", self.root / "coordinator", *self.COORDINATOR)
        self.assertIn("serving", new.stdout.readline())
        self.processes.remove(new)
        self.processes[0] = new

    def check_tree(self, spans):
        by_id = {span["spanId"]: span for span in spans}
        self.assertEqual(len(by_id), len(spans), "a span was sent twice")
        for span in spans:
            self.assertRegex(span["traceId"], "^[0-9a-f]{32}$")
            self.assertRegex(span["spanId"], "^[0-9a-f]{16}$")
            self.assertEqual(span["traceId"], spans[0]["traceId"])
            self.assertLessEqual(int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]), span["name"])
            if "parentSpanId" in span:
                self.assertIn(span["parentSpanId"], by_id, span["name"])
        self.assertEqual([span["name"] for span in spans if "parentSpanId" not in span], ["job"])
        return {name: [span for span in spans if span["name"] == name] for name in ("schedule", "attempt 1", "launch", "step")}

    def check_messages(self, messages, spans):
        """What a collector would have made of it."""
        found = []
        for resource in (resource for message in messages for resource in message.resource_spans):
            self.assertIn("ll-coordinator", [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"])
            found += [span for scope in resource.scope_spans for span in scope.spans]
        self.assertEqual(len(found), spans)
        for span in found:
            self.assertEqual((len(span.trace_id), len(span.span_id)), (16, 8), span.name)
            self.assertLessEqual(span.start_time_unix_nano, span.end_time_unix_nano)
        step = next(span for span in found if span.name == "step")
        self.assertIn("double_value", [a.value.WhichOneof("value") for a in step.attributes if a.key == "ll.loss"])
        with self.assertRaises(ParseError):
            export_request({"resourceSpans": [{"scopeSpans": [{"spans": [{"startTime": "1"}]}]}]})

    def test_a_training_is_told_everywhere(self):
        job = self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.root / "text.bin", "--ctx", 256, "--steps", STEPS, "--set",
                         "global_batch_size=8", "--set", "save_steps=1000").stdout.strip()
        self.wait_for(job, lambda j: j.get("progress", {}).get("step", 0) >= 2, "its second step")
        self.restart_coordinator()
        self.await_result(job)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with StandIn.lock:
                ended = any(span["name"] == "job" for span in StandIn.spans) and StandIn.runs and list(StandIn.runs.values())[0]["status"] == "FINISHED"
            if ended:
                break
            time.sleep(0.1)
        with StandIn.lock:
            self.assertEqual(StandIn.wrong, [])
            parts = self.check_tree(list(StandIn.spans))
            self.check_messages(StandIn.messages, len(StandIn.spans))
            runs = list(StandIn.runs.values())
        self.assertEqual([len(parts[name]) for name in ("schedule", "attempt 1", "launch")], [1, 1, 1])
        # What was in the queues of the process that was killed is gone; most steps are there, each once.
        self.assertGreaterEqual(len(parts["step"]), STEPS - 4)
        self.assertEqual(len(runs), 1, "the run was found again")
        self.assertEqual(runs[0]["params"]["max_steps"], str(STEPS))
        losses = {metric["step"]: metric["value"] for metric in runs[0]["metrics"] if metric["key"] == "train/loss"}
        told = {step["step"]: step["loss"] for step in self.get(job)["steps"]}
        self.assertGreaterEqual(len(losses), STEPS - 4)
        for step, loss in losses.items():
            self.assertEqual(loss, told[step])
        files = sorted((self.boards / job).iterdir())
        self.assertGreaterEqual(len(files), 1)
        count = sum(b"train/loss" in record for file in files for record in records(file))
        self.assertGreaterEqual(count, STEPS - 4)
        address = json.loads((self.root / "coordinator" / "endpoints.json").read_text())["http"]
        metrics = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
        self.assertRegex(metrics, r'll_tracker_events_total\{outcome="sent",tracker="otlp"\} [1-9]')
        self.assertIn('ll_tracker_events_total{outcome="lost",tracker="mlflow"} 0', metrics)
        self.read_with_tensorboard(job, told)

    def test_what_is_no_address_is_refused(self):
        run = subprocess.run([BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.root / "other",
                              "--otlp-endpoint", "http://user:hidden@collector:4318"], capture_output=True, text=True, timeout=30)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("otlp-endpoint: expected http://HOST[:PORT][/PATH]", run.stderr)
        self.assertNotIn("hidden", run.stderr)

    def read_with_tensorboard(self, job, told):
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            return  # it is not part of the tests' environment
        board = EventAccumulator(str(self.boards / job))
        board.Reload()
        for scalar in board.Scalars("train/loss"):
            self.assertAlmostEqual(scalar.value, told[scalar.step], places=4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
