"""Ranks that share rows: losses are those of one rank, whatever the split, also across a resume."""
import os
import random
import time

import harness
from harness import Gang, TrainerTest, events_of, losses, train


class ContextParallelTest(TrainerTest):
    def gang(self, out, world, context, more=(), **spec):
        spec = self.write_spec(f"{out}.yaml", context_parallel=context, **spec)
        gang = Gang(spec, self.path(out), world, more)
        codes = gang.wait()
        self.assertEqual(codes, [0] * world, gang.stderr)
        return losses(gang.events[0]), gang

    def assert_close(self, one, other, loss, norm):
        self.assertEqual(sorted(one), sorted(other))
        for step in one:
            self.assertLess(abs(one[step][0] - other[step][0]) / one[step][0], loss, f"loss of step {step}")
            self.assertLess(abs(one[step][1] - other[step][1]) / one[step][1], norm, f"norm of step {step}")

    def test_every_split_equals_one_rank(self):
        self.make_tokens("data.bin", 4000, documents=[[0, 1111], [1111, 1150], [1150, 4000]])
        for name, spec in {
                "packed": dict(global_batch_size=3, document_boundaries=True),
                "nf4": dict(method="qlora", lora_dropout=0.2, attention="s2", recompute="full"),
                "mixed": dict(full_attention_steps=3, recompute="selective", lora_dropout=0.1),
        }.items():
            one, _ = self.gang(f"{name}-1", 1, 1, **spec)
            for world, context in ((2, 2), (4, 4), (4, 2)):
                many, _ = self.gang(f"{name}-{world}-{context}", world, context, **spec)
                self.assert_close(one, many, 2e-5, 2e-3)

    def test_bf16_stays_close(self):
        one, _ = self.gang("one", 1, 1, precision="bf16")
        two, _ = self.gang("two", 2, 2, precision="bf16")
        self.assert_close(one, two, 1e-2, 0.1)

    def test_resume_with_another_split(self):
        straight, _ = self.gang("straight", 1, 1)
        checkpoint = self.path("straight", "checkpoints", "step-000004")
        for world, context in ((2, 2), (4, 2)):
            resumed, gang = self.gang(f"resumed-{world}", world, context, ("--resume-from", checkpoint))
            self.assert_close({s: straight[s] for s in (5, 6, 7, 8)}, resumed, 2e-5, 2e-3)
            warnings = [e["message"] for e in gang.events[0] if e["event"] == "warning"]
            self.assertTrue(any("context_parallel 1 -> 2" in w for w in warnings), warnings)

    def test_killed_and_resumed_bit_for_bit(self):
        straight, _ = self.gang("straight", 2, 2)
        spec = self.write_spec(context_parallel=2)
        gang = Gang(spec, self.path("killed"), 2)
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 3)
        gang.ranks[1].kill()
        self.assertEqual(gang.wait()[0], 30, gang.stderr)
        for world_losses in (losses(gang.events[0]), self.gang("killed", 2, 2)[0]):
            for step, value in world_losses.items():
                self.assertEqual(value, straight[step], f"step {step}")

    def test_a_lost_rank_is_named_with_its_phase(self):
        gang = Gang(self.write_spec(context_parallel=4, max_steps=100000, save_steps=0), self.path("lost"), 4)
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 3)
        time.sleep(1)  # what a rank has said of itself is up to a quarter of a second old
        gang.ranks[2].kill()
        codes = gang.wait()
        self.assertEqual([codes[r] for r in (0, 1, 3)], [30] * 3, gang.stderr)
        for r in (0, 1, 3):
            self.assertRegex(gang.stderr[r], r"rank 2: is lost .*(exchange|all-reduce|(reduce-scatter|all-gather)( of rows)?) \d+ of "
                             r"(context 0|world) in phase (data|forward|backward|reduce|optimizer)")

    def test_any_legal_plan_equals_one_rank(self):
        """Random models, rows and plans: data x context x zero_stage x shard_base x attention. LL_PLANS: how many models (1)."""
        rng = random.Random(harness.SEED)
        for model in range(int(os.environ.get("LL_PLANS", "1"))):
            kv_heads = rng.choice((1, 2, 3))
            heads = kv_heads * rng.choice((1, 2, 3))
            precision = rng.choice(("fp32", "fp32", "bf16"))
            length = rng.randrange(24, 161)
            changes = dict(
                model=self.make_model(f"model-{model}", num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=16, hidden_size=48,
                                      tie_word_embeddings=rng.random() < 0.5),
                precision=precision, context_length=length, original_context_length=length, global_batch_size=rng.choice((1, 2, 3)), max_steps=3,
                save_steps=0, warmup_steps=0, learning_rate=0.001, group_ratio=rng.choice((0.25, 0.25, 0.5, 0.4)),
                attention=rng.choice(("s2", "s2", "full", "short")), method=rng.choice(("longlora", "lora", "longlora", "qlora")),
                recompute=rng.choice(("none", "selective", "full")), lora_dropout=rng.choice((0, 0.1)),
                document_boundaries=rng.random() < 0.5)
            self.make_tokens("data.bin", 4000, documents=[[0, 700], [700, 733], [733, 4000]])
            one, _ = self.gang(f"{model}-one", 1, 1, **changes)
            for plan in range(2):
                world = rng.choice((2, 3, 4, 8))
                context = rng.choice([c for c in (1, 2, 3, 4, 8) if world % c == 0])
                shard = dict(zero_stage=rng.choice((0, 1, 2)), shard_base=rng.random() < 0.4)
                label = f"{world} ranks, context_parallel {context}, {shard}, {changes}"
                with self.subTest(label):
                    many, _ = self.gang(f"{model}-{plan}", world, context, **shard, **changes)
                    loss, norm = (2e-5, 2e-3) if precision == "fp32" else (1e-2, 0.1)
                    self.assert_close(one, many, loss, norm)
                    # Before the first update weights are equal, and so is the gradient but for rounding.
                    self.assertLess(abs(one[1][1] - many[1][1]) / one[1][1], 1e-5 if precision == "fp32" else 1e-2)

    def test_refusals_name_the_key(self):
        for changes, text in ((dict(context_parallel=2, wrap="roll"), "roll"), (dict(context_parallel=2), "context_parallel")):
            done = train(self.write_spec(**changes), self.path("refused"))  # one rank
            self.assertEqual(done.returncode, 20, done.stderr)
            self.assertIn(text, done.stderr)
        self.assertEqual(events_of(done.stdout)[-1]["field"], "context_parallel")


if __name__ == "__main__":
    harness.main()
