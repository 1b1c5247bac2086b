"""Out of memory: the trainer keeps less and repeats the step, with the bits of a run that kept less from the beginning."""
import json
import os
import random
import struct
import sys

import harness
from harness import Gang, TrainerTest, events_of, losses, read, train

PRELOAD = sys.argv.pop(sys.argv.index("--memory-limit") + 1) if "--memory-limit" in sys.argv else None
if PRELOAD:
    sys.argv.remove("--memory-limit")

CONTEXT, STEPS, SHORT = 512, 4, 32
RUNGS = ["none", "selective", "full"]


def of(events, kind):
    return [e for e in events if e["event"] == kind]


class MemoryCase(TrainerTest):
    def setUp(self):
        super().setUp()
        self.model = self.make_model("wide", num_hidden_layers=6, intermediate_size=256, max_position_embeddings=CONTEXT)
        self.data = self.make_tokens("wide.bin", 20 * CONTEXT)

    def spec(self, name="job.yaml", **changes):
        return self.write_spec(name, **{"model": self.model, "data": self.data, "context_length": CONTEXT, "max_steps": STEPS,
                                        "save_steps": 2, "global_batch_size": 2, "recompute": "none", **changes})

    def environment(self, limit=0, peak="peak"):
        return {"LD_PRELOAD": PRELOAD, "LL_TEST_MEMORY_LIMIT": str(limit), "LL_TEST_MEMORY_PEAK": self.path(peak)}

    def run_with(self, spec, out, limit=0, code=0):
        done = train(spec, self.path(out), env={**os.environ, **self.environment(limit)})
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        return events_of(done.stdout)

    def peak_of(self, spec):
        events = self.run_with(spec, "peak-of-" + os.path.basename(spec))
        return int(read(self.path("peak"))), events

    def weights(self, out, step=STEPS):
        folder = self.path(out, "checkpoints", f"step-{step:06d}")
        return {name: sha["sha256"] for name, sha in json.loads(read(folder, "MANIFEST.json"))["files"].items()
                if name.endswith(".safetensors")}


class InitTest(MemoryCase):
    def test_random_weights_are_written_one_at_a_time(self):
        with open(self.path("deep.json"), "w") as f:
            json.dump(harness.config(hidden_size=192, intermediate_size=512, num_hidden_layers=16), f)
        done = harness.run("init", "--config", self.path("deep.json"), "--out", self.path("deep"),
                           env={**os.environ, **self.environment()})
        self.assertEqual(done.returncode, 0, done.stderr)
        whole = os.path.getsize(self.path("deep", "model.safetensors"))
        largest = 192 * 512 * 4
        self.assertGreater(whole, 40 * largest)
        self.assertLess(int(read(self.path("peak"))), 4 * largest)  # a weight, and sums over it in fp64


class LadderTest(MemoryCase):
    def test_down_the_ladder_with_the_same_bits(self):
        runs = {rung: self.peak_of(self.spec(f"{rung}.yaml", recompute=rung)) for rung in RUNGS}
        peaks = [runs[rung][0] for rung in RUNGS]
        self.assertGreater(peaks[0], 1.1 * peaks[1])
        self.assertGreater(peaks[1], 1.1 * peaks[2])
        spec = self.spec()
        for to in (1, 2):
            with self.subTest(to=RUNGS[to]):
                out = "down-to-" + RUNGS[to]
                limit = (peaks[to] + peaks[to - 1]) // 2
                events = self.run_with(spec, out, limit)
                told = of(events, "policy")
                self.assertEqual([(e["step"], e["field"], e["from"], e["to"]) for e in told],
                                 [(1, "recompute", RUNGS[i], RUNGS[i + 1]) for i in range(to)])
                for e in told:
                    self.assertGreaterEqual(e["cost_seconds"], 0)
                    self.assertLess(e["forecast_bytes"], e["forecast_bytes_before"])
                    self.assertIn("ran out of memory at step 1", e["reason"])
                self.assertEqual(losses(events), losses(runs[RUNGS[to]][1]))
                self.assertEqual(self.weights(out), self.weights(f"peak-of-{RUNGS[to]}.yaml"))
                self.assertLessEqual(int(read(self.path("peak"))), limit)
                done = of(events, "done")[0]["result"]
                self.assertEqual((done["memory_steps_down"], done["recompute"]), (to, RUNGS[to]))
                # An attempt that goes on from there does not try again what failed.
                more = self.run_with(self.spec("more.yaml", max_steps=STEPS + 2), out, limit)
                self.assertEqual(of(more, "policy"), [])
                self.assertEqual([e["recompute"] for e in of(more, "phase") if e["phase"] == "train"], [RUNGS[to]])

    def test_nothing_left(self):
        peak, _ = self.peak_of(self.spec("full.yaml", recompute="full"))
        events = self.run_with(self.spec(), "out", int(0.8 * peak), code=40)
        self.assertEqual([e["to"] for e in of(events, "policy")], ["selective", "full"])
        error = events[-1]
        self.assertEqual((error["event"], error["class"], error["field"]), ("error", "oom", "on_oom"))
        self.assertIn("recompute none, then recompute selective, then recompute full", error["message"])
        self.assertIn("llctl plan", error["hint"])
        self.assertEqual(of(events, "step"), [])

    def test_fail_at_once_where_told_to(self):
        peak, _ = self.peak_of(self.spec("selective.yaml", recompute="selective"))
        events = self.run_with(self.spec(on_oom="fail"), "out", peak, code=40)
        self.assertEqual(of(events, "policy"), [])
        self.assertEqual((events[-1]["class"], events[-1]["field"]), ("oom", "on_oom"))
        self.assertIn("with recompute none", events[-1]["message"])


