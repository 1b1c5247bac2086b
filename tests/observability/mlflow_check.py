#!/usr/bin/env python3
"""A real MLflow tracking server is told of a real training, and its own client reads it back. By hand: MLflow is not part of the tests' environment.

  mlflow_check.py BIN_DIR MLFLOW_PYTHON   the Python of an environment in which `pip install mlflow` was run
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / folder) for folder in ("cli", "support")]
PYTHON = pathlib.Path(sys.argv.pop(2)).absolute()
from service import DEADLINE_S, ServiceCase  # noqa: E402
from waiting import free_port  # noqa: E402

STEPS = 12
READ = """
import json, sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("ll")
runs = client.search_runs([experiment.experiment_id])
print(json.dumps([{"name": run.info.run_name, "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
                   "loss": [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, "train/loss")]} for run in runs]))
print(mlflow.__version__)
"""


class MlflowCheck(ServiceCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="ll-mlflow-", ignore_cleanup_errors=True)
        cls.addClassCleanup(folder.cleanup)
        port = free_port()
        cls.url = f"http://127.0.0.1:{port}"
        cls.log = pathlib.Path(folder.name) / "log"
        with open(cls.log, "w") as log:
            server = subprocess.Popen([PYTHON.parent / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                                       "--backend-store-uri", f"sqlite:///{folder.name}/mlflow.db", "--default-artifact-root", folder.name],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder.name)
        cls.addClassCleanup(server.wait, DEADLINE_S)
        cls.addClassCleanup(server.terminate)
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(cls.url + "/health", timeout=5)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the server does not come up: {error}\n{cls.log.read_text()[-2000:]}") from error
                time.sleep(0.5)
        cls.COORDINATOR = ("--mlflow", cls.url)
        super().setUpClass()
        cls.make_data()

    def runs(self):
        read = subprocess.run([PYTHON, "-c", READ, self.url], capture_output=True, text=True, timeout=120, check=True, env={"PATH": "/usr/bin:/bin"})
        runs, version, *_ = read.stdout.splitlines()
        return json.loads(runs), version

    def test_what_the_client_reads_is_what_the_job_did(self):
        job = self.llctl("-o", "name", "submit", "--model", self.model, "--data", self.root / "text.bin", "--ctx", 256, "--steps", STEPS,
                         "--name", "told").stdout.strip()
        told = {step["step"]: step["loss"] for step in self.await_result(job)["steps"]}
        deadline = time.monotonic() + DEADLINE_S
        while True:
            runs, version = self.runs()
            if runs and runs[0]["status"] == "FINISHED":
                break
            self.assertLess(time.monotonic(), deadline, f"{runs}\n{self.log.read_text()[-2000:]}")
            time.sleep(1)
        self.assertEqual(len(runs), 1)
        self.assertEqual(runs[0]["tags"]["ll.job_id"], job)
        self.assertEqual(runs[0]["params"]["max_steps"], str(STEPS))
        self.assertEqual(dict(runs[0]["loss"]), told)
        print(f"mlflow {version}: run {runs[0]['name']}, {len(runs[0]['params'])} parameters, {len(runs[0]['loss'])} losses equal the job's")


if __name__ == "__main__":
    unittest.main(verbosity=2)
