"""Where the documents' commands run: a folder and a network of their own, a coordinator, a worker, a tiny model.

Importing takes BIN_DIR from the command line, as tests/cli/service.py does.
"""
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys

import blocks

sys.path.insert(0, str(blocks.ROOT / "tests/cli"))
from service import BIN, CONFIG, TEMPLATE, tokenizer  # noqa: E402

DEADLINE_S = 240  # for a busy machine; a block takes seconds
IN_NETWORK = "LL_DOCS_NETWORK"


def own_network(arguments):
    """Starts this program again, with `arguments`, in a network namespace with nothing but loopback, so that the documents' port numbers are free. Where none can be
    made (no unprivileged namespaces), it goes on without."""
    if os.environ.get(IN_NETWORK) is None:
        os.environ[IN_NETWORK] = "0"
        if subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True, check=False).returncode == 0:
            os.environ[IN_NETWORK] = "1"
            os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--net", sys.executable, sys.argv[0], str(BIN), *arguments])
    if os.environ[IN_NETWORK] == "1":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
            fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS


def make_files(root):
    """What readers bring: a model, a text, a token file, instructions."""
    model = root / "models/SmolLM2-135M"
    (root / "config.json").write_text(json.dumps(CONFIG))
    (root / "models").mkdir()
    subprocess.run([BIN / "ll-trainer", "init", "--config", root / "config.json", "--out", model, "--seed", "3"], check=True,
                   capture_output=True, timeout=DEADLINE_S)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}))
    draw = random.Random(7)
    words = ["".join(chr(draw.randrange(97, 123)) for _ in range(draw.randrange(1, 9))) for _ in range(3000)]
    files = root / "files"
    (files / "corpus").mkdir(parents=True)
    (files / "data").mkdir()
    (files / "book.txt").write_text(" ".join(words))
    (files / "corpus/a.txt").write_text(" ".join(words[:800]))
    (files / "alpaca.json").write_text(json.dumps([{"instruction": "Say it.", "output": word} for word in words[:50]]))
    subprocess.run([BIN / "llctl", "data", "pack", files / "book.txt", "--tokenizer", model, "--out", files / "data/book.bin"], check=True,
                   capture_output=True, timeout=DEADLINE_S)
    for name in ("tests", "deploy", "docs"):
        (files / name).symlink_to(blocks.ROOT / name)
    (files / "build").mkdir()
    (files / "build/bin").symlink_to(BIN)
    (files / "models").symlink_to(root / "models")


class Place:
    """`shell`, `coordinator` or `cluster`: an environment and what runs in it."""

    def __init__(self, kind, root):
        self.kind = kind
        self.root = root
        self.folder = root / kind
        self.processes = []
        shutil.copytree(root / "files", self.folder, symlinks=True)
        self.variables = self.folder / ".variables"
        self.environment = {"HOME": str(self.folder), "PATH": f"{BIN}:{os.environ['PATH']}", "LANG": "C.UTF-8", "NO_COLOR": "1",
                            "MODEL": str(root / "models/SmolLM2-135M"), "SANDBOX": str(self.folder)}
        try:
            if kind != "shell":
                self._start_coordinator()
            if kind == "cluster":
                self._start_worker()
        except BaseException:
            self.stop()
            shutil.rmtree(self.folder)
            raise

    def _start(self, name, *arguments):
        process = subprocess.Popen([BIN / name, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   stdin=subprocess.DEVNULL, text=True, env=self.environment, start_new_session=True)
        self.processes.append(process)
        return process.stdout.readline()

    def _start_coordinator(self):
        self.environment["LL_DATA_DIR"] = str(self.folder / "coordinator")
        line = self._start("ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.folder / "coordinator")
        self.address = dict(part.split("=", 1) for part in line.split() if "=" in part)["grpc"]
        self.environment["LLCTL_COORDINATOR"] = self.address
        if self.kind == "coordinator":
            for name in ("books", "book"):
                self.llctl("data", "add", name, self.folder / "data/book.bin", *(["--default"] if name == "books" else []))
            # As if their weights were there: to accept a job, the shape suffices.
            for model in json.loads(self.llctl("-o", "json", "models", "list")):
                if model["name"] in ("7b", "70b"):
                    folder = self.folder / "models-of-size" / model["name"]
                    folder.mkdir(parents=True)
                    (folder / "config.json").write_text(model["config_json"])
                    self.llctl("models", "add", model["name"], folder)

    def _start_worker(self):
        self._start("ll-worker", "--coordinator", self.address, "--http", "127.0.0.1:0", "--work-dir", self.folder / "w1", "--name", "w1",
                    "--cpu-slots", 2, "--trainer-threads", 1)
        self.llctl("models", "add", "smollm2", self.environment["MODEL"])
        self.llctl("data", "add", "book", self.folder / "data/book.bin", "--default")

    def llctl(self, *arguments):
        run = subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S,
                             env=self._variables(), check=False)
        if run.returncode != 0:
            raise AssertionError(f"llctl {arguments}: {run.returncode}: {run.stdout}{run.stderr}")
        return run.stdout

    def _variables(self):
        """The environment with what earlier blocks exported."""
        out = dict(self.environment)
        if self.variables.exists():
            out.update(part.split("=", 1) for part in self.variables.read_text().split("\0") if "=" in part)
        return out

    def job(self):
        """The newest training; in a cluster, the newest that has ended well. One is made where a page wants the first."""
        return self._newest() or self._submit() or self._newest()

    def _submit(self):
        if self.kind == "cluster":
            self.llctl("submit", "--model", "smollm2", "--ctx", 512, "--steps", 2, "--name", "first", "--watch")
        else:
            self.llctl("submit", "--model", "7b", "--ctx", 8192, "--name", "first")

    def _newest(self):
        jobs = json.loads(self.llctl("-o", "json", "list"))
        fits = [job for job in jobs if job["spec"].get("kind", "train") == "train" and (self.kind != "cluster" or job["state"] == "SUCCEEDED")]
        return fits[0]["job_id"] if fits else None

    def run(self, text):
        """(exit status, output) of commands. What they start in the background runs on until `stop`."""
        if re.search(r"\bJOB\b", text):
            text = re.sub(r"\bJOB\b", self.job(), text)
        script = f"set -euo pipefail\n{text}\nenv -0 > {self.variables}\n"
        output = self.folder / ".output"
        with open(output, "wb") as file:
            process = subprocess.Popen(["bash", "-c", script], cwd=self.folder, env=self._variables(), stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            self.processes.append(process)
            try:
                code = process.wait(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                code = f"none within {DEADLINE_S} s"
        return code, output.read_text(errors="replace")

    def stop(self):
        for process in reversed(self.processes):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                    process.wait(timeout=20)
                    # Of a script that has ended, what it left in the background.
                    if sign == signal.SIGTERM and process.returncode != 0:
                        break
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    pass
            if process.stdout:
                process.stdout.close()
        self.processes.clear()