class GangTest(MemoryCase):
    def gang(self, spec, out, limits=(0, 0)):
        gang = Gang(spec, self.path(out), 2, environments=[self.environment(limit, f"peak-{rank}") for rank, limit in enumerate(limits)])
        self.assertEqual(gang.wait(), [0, 0], gang.stderr)
        return gang.events, [int(read(self.path(f"peak-{rank}"))) for rank in (0, 1)]

    def test_one_rank_without_memory_takes_all_down(self):
        for stage, context in ((2, 1), (0, 2)):
            with self.subTest(zero_stage=stage, context_parallel=context):
                name = f"{stage}-{context}"
                keys = {"zero_stage": stage, "context_parallel": context}
                _, most = self.gang(self.spec("most.yaml", **keys), "most-" + name)
                lean, less = self.gang(self.spec("less.yaml", recompute="selective", **keys), "less-" + name)
                events, _ = self.gang(self.spec(**keys), "out-" + name, (0, (most[1] + less[1]) // 2))
                self.assertEqual([(e["step"], e["from"], e["to"]) for e in of(events[0], "policy")], [(1, "none", "selective")])
                self.assertIn("1 of 2 ranks", of(events[0], "policy")[0]["reason"])
                self.assertEqual(of(events[1], "policy"), [])
                self.assertTrue(any("memory" in e["message"] for e in of(events[1], "warning")))
                self.assertEqual(losses(events[0]), losses(lean[0]))
                self.assertEqual(self.weights("out-" + name), self.weights("less-" + name))


class LongestSampleTest(MemoryCase):
    def samples(self):
        """Short samples and one long one, which shuffling and row order put where they will."""
        rng = random.Random(harness.SEED)
        lengths = [SHORT] * 24 + [CONTEXT]
        ids = [3 + rng.randrange(90) for _ in range(sum(lengths))]
        documents, spans, at = [], [], 0
        for length in lengths:
            documents.append((at, at + length))
            spans.append((at + length // 2, at + length))
            at += length
        with open(self.path("sft.bin"), "wb") as f:
            f.write(struct.pack(f"<{len(ids)}H", *ids))
        with open(self.path("sft.bin.json"), "w") as f:
            json.dump({"dtype": "uint16", "token_count": len(ids), "documents": documents, "loss_spans": spans}, f)
        return self.path("sft.bin")

    def test_the_longest_sample_comes_first(self):
        keys = {"sft": True, "data": self.samples(), "max_seq_length": CONTEXT, "shuffle": False, "prompt_template": "longlora"}
        most, _ = self.peak_of(self.spec("most.yaml", **keys))
        less, expected = self.peak_of(self.spec("less.yaml", recompute="selective", **keys))
        tried = [e["tokens"] for e in of(expected, "phase") if e["phase"] == "longest_row"]
        self.assertEqual(tried, [CONTEXT])
        # No step of this short run sees the long sample: the memory for it is found all the same, before the first step.
        self.assertEqual([e["tokens"] for e in of(expected, "step")], [2 * SHORT] * STEPS)
        events = self.run_with(self.spec(**keys), "out", (most + less) // 2)
        kinds = [e["event"] for e in events if e["event"] in ("policy", "step")]
        self.assertEqual(kinds, ["policy"] + ["step"] * STEPS)
        self.assertEqual(losses(events), losses(expected))
        self.assertEqual(self.weights("out"), self.weights("peak-of-less.yaml"))


if __name__ == "__main__":
    harness.main()
