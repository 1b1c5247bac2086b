#!/usr/bin/env python3
"""Webhooks of the real coordinator at a real HTTP server: signed, in order, again until taken, at least once across kill -9.

  webhooks_test.py --bin DIR --trainer FAKE_TRAINER [--kills N] [--seed N] [unittest arguments]
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from receiver import Receiver, signature, verified  # noqa: E402
from waiting import await_that  # noqa: E402

DEADLINE_S = 60
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32"}
KEY = b"a key for this test, of thirty-some bytes"
ARGUMENTS = None


class WebhooksTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ll-webhooks-")
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "model").mkdir()
        (self.root / "model" / "config.json").write_text(json.dumps(CONFIG))
        (self.root / "data.bin").write_bytes(b"\1" * 65536)
        self.processes = []
        self.addCleanup(self.stop)
        self.coordinator = None
        self.environment = dict(os.environ, LL_DATA_DIR=str(self.root / "data"), HOME=str(self.root))
        secret = self.root / "secret"
        secret.write_bytes(KEY + b"\n")
        secret.chmod(0o600)

    def receiver(self):
        made = Receiver([KEY])
        self.addCleanup(made.close)
        return made

    def configure(self, **endpoints):
        lines = ["endpoints:"]
        for name, keys in endpoints.items():
            lines.append(f"  {name}:")
            for key, value in {"secret-file": str(self.root / "secret"), "allow-loopback": "true", **keys}.items():
                lines.append(f"    {key.replace('_', '-')}: {value}")
        (self.root / "webhooks.yaml").write_text("\n".join(lines) + "\n")

    def start(self):
        log = open(self.root / "coordinator.log", "ab")
        self.coordinator = subprocess.Popen(
            [ARGUMENTS.bin / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.root / "data",
             "--webhooks", self.root / "webhooks.yaml"], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True)
        log.close()
        line = self.coordinator.stdout.readline()
        where = dict(part.split("=", 1) for part in line.split() if "=" in part)
        self.assertIn("grpc", where, (self.root / "coordinator.log").read_text())
        self.environment["LLCTL_COORDINATOR"], self.http = where["grpc"], where["http"]
        self.processes.append(self.coordinator)

    def kill(self):
        self.coordinator.kill()
        self.coordinator.wait(timeout=DEADLINE_S)

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=DEADLINE_S)
            if process.stdout:
                process.stdout.close()

    def llctl(self, *arguments, code=0):
        run = subprocess.run([ARGUMENTS.bin / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S,
                             env=self.environment)
        if code is not None:
            self.assertEqual(run.returncode, code, run.stderr)
        return run

    def submit(self, *more, code=0):
        run = self.llctl("-o", "json", "submit", "--model", self.root / "model", "--data", self.root / "data.bin", "--ctx", 512, "--steps", 5,
                         "--gpus", 1, *more, code=code)
        return json.loads(run.stdout)["job_id"] if code == 0 else run.stderr

    def metric(self, series):
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(series + " "):
                    return float(line.rsplit(" ", 1)[1])
        return None

    def test_a_job_is_told_from_its_beginning_to_its_end(self):
        all_of_it, named = self.receiver(), self.receiver()
        self.configure(all={"url": all_of_it.url, "all-jobs": "true", "states": "[queued, starting, running, finishing, succeeded]"},
                       ops={"url": named.url})
        self.start()
        worker = subprocess.Popen([ARGUMENTS.bin / "ll-worker", "--coordinator", self.environment["LLCTL_COORDINATOR"], "--http",
                                   "127.0.0.1:0", "--work-dir", self.root / "w1", "--name", "w1", "--cpu-slots", "1", "--slot-memory",
                                   "4000000000", "--trainer", ARGUMENTS.trainer, "--trainer-threads", "1", "--token-file",
                                   self.root / "data" / "token"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  stdin=subprocess.DEVNULL)
        self.processes.append(worker)
        silent = self.submit("--name", "silent")
        told = self.submit("--name", "told", "--labels", "notify=ops")
        await_that(lambda: named.of(told) and len([e for e in all_of_it.taken() if e["type"] == "job.succeeded"]) == 2, "the ends")
        for job in (silent, told):
            events = all_of_it.of(job)
            numbers = [event["data"]["number"] for event in events]
            self.assertEqual(numbers, sorted(set(numbers)))  # in order and once
            types = [event["type"] for event in events]
            self.assertEqual((types[0], types[-1]), ("job.queued", "job.succeeded"))
            self.assertIn("job.running", types)
        self.assertEqual([(event["type"], event["data"]["name"]) for event in named.taken()], [("job.succeeded", "told")])
        self.assertEqual(all_of_it.unsigned + named.unsigned, 0)
        # Counted when the receiver's answer has come back, a moment after the receiver holds the message.
        delivered = 'll_webhook_deliveries_total{endpoint="ops",result="delivered"}'
        await_that(lambda: self.metric(delivered) == 1, "the delivery to be counted")
        # A name that the operator did not give is the user's error, and no way to give a URL.
        for name in ("nobody", "http://127.0.0.1:1/"):
            self.assertIn("labels.notify", self.submit("--labels", f"notify={name}", code=None))

    def test_what_is_not_taken_comes_again_and_holds_up_its_own_job_only(self):
        stubborn, other = [], []
        receiver = self.receiver()
        receiver.answer = lambda event, attempt: 503 if event["data"]["name"] == "stubborn" and attempt < 2 else 204
        self.configure(ops={"url": receiver.url, "all-jobs": "true", "states": "[queued, cancelled]"})
        self.start()
        stubborn = self.submit("--name", "stubborn")
        self.llctl("cancel", stubborn)
        other = self.submit("--name", "other")
        await_that(lambda: len(receiver.of(stubborn)) == 2, "both of the stubborn job")
        types = [event["type"] for event in receiver.taken()]
        self.assertEqual(len(receiver.of(other)), 1)
        first = [event["data"]["job_id"] for event in receiver.taken()].index(other)
        self.assertLess(first, types.index("job.cancelled"), "another job waited")
        self.assertEqual([event["type"] for event in receiver.of(stubborn)], ["job.queued", "job.cancelled"])
        self.assertEqual(receiver.attempts[f"{stubborn}.0"], 2)

    def test_a_redirect_is_no_delivery_and_what_is_never_taken_is_given_up_and_seen(self):
        target, receiver = self.receiver(), self.receiver()
        receiver.answer = lambda event, attempt: (307, {"Location": target.url})
        self.configure(ops={"url": receiver.url, "all-jobs": "true", "states": "[queued]", "give-up-after": "0.2"})
        self.start()
        self.submit()
        dead = 'll_webhook_deliveries_total{endpoint="ops",result="dead"}'
        await_that(lambda: self.metric(dead) == 1, "the message to be given up")
        await_that(lambda: self.metric('ll_webhook_waiting{endpoint="ops"}') == 0, "nothing to wait")
        self.assertEqual(target.attempts, {})
        self.assertIn("redirected (307)", (self.root / "coordinator.log").read_text())
        # It is not begun anew by the next process.
        attempts = dict(receiver.attempts)
        self.kill()
        self.start()
        time.sleep(0.7)
        self.assertEqual(receiver.attempts, attempts)

    def test_kill_9_loses_nothing_and_repeats_at_most_what_was_under_way(self):
        rng = random.Random(ARGUMENTS.seed)
        print(f"seed {ARGUMENTS.seed}", flush=True)
        receiver = self.receiver()
        failing = 0.1 if ARGUMENTS.kills > 10 else 0.0  # each costs a second
        receiver.answer = lambda event, attempt: 500 if rng.random() < failing else 204
        self.configure(ops={"url": receiver.url, "all-jobs": "true", "states": "[queued, cancelled]"})
        self.start()
        before = self.submit()  # told although the process dies at once
        jobs = [before]
        for _ in range(ARGUMENTS.kills):
            for _ in range(rng.randint(1, 3)):
                jobs.append(self.submit())
            self.llctl("cancel", rng.choice(jobs), code=None)
            time.sleep(rng.uniform(0, 0.2))
            self.kill()
            self.start()
        cancelled = {job["job_id"] for job in json.loads(self.llctl("-o", "json", "list", "--all").stdout) if job["state"] == "CANCELLED"}
        wanted = {f"{job}.0" for job in jobs} | {f"{job}.1" for job in cancelled}
        await_that(lambda: {event["id"] for event in receiver.taken()} >= wanted, "every message")
        time.sleep(0.5)
        taken = [event["id"] for event in receiver.taken()]
        self.assertEqual(set(taken), wanted)
        self.assertLessEqual(len(taken) - len(wanted), ARGUMENTS.kills, "more repeated than was under way")
        for job in cancelled:
            numbers = [event["data"]["number"] for event in receiver.of(job)]
            self.assertEqual(numbers, sorted(numbers), "out of order")
        print(f"{ARGUMENTS.kills} kills, {len(wanted)} messages, {len(taken) - len(wanted)} repeated, 0 lost", flush=True)

    def test_the_receivers_check_tells_forgeries(self):
        now, body = int(time.time()), b'{"id":"a"}'
        good = {"webhook-id": "a", "webhook-timestamp": str(now), "webhook-signature": signature(KEY, "a", now, body)}
        self.assertTrue(verified([KEY], good, body, now))
        self.assertTrue(verified([b"older", KEY], {**good, "webhook-signature": "v1,AAAA " + good["webhook-signature"]}, body, now))
        for change in ({"webhook-id": "b"}, {"webhook-timestamp": str(now + 1)}, {"webhook-signature": "v1,AAAA"}, {"webhook-signature": ""}):
            self.assertFalse(verified([KEY], {**good, **change}, body, now), change)
        self.assertFalse(verified([KEY], good, body + b" ", now))
        self.assertFalse(verified([KEY], good, body, now + 301), "a replay of five minutes later")

    def test_a_start_without_what_it_needs_is_refused(self):
        def refused(words):
            run = subprocess.run([ARGUMENTS.bin / "ll-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir",
                                  self.root / "data", "--webhooks", self.root / "webhooks.yaml"], capture_output=True, text=True,
                                 timeout=DEADLINE_S)
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn(words, run.stderr)
            self.assertNotIn(KEY.decode(), run.stderr)

        self.configure(ops={"url": "https://169.254.169.254/"})
        refused("link-local")
        self.configure(ops={"url": "https://hooks.example/"})
        (self.root / "secret").chmod(0o644)
        refused("others may read it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--trainer", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    ARGUMENTS, rest = parser.parse_known_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
