#!/usr/bin/env python3
"""llctl against a real coordinator: what is accepted, refused and found again, exit codes, times.

  cli_test.py BIN_DIR   (with llctl and ll-coordinator)
"""
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import urllib.error
import urllib.request

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "torch_dtype": "float32", "hidden_act": "silu",
}
# Loaded machines are slower than the targets; a regression by this factor is no load.
SLACK = 5


class Coordinator:
    """One ll-coordinator process on free ports."""

    def __init__(self, data_dir, listen="127.0.0.1:0"):
        self.log = open(data_dir.with_suffix(".log"), "ab")
        started = time.monotonic()
        self.process = subprocess.Popen(
            [BIN / "ll-coordinator", "--listen", listen, "--http", "127.0.0.1:0", "--data-dir", data_dir],
            stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, text=True)
        self.line = self.process.stdout.readline()
        self.seconds_to_serve = time.monotonic() - started
        assert "serving" in self.line, self.line
        self.address = dict(part.split("=", 1) for part in self.line.split() if "=" in part)["grpc"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self):
        self.process.terminate()
        return self.wait()

    def wait(self):
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        self.log.close()
        return code


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ll-cli-")
        cls.root = pathlib.Path(cls.folder.name)
        cls.model = cls.root / "tiny"
        cls.model.mkdir()
        (cls.model / "config.json").write_text(json.dumps(TINY_LLAMA))
        cls.data = cls.root / "tokens.bin"
        cls.data.write_bytes(bytes(2 * 8192))
        cls.data_dir = cls.root / "coordinator"
        cls.coordinator = Coordinator(cls.data_dir)

    @classmethod
    def tearDownClass(cls):
        cls.coordinator.stop()
        cls.folder.cleanup()

    def llctl(self, *arguments, code=0, environment=None):
        run = subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                             stdin=subprocess.DEVNULL, cwd=self.root,
                             env={"PATH": os.environ["PATH"], "HOME": str(self.root), "LL_DATA_DIR": str(self.data_dir),
                                  **(environment or {})})
        self.assertEqual(run.returncode, code, f"{arguments}: {run.stdout}{run.stderr}")
        if code != 0 and code != 2:
            self.assertEqual(run.stderr.count("\n"), 1, run.stderr)
        return run

    def refused(self, *arguments, code):
        """The error of a command with -o json."""
        error = json.loads(self.llctl(*arguments, "-o", "json", code=code).stderr)
        self.assertEqual(sorted(error), ["code", "field", "hint", "message"])
        return error

    def register(self):
        self.llctl("models", "add", "tiny", self.model)
        self.llctl("data", "add", "tokens", self.data, "--default")

    def submit(self, *arguments):
        return json.loads(self.llctl("submit", "--model", "tiny", "--ctx", 512, "--data", "tokens", *arguments,
                                     "-o", "json").stdout)

    def test_a_known_shape_without_weights_is_refused(self):
        error = self.refused("submit", "--model", "70b", "--ctx", 32768, code=3)
        self.assertEqual(error["code"], "FAILED_PRECONDITION")
        self.assertIn("llctl models add 70b", error["message"] + error["hint"])

    def test_bad_input_names_its_field(self):
        self.register()
        for field, code, arguments in [
                ("model", (2, 8), ("--model", "nobody-knows-this", "--ctx", 512)),
                ("context_length", (2,), ("--model", "tiny", "--ctx", 128)),
                ("context_length", (2,), ("--model", "tiny", "--ctx", 0)),
                ("data", (2, 8), ("--model", "tiny", "--ctx", 512, "--data", "/nowhere.bin")),
        ]:
            run = subprocess.run([BIN / "llctl", "submit", *map(str, arguments), "-o", "json"], text=True, timeout=60,
                                 capture_output=True, cwd=self.root,
                                 env={"PATH": os.environ["PATH"], "LL_DATA_DIR": str(self.data_dir)})
            self.assertIn(run.returncode, code, (arguments, run.stderr))
            self.assertEqual(json.loads(run.stderr)["field"], field, run.stderr)

    def test_unknown_jobs_are_exit_8(self):
        for command in ("get", "watch", "logs", "cancel", "pause", "resume", "why"):
            self.assertEqual(self.refused(command, "job-ffffffffffff", code=8)["code"], "NOT_FOUND")

    def test_tokens(self):
        wrong = {"LLCTL_TOKEN": "wrong"}
        self.llctl("list", code=6, environment=wrong)
        self.llctl("list", code=6, environment={"LL_DATA_DIR": "/nowhere", "LLCTL_COORDINATOR": self.coordinator.address})
        self.llctl("list", "--token-file", self.data_dir / "token", environment=wrong)
        self.assertEqual((self.data_dir / "token").stat().st_mode & 0o777, 0o600)

    def test_request_ids(self):
        self.register()
        first = self.submit("--request-id", "once")
        self.assertEqual(self.submit("--request-id", "once")["job_id"], first["job_id"])
        self.assertEqual(self.refused("submit", "--model", "tiny", "--ctx", 1024, "--data", "tokens",
                                      "--request-id", "once", code=9)["code"], "ALREADY_EXISTS")

    def test_what_was_acknowledged_is_there_after_kill_9(self):
        self.register()
        jobs = [self.submit("--name", f"n{i}", "--request-id", f"kill-{i}")["job_id"] for i in range(5)]
        self.coordinator.kill()
        self.llctl("list", code=4)
        type(self).coordinator = Coordinator(self.data_dir, self.coordinator.address)
        print(f"restart to serving: {self.coordinator.seconds_to_serve:.3f} s (target 1 s)")
        self.assertLess(self.coordinator.seconds_to_serve, 1 * SLACK)
        listed = self.llctl("list", "--all", "-o", "name").stdout.split()
        self.assertEqual(sorted(set(jobs) - set(listed)), [])
        self.assertEqual(len(listed), len(set(listed)))
        self.assertEqual(self.submit("--name", "n3", "--request-id", "kill-3")["job_id"], jobs[3])

    def test_cancel_ends_a_queued_job(self):
        self.register()
        job = self.submit()["job_id"]
        self.assertIn(json.loads(self.llctl("get", job, "-o", "json").stdout)["state"], ("QUEUED", "BLOCKED"))
        self.assertTrue(self.llctl("why", job).stdout.strip())
        self.llctl("cancel", job, "--reason", "no longer wanted")
        watched = subprocess.run([BIN / "llctl", "watch", job], capture_output=True, text=True, timeout=30,
                                 env={"PATH": os.environ["PATH"], "LL_DATA_DIR": str(self.data_dir)})
        self.assertEqual(watched.returncode, 7, watched.stderr)
        got = json.loads(self.llctl("get", job, "--history", "-o", "json").stdout)
        self.assertEqual(got["state"], "CANCELLED")
        self.assertEqual(got["history"][-1]["state"], "CANCELLED")

    def test_the_schema_of_a_job(self):
        self.register()
        job = json.loads(self.llctl("get", self.submit("--name", "schema")["job_id"], "-o", "json").stdout)
        for key, kind in {"job_id": str, "state": str, "reason": str, "epoch": int, "retries": int, "submitted": str,
                          "workers": list, "spec": dict, "resolved_spec": dict, "forecast": dict}.items():
            self.assertIsInstance(job.get(key), kind, key)
        self.assertEqual(job["spec"]["context_length"], 512)
        self.assertRegex(job["submitted"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$")

    def test_lists(self):
        self.assertIsInstance(json.loads(self.llctl("workers", "list", "-o", "json").stdout), list)
        self.assertLessEqual({"7b", "13b", "70b"}, set(self.llctl("models", "list", "-o", "name").stdout.split()))
        self.register()
        self.assertIn("tokens", self.llctl("data", "list", "-o", "name").stdout.split())
        self.assertIn("coordinator", json.loads(self.llctl("version", "-o", "json").stdout))

    def test_programs_name_themselves_with_their_version(self):
        for program in ("llctl", "ll-coordinator"):
            shown = subprocess.run([BIN / program, "--version"], capture_output=True, text=True, timeout=20)
            self.assertRegex(shown.stdout, rf"^{program} \d+\.\d+\.\d+\n$")
            self.assertEqual((shown.returncode, shown.stderr), (0, ""))

    def test_times(self):
        self.register()

        def median_ms(*arguments):
            times = []
            for _ in range(15):
                started = time.monotonic()
                self.llctl(*arguments)
                times.append(1e3 * (time.monotonic() - started))
            return statistics.median(times)

        for name, target, arguments in [
                ("--help", 20, ("--help",)), ("list", 50, ("list",)), ("submit", 20, ("submit", "--model", "tiny", "--ctx", 512, "--data", "tokens"))]:
            measured = median_ms(*arguments)
            print(f"llctl {name}: {measured:.1f} ms (target {target} ms)")
            self.assertLess(measured, target * SLACK)

    def test_metrics_and_health_over_http(self):
        self.register()
        self.submit("--model", "tiny", "--ctx", "1024")
        endpoints = json.loads((self.data_dir / "endpoints.json").read_text())

        def get(path):
            with urllib.request.urlopen(f"http://{endpoints['http']}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()

        self.assertEqual(get("/healthz")[0], 200)
        status, text = get("/metrics")
        self.assertEqual(status, 200)
        for line in text.splitlines():  # the text format of Prometheus
            self.assertRegex(line, r'^(# (HELP|TYPE) \w+ .+|\w+(\{.*\})? \S+)$')
        deadline = time.monotonic() + 10  # gauges follow once a second
        while not re.search(r'(?m)^ll_jobs\{state="QUEUED"\} [1-9]', text) and time.monotonic() < deadline:
            time.sleep(0.1)
            text = get("/metrics")[1]
        self.assertRegex(text, r'(?m)^ll_jobs\{state="QUEUED"\} [1-9]')
        self.assertIn("<h1>Log in</h1>", get("/jobs")[1])  # the web page, without a token
        token = (self.data_dir / "token").read_text().strip()
        for path, header, code in (("/nothing", f"Bearer {token}", 404), ("/jobs", "Bearer no", 401)):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(f"http://{endpoints['http']}{path}", headers={"Authorization": header}), timeout=10)
            self.assertEqual(refused.exception.code, code)

    def test_a_port_in_use_is_one_line(self):
        run = subprocess.run([BIN / "ll-coordinator", "--listen", self.coordinator.address, "--http", "127.0.0.1:0",
                              "--data-dir", self.root / "second"], capture_output=True, text=True, timeout=30)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(self.coordinator.address, run.stderr)

    def test_metrics_beyond_loopback_are_refused(self):
        for program, more in (("ll-coordinator", ("--listen", "127.0.0.1:0", "--data-dir")), ("ll-worker", ("--work-dir",))):
            run = subprocess.run([BIN / program, "--http", "0.0.0.0:0", *more, self.root / "third"], capture_output=True, text=True, timeout=30)
            self.assertNotEqual(run.returncode, 0)
            self.assertIn("0.0.0.0:0 is not on loopback", run.stderr, program)
            self.assertFalse((self.root / "third").exists())

    def test_a_data_folder_in_use_is_refused(self):
        run = subprocess.run([BIN / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                              "--data-dir", self.data_dir], capture_output=True, text=True, timeout=30)
        self.assertNotEqual(run.returncode, 0)

    def test_what_cannot_be_written_is_an_error(self):
        for arguments in (["version", "--client"], ["models", "list", "-o", "json"], ["--help"]):
            with open("/dev/full", "w") as full:
                run = subprocess.run([BIN / "llctl", "--coordinator", self.coordinator.address, *arguments], stdout=full,
                                     stderr=subprocess.PIPE, text=True, timeout=60, env=dict(os.environ, LL_DATA_DIR=str(self.data_dir)))
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn("stdout: cannot be written", run.stderr)
            self.assertEqual(run.stderr.count("\n"), 1, run.stderr)

    def test_ctrl_c_at_the_hidden_token_gives_the_terminal_back(self):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        echoes = lambda: bool(termios.tcgetattr(theirs)[3] & termios.ECHO)
        process = subprocess.Popen([BIN / "llctl", "--coordinator", self.coordinator.address, "login"], stdin=theirs, stdout=theirs,
                                   stderr=subprocess.PIPE, start_new_session=True, env=dict(os.environ, HOME=str(self.root)),
                                   preexec_fn=lambda: (fcntl.ioctl(0, termios.TIOCSCTTY, 0), signal.signal(signal.SIGINT, signal.SIG_DFL)))
        self.addCleanup(os.close, theirs)
        self.addCleanup(process.stderr.close)
        self.assertTrue(echoes())
        deadline = time.monotonic() + 20
        while echoes():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        os.write(ours, b"\x03")
        self.assertEqual(process.wait(timeout=20), 130)
        self.assertTrue(echoes())

    def test_a_token_from_a_file_is_not_asked_for(self):
        run = subprocess.run([BIN / "llctl", "--coordinator", self.coordinator.address, "login"], input="not-a-token\n", capture_output=True,
                             text=True, timeout=60, env=dict(os.environ, HOME=str(self.root)))
        self.assertNotEqual(run.returncode, 0)
        self.assertNotIn("Token:", run.stderr)

    def test_what_changes_contexts_and_tokens_answers_in_json(self):
        context = json.loads(self.llctl("-o", "json", "--coordinator", "h:1", "config", "set-context", "lab").stdout)
        self.assertEqual((context["name"], context["coordinator"], context["current"]), ("lab", "h:1", False))
        self.assertTrue(json.loads(self.llctl("-o", "json", "config", "use-context", "lab").stdout)["current"])
        self.assertEqual(self.llctl("-o", "name", "config", "use-context", "lab").stdout, "lab\n")
        tokens = self.root / "some-tokens"
        made = json.loads(self.llctl("-o", "json", "token", "create", "--tokens", tokens, "--user", "u").stdout)
        gone = json.loads(self.llctl("-o", "json", "token", "revoke", "--tokens", tokens, made["id"]).stdout)
        self.assertEqual((gone["id"], gone["user"]), (made["id"], "u"))
        (self.root / ".config/ll/config.yaml").unlink()

    # ---- an agent that ends

    def worker(self, name, *flags, work_dir):
        return subprocess.Popen([BIN / "ll-worker", "--coordinator", self.coordinator.address, "--http", "127.0.0.1:0", "--name", name,
                                 "--work-dir", self.root / work_dir, "--cpu-slots", "1", *flags], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                env=dict(os.environ, LL_DATA_DIR=str(self.data_dir)))

    def test_an_agent_that_gives_up_does_not_say_that_it_tries_again(self):
        first = self.worker("twin", work_dir="twin-1")
        self.addCleanup(first.stdout.close)
        self.addCleanup(first.stderr.close)
        self.addCleanup(first.wait)
        self.addCleanup(first.terminate)
        while "welcomed" not in first.stderr.readline():
            self.assertIsNone(first.poll())
        # A taken name is waited for, 15 s, and not for a coordinator that answers.
        _, said = self.worker("twin", work_dir="twin-2").communicate(timeout=60)
        self.assertIn("a live worker on host", said)
        self.assertNotIn("does it run there", said)
        token = self.root / "wrong-token"
        token.touch(mode=0o600)
        token.write_text("wrong")
        refused = self.worker("stranger", "--token-file", token, work_dir="stranger")
        _, said = refused.communicate(timeout=60)
        self.assertEqual(refused.returncode, 6, said)
        self.assertIn("ll-worker: token: the token is not known here", said)
        self.assertNotIn("tried again", said)

    def test_an_agent_that_measures_its_slots_ends_at_once(self):
        trainer = self.root / "slow-trainer"
        trainer.write_text(f"#!/bin/sh\necho $$ > {self.root}/measuring\nexec sleep 300\n")
        trainer.chmod(0o755)
        for kind in (signal.SIGTERM, signal.SIGINT):
            pid_file = self.root / "measuring"
            pid_file.unlink(missing_ok=True)
            agent = self.worker("measured", "--probe-days", "1", "--trainer", trainer, work_dir="measured")
            deadline = time.monotonic() + 30
            while not (pid_file.exists() and pid_file.read_text().strip()):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            agent.send_signal(kind)
            agent.communicate(timeout=20)
            self.assertEqual(agent.returncode, -kind)
            while os.path.exists(f"/proc/{pid_file.read_text().strip()}"):  # the kernel ends it too
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)


if __name__ == "__main__":
    unittest.main()
