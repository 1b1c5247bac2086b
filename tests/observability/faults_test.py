#!/usr/bin/env python3
"""Five faults of a real cluster, each as its dashboards show it: a rank that stalls, a step that is no number, a straggler, a queue that starves, a dead agent.

  faults_test.py BIN_DIR [--pictures FOLDER]   writes FOLDER/FAULT.svg (docs/pictures: what docs/walkthrough.md shows)

Each fault's alert fires, the table of alerts on ll / Cluster names it, the panels that the walk-through points at show it, and the alert ends when the fault does. Time of the rules is compressed as in service_test.py; the twelve hours of a starving queue are twelve seconds.
"""
import json
import os
import pathlib
import random
import signal
import struct
import sys
import time
import unittest
import xml.etree.ElementTree

import numpy
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / folder) for folder in ("cli", "support")]
PICTURES = None
if "--pictures" in sys.argv:
    at = sys.argv.index("--pictures")
    PICTURES = pathlib.Path(sys.argv[at + 1])
    PICTURES.mkdir(parents=True, exist_ok=True)
    del sys.argv[at:at + 2]

from braked import braked  # noqa: E402
from dashboards import boards, fill_in, panels  # noqa: E402
from prometheus import Prometheus, faster  # noqa: E402
from render import Renderer  # noqa: E402
from service import BIN, DEADLINE_S, ServiceCase  # noqa: E402

PATIENCE_S = 120
BEFORE_S = 30  # of a picture, ahead of the fault
CONTEXT, POISON = 256, 98
CLUSTER = ("ll-cluster", ["Now", "Alerts"])


