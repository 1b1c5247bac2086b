"""Optimizer state and gradients divided over the ranks: the same bits as undivided, checkpoints in parts, any re-sharding."""
import json
import os
import random

import harness
from harness import Gang, TrainerTest, losses, read
from safetensors.numpy import load_file

LAST = 6


class ZeroTest(TrainerTest):
    def setUp(self):
        super().setUp()
        # Large enough for cuts inside a parameter; untied, so that rows of the embedding's gradient are exchanged.
        self.wide = self.make_model("wide", vocab_size=3000, tie_word_embeddings=False)
        self.tied = self.make_model("tied", vocab_size=3000)

    def gang(self, out, world, stage, more=(), codes=None, **spec):
        spec = {"model": self.wide, "max_steps": LAST, "save_steps": 3, "global_batch_size": 5, **spec}
        spec = self.write_spec(f"{out}.yaml", zero_stage=stage, **spec)
        gang = Gang(spec, self.path(out), world, more)
        self.assertEqual(gang.wait(), codes or [0] * world, gang.stderr)
        return losses(gang.events[0]), gang

    def checkpoint(self, out, step=LAST):
        return self.path(out, "checkpoints", f"step-{step:06d}")

    def state(self, checkpoint):
        """Masters and moments, whole and flat, whichever ranks wrote them."""
        pieces = {}
        for name in sorted(os.listdir(checkpoint)):
            if name.startswith("optimizer-"):
                for key, value in load_file(os.path.join(checkpoint, name)).items():
                    key, _, begin = key.partition("@")
                    pieces.setdefault(key, []).append((int(begin or 0), value.ravel()))
        whole = {}
        for key, parts in pieces.items():
            parts.sort(key=lambda part: part[0])
            for (begin, value), (following, _) in zip(parts, parts[1:]):
                self.assertEqual(begin + len(value), following, key)
            whole[key] = b"".join(value.tobytes() for _, value in parts)
        return whole

    def assert_same_bits(self, one, other):
        self.assertEqual(sorted(one), sorted(other))
        for name in one:
            self.assertEqual(one[name], other[name], name)

    def test_stages_give_the_same_bits(self):
        for world, spec in ((2, dict(precision="bf16")), (3, dict()), (4, dict(model=self.tied, precision="bf16", context_parallel=2)),
                            (3, dict(method="full", precision="bf16"))):
            outs = [f"stage{stage}-{world}-{len(spec)}-{spec.get('method', 'longlora')}" for stage in (0, 1, 2)]
            runs = [self.gang(out, world, stage, **spec)[0] for stage, out in enumerate(outs)]
            self.assertEqual(sorted(runs[0]), list(range(1, LAST + 1)))
            for out, run in zip(outs[1:], runs[1:]):
                self.assertEqual(run, runs[0], out)
                self.assert_same_bits(self.state(self.checkpoint(out)), self.state(self.checkpoint(outs[0])))
                files = [name for name in os.listdir(self.checkpoint(out)) if name.startswith("optimizer-")]
                self.assertEqual(sorted(files), [f"optimizer-{r:02}-of-{world:02}.safetensors" for r in range(world)])
                name = "model.safetensors" if spec.get("method") == "full" else "adapter_model.safetensors"
                self.assertEqual(read(self.checkpoint(out), name, mode="rb"), read(self.checkpoint(outs[0]), name, mode="rb"))

    def test_any_ranks_and_stage_resume_any_others(self):
        rng = random.Random(harness.SEED)
        straight = {}
        for round in range(4):
            world, to = rng.choice((1, 2, 3, 4)), rng.choice((1, 2, 3, 4))
            if round == 0:
                to = world = rng.choice((2, 3))
            stage, to_stage = (rng.choice((0, 1, 2)) for _ in range(2))
            context = rng.choice([c for c in (1, 2) if to % c == 0])
            label = f"{round}: {world} ranks, stage {stage} -> {to} ranks, context_parallel {context}, stage {to_stage}"
            print(label, flush=True)
            first = f"first-{round}"
            straight, _ = self.gang(first, world, stage)
            # Nothing is trained here, so what is written is what was read.
            self.gang(f"moved-{round}", to, to_stage, ("--resume-from", self.checkpoint(first)), context_parallel=context)
            self.assert_same_bits(self.state(self.checkpoint(first)), self.state(self.checkpoint(f"moved-{round}")))
            resumed, _ = self.gang(f"resumed-{round}", to, to_stage, ("--resume-from", self.checkpoint(first, 3)),
                                   context_parallel=context)
            self.assertEqual(sorted(resumed), [4, 5, 6])
            for step, (loss, norm) in resumed.items():
                if (to, context) == (world, 1):
                    self.assertEqual((loss, norm), straight[step], f"{label}: step {step}")
                else:
                    self.assertLess(abs(loss - straight[step][0]) / loss, 2e-5, f"{label}: step {step}")
                    self.assertLess(abs(norm - straight[step][1]) / norm, 2e-3, f"{label}: step {step}")

    def test_killed_and_resumed_bit_for_bit(self):
        expected, _ = self.gang("straight", 3, 2, save_steps=1)
        for victim, step in ((0, 2), (2, 3)):
            out = f"killed-{victim}"
            gang = Gang(self.path("straight.yaml"), self.path(out), 3)
            gang.wait_for(lambda e: e["event"] == "step" and e["step"] == step)
            gang.ranks[victim].kill()
            gang.wait()
            for name in os.listdir(self.path(out, "checkpoints")):
                if name.startswith("step-"):  # whole, or not there
                    manifest = json.loads(read(self.path(out, "checkpoints", name, "MANIFEST.json")))
                    self.assertEqual(len([f for f in manifest["files"] if f.startswith("optimizer-")]), 3)
            resumed, _ = self.gang(out, 3, 2, save_steps=1)
            for s, value in {**losses(gang.events[0]), **resumed}.items():
                self.assertEqual(value, expected[s], f"step {s} after killing rank {victim}")

    def test_a_part_that_cannot_be_written(self):
        spec = self.write_spec(model=self.wide, zero_stage=1, max_steps=60, save_steps=30)
        gang = Gang(spec, self.path("out"), 2)
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 1)
        os.makedirs(self.path("out", "checkpoints", ".writing-step-000030", "optimizer-01-of-02.safetensors", "in the way"))
        self.assertEqual(gang.wait(), [0, 0], gang.stderr)
        warnings = [[e["message"] for e in events if e["event"] == "warning"] for events in gang.events]
        self.assertEqual(len(warnings[0]), 1, warnings)
        self.assertIn("checkpoint of step 30 could not be written", warnings[0][0])
        self.assertIn("part 1 of the checkpoint of step 30", warnings[1][0])
        self.assertEqual(os.listdir(self.path("out", "checkpoints")), ["step-000060"])

    def test_folders_that_are_not_shared_are_refused(self):
        spec = self.write_spec(zero_stage=1)
        gang = Gang(spec, [self.path("here"), self.path("there")], 2)
        self.assertEqual(gang.wait(), [20, 20], gang.stderr)
        self.assertIn("zero_stage", gang.stderr[0])
        self.assertIn("rank 1 cannot see", gang.stderr[0])


if __name__ == "__main__":
    harness.main()
