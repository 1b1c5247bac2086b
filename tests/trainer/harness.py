"""What the whole-program tests of ll-trainer share: a tiny model, token files, running one rank or a gang.

Every test file runs by itself: `python FILE --trainer PATH [--seed N]`; the seed is printed.
"""
import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

DEADLINE_S = 120
TRAINER = None
SEED = 0


def config(**changes):
    c = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 48,
        "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
        "head_dim": 8, "vocab_size": 96, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "initializer_range": 0.2, "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 1,
        "eos_token_id": 2, "attention_bias": False, "mlp_bias": False,
    }
    c.update(changes)
    return c


class TrainerTest(unittest.TestCase):
    """A temporary folder with a tiny model in `model` and 4000 tokens in `data.bin`."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ll-trainer-test-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.model = self.make_model("model")
        self.data = self.make_tokens("data.bin", 4000)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def make_model(self, name, **changes):
        with open(self.path(name + ".config.json"), "w") as f:
            json.dump(config(**changes), f)
        done = run("init", "--config", self.path(name + ".config.json"), "--out", self.path(name), "--seed", SEED)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.path(name)

    def make_tokens(self, name, count, vocab=96, documents=None):
        rng = random.Random(SEED)
        # A short cycle with noise: something a model can learn.
        ids = [(7 * i + rng.randrange(3)) % (vocab - 3) + 3 for i in range(count)]
        with open(self.path(name), "wb") as f:
            f.write(struct.pack(f"<{count}H", *ids))
        if documents:
            with open(self.path(name + ".json"), "w") as f:
                json.dump({"dtype": "uint16", "token_count": count, "documents": documents}, f)
        return self.path(name)

    def write_spec(self, name="job.yaml", **changes):
        spec = {
            "model": self.model, "data": self.data, "method": "longlora", "context_length": 64, "global_batch_size": 4,
            "max_steps": 8, "save_steps": 2, "learning_rate": 0.01, "warmup_steps": 2, "seed": 5, "precision": "fp32",
            "save_total_limit": 0,
        }
        spec.update(changes)
        with open(self.path(name), "w") as f:
            json.dump({k: v for k, v in spec.items() if v is not None}, f)  # JSON is YAML
        return self.path(name)


def run(*args, timeout=DEADLINE_S, **options):
    return subprocess.run([TRAINER, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout, **options)


def train(spec, out, *more, **options):
    return run("train", "--spec", spec, "--out", out, "--threads", 1, *more, **options)


def events_of(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def read(*parts, mode="r"):
    with open(os.path.join(*parts), mode) as f:
        return f.read()


def losses(events):
    """Step -> loss and gradient norm, the newest report of a step counting."""
    return {e["step"]: (e["loss"], e["grad_norm"]) for e in events if e["event"] == "step"}


class Gang:
    """Ranks started as ll-worker starts them: events on one inherited descriptor, control lines on another.

    `out`: a folder, or one for each rank.
    """

    def __init__(self, spec, out, world, more=(), nonce="test", environments=None, epoch=1):
        self.ranks, self.events, self.controls, self.threads = [], [[] for _ in range(world)], [], []
        self.ready = threading.Condition()
        for rank in range(world):
            event_read, event_write = os.pipe()
            control_read, control_write = os.pipe()
            self.controls.append(control_write)
            folder = out[rank] if isinstance(out, list) else out
            args = [TRAINER, "run", "--spec", spec, "--out", folder, "--rank", rank, "--world", world, "--epoch", epoch,
                    "--nonce", nonce, "--events-fd", event_write, "--control-fd", control_read, "--threads", 1, *more]
            self.ranks.append(subprocess.Popen(list(map(str, args)), pass_fds=[event_write, control_read],
                                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                               env={**os.environ, **environments[rank]} if environments else None))
            os.close(event_write)
            os.close(control_read)
            self.threads.append(threading.Thread(target=self._read, args=(rank, event_read), daemon=True))
            self.threads[-1].start()

    def _read(self, rank, fd):
        with os.fdopen(fd) as stream:
            for line in stream:
                try:
                    event = json.loads(line)
                except ValueError:  # a kill cut it
                    continue
                if event["event"] == "rendezvous":
                    told = json.dumps({"rendezvous": event["address"]}) + "\n"
                    for control in self.controls[1:]:
                        try:
                            os.write(control, told.encode())
                        except BrokenPipeError:  # that rank was killed before it could hear
                            pass
                with self.ready:
                    self.events[rank].append(event)
                    self.ready.notify_all()

    def wait_for(self, wanted, rank=0):
        with self.ready:
            if not self.ready.wait_for(lambda: any(map(wanted, self.events[rank])), DEADLINE_S):
                raise AssertionError(f"rank {rank} never reported what the test waits for")

    def wait(self):
        codes = [p.wait(DEADLINE_S) for p in self.ranks]
        for thread in self.threads:
            thread.join(DEADLINE_S)
        self.stderr = [p.stderr.read() for p in self.ranks]
        for p in self.ranks:
            p.stderr.close()
        for control in self.controls:
            os.close(control)
        return codes


def kill_at_step(args, step, sig=signal.SIGKILL, **how):
    """Runs a stand-alone trainer and signals it as soon as it reports `step`."""
    process = subprocess.Popen([TRAINER, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **how)
    watchdog = threading.Timer(DEADLINE_S, process.kill)
    watchdog.start()
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "step" and events[-1]["step"] == step:
            process.send_signal(sig)
            if sig == signal.SIGKILL:
                break
    process.stdout.close()
    code = process.wait()
    watchdog.cancel()
    return code, events


def main():
    global TRAINER, SEED
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1000)
    known, rest = parser.parse_known_args()
    # Test files import this module by name, not as __main__.
    module = sys.modules["harness"]
    module.TRAINER, module.SEED = known.trainer, known.seed
    print(f"seed {known.seed}", flush=True)
    unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2)
