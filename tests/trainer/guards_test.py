"""Guards: losses that are no numbers and losses that jump, made by a model's weights and a few tokens of the data.

The model's embedding is not its head. Token POISON has an embedding of infinities, so a row that reads it has no loss; token RARE has a
row of the head that makes it all but impossible, so a row that expects it costs far more than any other. Both are frozen (method lora).
"""
import json
import os
import random
import signal
import struct

import numpy
from safetensors.numpy import load_file, save_file

import harness
from harness import Gang, TrainerTest, events_of, kill_at_step, losses, read, train

CONTEXT, BATCH, STEPS, SAVE = 64, 2, 40, 10
POISON, RARE = 95, 94


def guards(events):
    return [e for e in events if e["event"] == "guard"]


def comparable(events):
    """What a guard decided, without the time of it."""
    return [{k: v for k, v in e.items() if k not in ("time", "rank")} for e in events]


class GuardsTest(TrainerTest):
    def setUp(self):
        super().setUp()
        self.model = self.make_model("guarded", tie_word_embeddings=False)
        path = os.path.join(self.model, "model.safetensors")
        weights = load_file(path)
        embedding, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
        embedding[:, 0] = 20.0  # a direction that all tokens share
        embedding[POISON] = numpy.inf
        head[RARE] = 0
        head[RARE, 0] = -200.0
        save_file(weights, path, metadata={"format": "pt"})

    def tokens(self, at):
        """STEPS batches of rows and some to spare, in order; `at`: 1-based step -> the token that spoils one of its rows."""
        rng = random.Random(harness.SEED)
        ids = [3 + rng.randrange(90) for _ in range(3 * STEPS * BATCH * CONTEXT)]
        for step, token in at.items():
            ids[((step - 1) * BATCH + step % BATCH) * CONTEXT + 17] = token
        with open(self.path("data.bin"), "wb") as f:
            f.write(struct.pack(f"<{len(ids)}H", *ids))

    def spec(self, **changes):
        return self.write_spec(**{"model": self.model, "method": "lora", "attention": "s2", "context_length": CONTEXT, "shuffle": False,
                                  "global_batch_size": BATCH, "max_steps": STEPS, "save_steps": SAVE, "learning_rate": 1e-3, **changes})

    def finish(self, spec, out, code=0):
        done = train(spec, self.path(out))
        self.assertEqual(done.returncode, code, done.stderr)
        return events_of(done.stdout)

    def weights(self, out, step=STEPS):
        folder = self.path(out, "checkpoints", f"step-{step:06d}")
        return {name: sha["sha256"] for name, sha in json.loads(read(folder, "MANIFEST.json"))["files"].items()
                if name.endswith(".safetensors")}

    def state(self, out, step=STEPS):
        return json.loads(read(self.path(out, "checkpoints", f"step-{step:06d}", "trainer_state.json")))

    def test_a_clean_run_sees_no_guard(self):
        self.tokens({})
        self.assertEqual(guards(self.finish(self.spec(), "clean")), [])

    def test_stop_is_the_default_for_nan_and_warn_for_spikes(self):
        self.tokens({25: RARE, 33: POISON})
        events = self.finish(self.spec(), "out", code=50)
        self.assertEqual([(g["step"], g["kind"], g["action"]) for g in guards(events)], [(25, "loss_spike", "warn"), (33, "nan", "stop")])
        spike = guards(events)[0]
        self.assertGreater(spike["loss"], spike["mean"] + 6 * spike["deviation"])
        error = events[-1]
        self.assertEqual((error["event"], error["class"]), ("error", "nan"))
        self.assertIn("at step 33", error["message"])
        self.assertIn("on_nan", error["hint"])

    def test_a_spike_can_stop_the_job(self):
        self.tokens({25: RARE})
        events = self.finish(self.spec(on_loss_spike="stop"), "out", code=50)
        self.assertEqual(events[-1]["class"], "nan")
        self.assertIn("deviations above the mean", events[-1]["message"])

    def test_nothing_fires_before_the_warm_up(self):
        self.tokens({15: RARE})
        self.assertEqual(guards(self.finish(self.spec(on_loss_spike="stop", max_steps=18), "out")), [])

    def test_skip_leaves_weights_and_moments_as_they_were(self):
        self.tokens({24: RARE, 27: POISON})
        spec = self.spec(on_nan="skip", on_loss_spike="skip", save_steps=1)
        events = self.finish(spec, "out")
        self.assertEqual([(g["step"], g["action"]) for g in guards(events)], [(24, "skip"), (27, "skip")])
        for step in (24, 27):
            self.assertEqual(self.weights("out", step), self.weights("out", step - 1))
        self.assertNotEqual(self.weights("out", 25), self.weights("out", 24))
        self.assertEqual(self.state("out")["guard"]["skipped_steps"], 2)
        self.assertIsNone(losses(events)[27][0])
        self.assertEqual(sorted(losses(events)), list(range(1, STEPS + 1)))

    def test_a_rank_that_cannot_see_the_checkpoint_blames_its_host(self):
        self.tokens({13: POISON})
        gang = Gang(self.spec(on_nan="rollback", max_steps=16, gpus=2), [self.path("rank0"), self.path("rank1")], 2)
        codes = gang.wait()
        errors = [[e for e in events if e["event"] == "error"] for events in gang.events]
        self.assertEqual((codes[1], errors[1][-1]["class"]), (30, "infrastructure"), errors)
        self.assertIn("step-000010", errors[1][-1]["message"])
        self.assertNotIn("caused_by_rank", errors[1][-1])

    def test_killed_anywhere_it_decides_and_computes_alike(self):
        self.tokens({8: POISON, 24: RARE, 27: POISON, 28: POISON, 36: RARE})
        for policy in ("skip", "rollback"):
            spec = self.spec(on_nan=policy, on_loss_spike=policy)
            straight = self.finish(spec, policy)
            self.assertGreater(len(guards(straight)), 2)
            out = self.path(policy + "-killed")
            for step in (9, 23, 26, 31):
                kill_at_step(["train", "--spec", spec, "--out", out, "--threads", 1], step)
            kill_at_step(["train", "--spec", spec, "--out", out, "--threads", 1], 34, signal.SIGTERM)  # a checkpoint in between
            self.finish(spec, policy + "-killed")
            self.assertEqual(self.weights(policy + "-killed"), self.weights(policy))
            self.assertEqual(self.state(policy + "-killed")["guard"], self.state(policy)["guard"])
            self.assertEqual(losses(events_of(read(out, "events.jsonl"))), losses(straight))
            decided = comparable(guards(events_of(read(out, "events.jsonl"))))
            for decision in comparable(guards(straight)):
                self.assertIn(decision, decided)

    def test_rollback_leaves_the_rows_since_the_checkpoint_out(self):
        self.tokens({24: RARE})
        events = self.finish(self.spec(on_loss_spike="rollback"), "out")
        self.assertEqual([(g["step"], g["action"], g["to_step"], g["rows_skipped"]) for g in guards(events)], [(24, "rollback", 20, 4 * BATCH)])
        steps = [e["step"] for e in events if e["event"] == "step"]
        self.assertEqual(steps, [*range(1, 24), *range(21, STEPS + 1)])
        self.assertEqual(self.state("out")["data_position"], {"rows_consumed": STEPS * BATCH, "rows_skipped": 4 * BATCH,
                                                              "tokens_consumed": STEPS * BATCH * CONTEXT})
        # The same as a run on data without those rows.
        with open(self.path("data.bin"), "rb") as f:
            raw = f.read()
        row = 2 * CONTEXT
        with open(self.path("cut.bin"), "wb") as f:
            f.write(raw[:20 * BATCH * row] + raw[24 * BATCH * row:])
        expected = self.finish(self.spec(data=self.path("cut.bin"), name="cut.json"), "cut")
        self.assertEqual(losses(events), losses(expected))
        self.assertEqual(self.weights("out"), self.weights("cut"))

    def test_rollback_in_the_first_steps_goes_back_to_the_beginning(self):
        self.tokens({3: POISON})
        events = self.finish(self.spec(on_nan="rollback"), "out")
        self.assertEqual([(g["step"], g["to_step"], g["rows_skipped"]) for g in guards(events)], [(3, 0, 3 * BATCH)])

    def test_a_checkpoint_that_was_wished_for_is_taken_behind_a_rollback(self):
        self.tokens({step: POISON for step in (1, 2, 3, 4)})
        steps = 100
        gang = Gang(self.spec(on_nan="rollback", save_steps=0, max_steps=steps), self.path("out"), 1)
        gang.wait_for(lambda e: e["event"] == "phase" and e["phase"] == "load")
        gang.ranks[0].send_signal(signal.SIGUSR1)  # most likely while a step is tried that does not count
        self.assertEqual(gang.wait(), [0], gang.stderr)
        self.assertEqual(len(guards(gang.events[0])), 4)
        taken = {e["step"] for e in gang.events[0] if e["event"] == "checkpoint"}
        self.assertEqual(len(taken - {0, steps}), 1, taken)

    def test_rollbacks_are_bounded(self):
        self.tokens({step: POISON for step in range(1, 2 * STEPS)})
        events = self.finish(self.spec(on_nan="rollback"), "out", code=50)
        self.assertEqual([g["action"] for g in guards(events)], ["rollback"] * 4 + ["stop"])
        self.assertIn("after 4 rollbacks", events[-1]["message"])

    def test_skips_are_bounded(self):
        self.tokens({step: POISON for step in range(5, STEPS)})
        events = self.finish(self.spec(on_nan="skip"), "out", code=50)
        self.assertEqual([g["action"] for g in guards(events)], ["skip"] * 7 + ["stop"])

    def test_ranks_decide_alike(self):
        self.tokens({24: RARE, 27: POISON, 36: RARE})
        for policy in ("skip", "rollback"):
            spec = self.spec(on_nan=policy, on_loss_spike=policy)
            one = self.finish(spec, f"{policy}-one")
            gang = Gang(spec, self.path(f"{policy}-two"), 2)
            self.assertEqual(gang.wait(), [0, 0], gang.stderr)
            two = gang.events[0]
            self.assertEqual(guards(gang.events[1]), [])
            self.assertEqual([(g["step"], g["action"], g.get("to_step")) for g in guards(two)],
                             [(g["step"], g["action"], g.get("to_step")) for g in guards(one)])
            self.assertAlmostEqual(losses(two)[STEPS][0], losses(one)[STEPS][0], delta=1e-4)

    def test_divided_state_and_gradients_change_nothing(self):
        """zero_stage 2: what is skipped and gone back to lies in parts on the ranks."""
        self.tokens({22: RARE, 24: POISON})
        runs = []
        for stage in (0, 2):
            spec = self.spec(on_nan="skip", on_loss_spike="rollback", zero_stage=stage, max_steps=26, save_steps=7, name=f"{stage}.json")
            gang = Gang(spec, self.path(f"stage-{stage}"), 2)
            self.assertEqual(gang.wait(), [0, 0], gang.stderr)
            runs.append((comparable(guards(gang.events[0])), losses(gang.events[0]), self.state(f"stage-{stage}", 26)["guard"],
                         self.weights(f"stage-{stage}", 26)["adapter_model.safetensors"]))
        self.assertEqual([(g["kind"], g["action"]) for g in runs[0][0]], [("loss_spike", "rollback"), ("nan", "skip")])
        self.assertEqual(runs[1], runs[0])


if __name__ == "__main__":
    harness.main()
