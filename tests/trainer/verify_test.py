"""A past window run again: equal bits are verified; a tensor that another run would not have written is named."""
import hashlib
import json
import os
import shutil

import harness
from harness import Gang, TrainerTest, events_of, read, run, train


def seal(folder):
    """Makes manifest and COMPLETE anew, as whoever computed wrongly would have written them."""
    manifest = json.loads(read(folder, "MANIFEST.json"))
    for name in manifest["files"]:
        body = read(folder, name, mode="rb")
        manifest["files"][name] = {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    text = json.dumps(manifest, indent=1) + "\n"
    with open(os.path.join(folder, "MANIFEST.json"), "w") as f:
        f.write(text)
    with open(os.path.join(folder, "COMPLETE"), "w") as f:
        f.write(hashlib.sha256(text.encode()).hexdigest() + "\n")


def change(path, tensor):
    """Flips the lowest bit of one element of a safetensors file."""
    body = bytearray(read(path, mode="rb"))
    size = int.from_bytes(body[:8], "little")
    begin, end = json.loads(body[8:8 + size])[tensor]["data_offsets"]
    body[8 + size + (begin + end) // 2 // 4 * 4] ^= 1
    with open(path, "wb") as f:
        f.write(body)


class VerifyTest(TrainerTest):
    def setUp(self):
        super().setUp()
        self.spec = self.write_spec(lora_dropout=0.1)
        done = train(self.spec, self.path("job"))
        self.assertEqual(done.returncode, 0, done.stderr)

    def checkpoint(self, step):
        return self.path("job", "checkpoints", f"step-{step:06d}")

    def verify(self, step, *more, code=0):
        done = run("verify", "--checkpoint", self.checkpoint(step), "--out", self.path("scratch"), "--threads", 1, *more)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def result(self, done):
        return [e["result"] for e in events_of(done.stdout) if e["event"] == "done"][0]

    def test_equal_bits(self):
        for more, begin in (((), 6), (("--steps", 5), 4), (("--steps", 8), 0)):
            result = self.result(self.verify(8, *more))
            self.assertTrue(result["verified"])
            self.assertEqual((result["from_step"], result["to_step"]), (begin, 8))
            self.assertGreater(result["tensors"], 20)
        self.assertNotIn("checkpoints", os.listdir(self.path("scratch")))  # nothing is written

    def test_a_changed_tensor_is_named(self):
        for name, tensor in (("optimizer-00-of-01.safetensors", "exp_avg_sq.model.norm.weight"),
                             ("adapter_model.safetensors", "base_model.model.model.norm.weight")):
            with self.subTest(name):
                kept = self.path("kept")
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(self.checkpoint(8), kept)
                change(os.path.join(self.checkpoint(8), name), tensor)
                seal(self.checkpoint(8))
                error = self.verify(8, code=30).stderr
                self.assertIn(tensor, error)
                self.assertIn("1 of 48 elements that differ", error)
                shutil.rmtree(self.checkpoint(8))
                shutil.move(kept, self.checkpoint(8))
        # The same in the state the window begins with: everything after it differs.
        change(os.path.join(self.checkpoint(6), "optimizer-00-of-01.safetensors"), "master.model.norm.weight")
        seal(self.checkpoint(6))
        self.verify(8, code=30)

    def test_damage_is_told_before_anything_runs(self):
        change(os.path.join(self.checkpoint(8), "adapter_model.safetensors"), "base_model.model.model.norm.weight")
        self.assertIn("adapter_model.safetensors: expected sha256", self.verify(8, code=20).stderr)

    def test_another_plan_proves_nothing(self):
        done = run("verify", "--checkpoint", self.checkpoint(8), "--out", self.path("scratch"), "--threads", 2)
        self.assertEqual(done.returncode, 20, done.stderr)
        self.assertIn("threads was 1 and is 2", done.stderr)

    def test_windows_that_cannot_be(self):
        self.assertIn("no checkpoint to begin at", self.verify(8, "--steps", 1, code=20).stderr)
        self.assertIn("2 steps or more", self.verify(2, code=20).stderr)
        self.assertTrue(self.result(self.verify(2, "--steps", 2))["verified"])
        self.assertEqual(run("verify", "--checkpoint", self.model, "--out", self.path("scratch")).returncode, 20)

    def test_a_recipe_that_changed_within_the_window(self):
        for step in (6, 8):
            shutil.rmtree(self.checkpoint(step))
        done = train(self.write_spec("other.yaml", lora_dropout=0.1, learning_rate=0.02), self.path("job"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(self.result(self.verify(8))["verified"])
        self.assertTrue(self.result(self.verify(6))["verified"])  # from step 4, where it changed
        self.assertIn("learning_rate", self.verify(8, "--steps", 4, code=20).stderr)

    def first_tensor(self, out):
        body = read(self.path(out, "checkpoints", "step-000008", "optimizer-01-of-02.safetensors"), mode="rb")
        header = json.loads(body[8:8 + int.from_bytes(body[:8], "little")])
        return sorted(name for name in header if name != "__metadata__")[0]

    def test_several_ranks(self):
        verify = self.path("verify.json")
        for name, plan in (("shared", dict(context_parallel=2, zero_stage=2, shard_base=True)), ("two", {})):
            gang = Gang(self.write_spec(name + ".yaml", **plan), self.path(name), 2)
            self.assertEqual(gang.wait(), [0, 0], gang.stderr)
            with open(verify, "w") as f:
                json.dump({"kind": "verify", "adapter": self.path(name, "checkpoints", "step-000008"), "max_steps": 4, "gpus": 2}, f)
            gang = Gang(verify, self.path(name + "-again"), 2)
            self.assertEqual(gang.wait(), [0, 0], gang.stderr)
            result = [e["result"] for e in gang.events[0] if e["event"] == "done"][0]
            self.assertEqual((result["verified"], result["from_step"]), (True, 4))
        # What a rank keeps of the divided state is compared too.
        change(os.path.join(self.path("shared", "checkpoints", "step-000008"), "optimizer-01-of-02.safetensors"), self.first_tensor("shared"))
        seal(self.path("shared", "checkpoints", "step-000008"))
        with open(verify, "w") as f:
            json.dump({"kind": "verify", "adapter": self.path("shared", "checkpoints", "step-000008"), "max_steps": 4, "gpus": 2}, f)
        gang = Gang(verify, self.path("shared-changed"), 2)
        self.assertIn(30, gang.wait(), gang.stderr)
        self.assertIn("elements that differ", "".join(gang.stderr))
        with open(verify, "w") as f:
            json.dump({"kind": "verify", "adapter": self.path("two", "checkpoints", "step-000008"), "max_steps": 4, "gpus": 2}, f)
        alone = Gang(verify, self.path("v1"), 1)
        self.assertEqual(alone.wait(), [20])
        self.assertIn("data_parallel was 2 and is 1", alone.stderr[0])


if __name__ == "__main__":
    harness.main()
