"""`ll-trainer profile step`: what it counts is what the formulas say, and what it runs is the training."""
import json
import os

import harness
from harness import TrainerTest, events_of, run, train

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 64, 128, 2, 4, 2, 16, 96
CONTEXT, ROWS, STEPS = 64, 2, 2
# Weights of a layer's products.
LAYER = HIDDEN * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS) + 3 * HIDDEN * INTERMEDIATE


class ProfileStepTest(TrainerTest):
    def setUp(self):
        super().setUp()
        self.model = self.make_model("m", hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_attention_heads=HEADS,
                                     num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, vocab_size=VOCAB, num_hidden_layers=LAYERS)
        self.data = self.make_tokens("whole.bin", 100 * CONTEXT)  # rows of one length

    def spec(self, **changes):
        return self.write_spec(model=self.model, context_length=CONTEXT, global_batch_size=ROWS, max_steps=2 * STEPS + 1, warmup_steps=0,
                               **changes)

    def profile(self, spec, *more):
        done = run("profile", "step", "--spec", spec, "--steps", STEPS, "--threads", 1, "-o", "json", *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def flops(self, told, operation):
        by_phase = {}
        for row in told["operations"]:
            if row["operation"] == operation:
                by_phase[row["phase"]] = by_phase.get(row["phase"], 0) + row["flops"]
        return by_phase

    def test_counts_of_a_step(self):
        tokens = ROWS * CONTEXT
        told = self.profile(self.spec(method="longqlora", recompute="full", attention="s2"))
        self.assertEqual(told["tokens"], tokens)
        # 2 FLOPs a multiply-add. The last product of a layer (down_proj) is not computed again.
        again = LAYER - HIDDEN * INTERMEDIATE
        products = self.flops(told, "product")
        self.assertEqual(products["forward"], 2 * tokens * LAYERS * LAYER)
        self.assertEqual(products["recompute"], 2 * tokens * LAYERS * again)
        self.assertEqual(products["backward"], 2 * tokens * LAYERS * LAYER)
        # Logits and the gradient's way back through them; the head is frozen.
        self.assertEqual(products["loss"], 2 * tokens * HIDDEN * VOCAB * 2)
        # Groups of 16 tokens: a row's unshifted heads have 4, the shifted ones 3 and two halves.
        pairs = HEADS // 2 * (4 * 16 * 17 // 2) + HEADS // 2 * (3 * 16 * 17 // 2 + 2 * 8 * 9 // 2)
        attention = self.flops(told, "attention")
        self.assertEqual(attention["forward"], ROWS * LAYERS * 4 * HEAD_DIM * pairs)
        self.assertEqual(attention["recompute"], attention["forward"])
        self.assertEqual(attention["backward"], 2.5 * attention["forward"])
        seen = {(row["phase"], row["operation"]) for row in told["operations"]}
        for expected in (("forward", "NF4 to bf16"), ("backward", "NF4 to bf16"), ("forward", "RMSNorm"), ("backward", "SwiGLU"),
                         ("loss", "cross-entropy"), ("", "AdamW"), ("", "norm of gradients"), ("forward", "LoRA")):
            self.assertIn(expected, seen)
        # LongLoRA trains the embedding, and with it the tied head.
        told = self.profile(self.spec(method="longlora", recompute="none", attention="s2"))
        self.assertEqual(self.flops(told, "product")["loss"], 2 * tokens * HIDDEN * VOCAB * 3)
        self.assertNotIn("recompute", {row["phase"] for row in told["operations"]})
        # Nothing is counted twice: operations together fit into the step.
        self.assertLess(sum(row["seconds"] for row in told["operations"]), 1.05 * told["traced_seconds"])
        self.assertTrue(all(row["floor_seconds"] is None for row in told["operations"]))  # of this CPU nothing is known

    def test_the_steps_are_the_trainings(self):
        spec = self.spec(method="longlora")
        told = self.profile(spec)
        done = train(spec, self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        steps = [e for e in events_of(done.stdout) if e["event"] == "step"]
        self.assertEqual(told["loss"], steps[-1]["loss"])

    def test_rows_of_different_length(self):
        # Three rows and a half: steps of 128, 96, 128, 96 and 128 tokens, the first of which warms up.
        told = self.profile(self.spec(method="longlora", shuffle=False, data=self.make_tokens("short.bin", 3 * CONTEXT + CONTEXT // 2)))
        self.assertEqual(told["tokens"], 112)
        self.assertEqual(self.flops(told, "product")["forward"], 2 * 112 * LAYERS * LAYER)

    def test_text_floor_and_folder(self):
        done = run("probe", "--small", "--seconds", 0.2, "--threads", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("probe.json"), "w") as f:
            f.write(done.stdout)
        scratch = self.path("tmp")
        os.mkdir(scratch)
        done = run("profile", "step", "--spec", self.spec(), "--steps", 1, "--threads", 1, "--calibration", self.path("probe.json"),
                   env={**os.environ, "TMPDIR": scratch})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("of floor", done.stdout)
        self.assertRegex(done.stdout, r"backward +product +\d+ +[\d.]+ +[\d.]+% +[\d.]+ +[\d.]+ %")
        self.assertRegex(done.stdout, r"step: [\d.]+ ms without the trace \(\d+ tokens/s\)")
        self.assertEqual(os.listdir(scratch), [])

    def test_bad_input(self):
        done = run("profile", "step", "--spec", self.path("none.yaml"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("none.yaml", done.stderr)
        done = run("profile", "step", "--spec", self.spec(), "--calibration", self.spec())
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("device", done.stderr)


if __name__ == "__main__":
    harness.main()