def processes_of(job, rank=None):
    """Process ids of the job's ranks."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[1:2] == ["run"] and any(job in word for word in words) and rank in (None, int(words[words.index("--rank") + 1])):
            found.append(int(process.name))
    return found


class FaultsTest(ServiceCase):
    COORDINATOR = ("--lease-seconds", 3, "--heartbeat-seconds", 1, "--shared-job-store")
    WORKERS = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.agents = {"w1": cls.start_agent("w1", 3), "w2": cls.start_agent("w2", 1)}
        http = json.loads((cls.root / "coordinator/endpoints.json").read_text())["http"]
        cls.prometheus = Prometheus(cls.root / "prometheus", http)
        cls.addClassCleanup(cls.prometheus.stop)
        alerts = cls.root / "prometheus/rules/alerts.yml"
        assert "12 * 3600" in alerts.read_text()
        alerts.write_text(alerts.read_text().replace("12 * 3600", "12"))
        cls.prometheus.targets("coordinators", [{"targets": [http]}])
        cls.prometheus.targets("workers", [])
        cls.prometheus.start()
        cls.data = cls.make_data()
        cls.make_poisoned()

    @classmethod
    def start_agent(cls, name, slots):
        return cls.start("ll-worker", "--coordinator", cls.environment["LLCTL_COORDINATOR"], "--http", "127.0.0.1:0", "--work-dir", cls.root / name,
                         "--name", name, "--cpu-slots", slots, "--trainer-threads", 1, "--trainer", BIN / "ll-trainer", "--root",
                         f"models={cls.root}", "--job-store", cls.root / "jobs")

    @classmethod
    def make_poisoned(cls):
        """A model in which one token's embedding is infinite, and rows that hold it now and then."""
        cls.poisoned = cls.root / "poisoned"
        cls.poisoned.mkdir()
        for file in cls.model.iterdir():
            (cls.poisoned / file.name).write_bytes(file.read_bytes())
        weights = load_file(cls.model / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
        weights["model.embed_tokens.weight"][POISON] = numpy.inf
        save_file(weights, cls.poisoned / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((cls.model / "config.json").read_text())
        (cls.poisoned / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))

    def submit(self, name, *arguments, model=None, data=None, save_steps=50):
        job = self.llctl("-o", "name", "submit", "--name", name, "--model", model or self.model, "--data", data or self.data, "--ctx", CONTEXT,
                         "--precision", "fp32", "--seed", 5, "--steps", 1000000, "--set", f"save_steps={save_steps}", *arguments).stdout.strip()
        self.addCleanup(self.cancel, job)
        return job

    def cancel(self, job):
        self.llctl("cancel", job)
        deadline = time.monotonic() + DEADLINE_S
        while json.loads(self.llctl("-o", "json", "get", job).stdout)["state"] not in ("CANCELLED", "FAILED", "SUCCEEDED"):
            self.assertLess(time.monotonic(), deadline, f"{job} does not end")
            time.sleep(0.2)

    def wait(self, condition, what, seconds=PATIENCE_S):
        return self.prometheus.wait(condition, what, seconds)

    def await_training(self, job):
        """Scraped for long enough that a picture shows what was before."""
        self.wait(lambda: self.prometheus.value(f'll_train_step{{job_id="{job}"}}'), f"{job} trains")
        time.sleep(BEFORE_S)
        return time.time() - BEFORE_S

    def firing(self, alert, **labels):
        return self.wait(lambda: self.prometheus.firing(alert, **labels), f"{alert} {labels}")

    def ends(self, alert, **labels):
        self.wait(lambda: not self.prometheus.firing(alert, **labels), f"{alert} ends")

    def show(self, name, title, begin, parts, **values):
        """The picture of a fault; returns its texts. `parts`: (dashboard's uid, headings)."""
        values = {"queue": ".*", "rank": ".*", "schedule": ".*", "worker": ".*", "job_id": "none", **values}
        said = {"ll-job": f"Job: {values['job_id']}", "ll-rank": f"Job: {values['job_id']}", "ll-queue": f"Queue: {values['queue']}"}
        by_uid = {board["uid"]: {**board, "variables_said": said.get(board["uid"], "")} for board in boards()}
        renderer = Renderer(self.prometheus, begin, time.time(), lambda query: faster(fill_in(query, values)))
        picture = renderer.page(title, [(by_uid[uid], headings) for uid, headings in parts])
        if PICTURES:
            (PICTURES / f"{name}.svg").write_text(picture)
        alerts = next(panel for panel in panels(by_uid["ll-cluster"]) if panel["title"] == "Alerts")
        rows, _ = renderer.table_rows(alerts)
        texts = [element.text for element in xml.etree.ElementTree.fromstring(picture).iter() if element.text and element.text.strip()]
        self.assertNotIn("undefined", texts)
        return rows, texts

    def named(self, rows, alert, **labels):
        self.assertTrue(any(row["alertname"] == alert and labels.items() <= row.items() for row in rows), (alert, labels, rows))

    def test_1_a_rank_that_stalls(self):
        job = self.submit("stalls")
        begin = self.await_training(job)
        pids = processes_of(job)
        self.assertTrue(pids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            self.firing("LlJobNoProgress", job_id=job)
            time.sleep(5)
            rows, texts = self.show("stall", "A rank stopped (kill -STOP)", begin, [CLUSTER, ("ll-rank", ["Ranks"])], job_id=job)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        self.named(rows, "LlJobNoProgress", job_id=job)
        self.assertIn("0 on w1", texts)
        self.ends("LlJobNoProgress")

    def test_2_a_step_that_is_no_number(self):
        draw = random.Random(7)
        ids = [4 + draw.randrange(90) for _ in range(400 * CONTEXT)]
        pack = lambda: struct.pack(f"<{len(ids)}H", *ids)
        data = self.root / "poisoned.bin"
        data.write_bytes(pack())
        job = self.submit("no-number", "--method", "lora", "--set", "global_batch_size=1", "--set", "shuffle=false", "--set", "on_nan=skip",
                          model=self.poisoned, data=data)
        begin = self.await_training(job)
        for row in range(0, 400, 100):
            ids[row * CONTEXT + 17] = POISON
        with open(data, "r+b") as file:  # the same file: the trainer has it mapped
            file.write(pack())
        self.firing("LlLossNotANumber", job_id=job)
        time.sleep(5)
        rows, texts = self.show("nan", "A step whose loss is no number", begin, [CLUSTER, ("ll-job", ["Learning"])], job_id=job)
        self.named(rows, "LlLossNotANumber", job_id=job)
        self.assertIn("nan: skip", texts)
        self.cancel(job)
        self.ends("LlLossNotANumber")

    def test_3_a_straggler(self):
        job = self.submit("straggles", "--gpus", 3, "--set", "global_batch_size=3", "--ctx", 1024)
        begin = self.await_training(job)
        with braked(processes_of(job, rank=1)[0], stopped_s=0.18, running_s=0.02):  # a busy machine, on which every rank is slow, shows it too
            self.firing("LlJobStraggler", job_id=job)
            self.firing("LlThroughputDrop", job_id=job)
            time.sleep(3)
            rows, texts = self.show("straggler", "A rank slowed down to a tenth", begin, [CLUSTER, ("ll-rank", ["Ranks"])], job_id=job)
        self.named(rows, "LlJobStraggler", job_id=job)
        scores = {labels["rank"]: value for labels, value in self.prometheus.query(f'max_over_time(ll_rank_straggler_score{{job_id="{job}"}}[20s])')}
        self.assertEqual(max(scores, key=scores.get), "1", scores)
        self.assertIn("1 on w1", texts)
        self.ends("LlJobStraggler")
        self.ends("LlThroughputDrop")

    def test_4_a_queue_that_starves(self):
        self.llctl("queues", "set", "research", "--weight", 1)
        holder = self.submit("holds-two-slots", "--gpus", 2, "--set", "global_batch_size=2")
        begin = self.await_training(holder)
        starved = self.submit("starves", "--gpus", 3, "--queue", "research", "--set", "global_batch_size=3")
        self.firing("LlQueueStarving", queue="research")
        time.sleep(5)
        rows, texts = self.show("starving", "A queue whose job does not fit beside another's", begin,
                                [CLUSTER, ("ll-queue", ["Now", "Over time"])], queue="research")
        self.named(rows, "LlQueueStarving", queue="research")
        self.assertIn(starved, " ".join(texts))
        self.cancel(holder)
        self.ends("LlQueueStarving")

    def test_5_a_dead_agent(self):
        self.llctl("workers", "cordon", "w1")
        job = self.submit("loses-its-host")
        begin = self.await_training(job)
        self.llctl("workers", "uncordon", "w1")
        self.agents["w2"].kill()
        for pid in processes_of(job):
            os.kill(pid, signal.SIGKILL)
        self.firing("LlWorkerDown", worker="w2")
        time.sleep(5)
        rows, texts = self.show("dead-agent", "A host that died: agent and ranks killed with -9", begin,
                                [CLUSTER, ("ll-rank", ["Ranks"]), ("ll-service", ["Workers"])], job_id=job)
        self.named(rows, "LlWorkerDown", worker="w2")
        self.assertIn("0 on w2", texts)
        type(self).agents["w2"] = self.start_agent("w2", 1)
        self.ends("LlWorkerDown")

    def test_6_a_loss_that_jumps(self):
        """Not one of the five of the walk-through: rows that are written over while they are trained on."""
        draw = random.Random(7)
        pack = lambda ids: struct.pack(f"<{len(ids)}H", *ids)
        even, uneven = pack([7] * 400 * CONTEXT), pack([4 + draw.randrange(90) for _ in range(400 * CONTEXT)])
        data = self.root / "spoiled.bin"
        data.write_bytes(even)
        job = self.submit("jumps", "--method", "lora", "--set", "global_batch_size=1", "--set", "learning_rate=5e-4", data=data)
        # Learnt, and for so long that the mean of an hour (here a minute) knows nothing else.
        of = f'{{job_id="{job}"}} offset 5s'
        learnt = f"job_id:ll_train_loss:avg1h{of} < 1 and job_id:ll_train_loss:stddev1h{of} < 0.2"
        self.wait(lambda: self.prometheus.query(learnt), "an even loss", 3 * PATIENCE_S)
        self.assertEqual(self.prometheus.firing("LlLossSpike"), [])
        with open(data, "r+b") as file:  # the same file: the trainer has it mapped
            file.write(uneven)
        self.firing("LlLossSpike", job_id=job)
        with open(data, "r+b") as file:
            file.write(even)
        self.ends("LlLossSpike")


if __name__ == "__main__":
    unittest.main(verbosity=2)
