"""What the methods add to a plain training: the mixed schedule, the quantised base, going on from an adapter."""
import json
import os

from safetensors.numpy import load_file, save_file

import harness
from harness import TrainerTest, events_of, kill_at_step, losses, read, run, train


class MethodsTest(TrainerTest):
    def steps(self, out, more=(), **changes):
        done = train(self.write_spec(**changes), self.path(out), *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return events_of(done.stdout)

    def newest(self, out):
        folder = self.path(out, "checkpoints")
        return os.path.join(folder, max(name for name in os.listdir(folder) if name.startswith("step-")))

    def evaluate(self, *args):
        done = run("eval", "perplexity", "--data", self.data, "--seq-len", 64, "--sliding-window", 64, "--mode", "exact", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["nll"]

    def test_the_last_steps_use_full_attention(self):
        sparse, full = losses(self.steps("sparse")), losses(self.steps("full", attention="full"))
        events = self.steps("mixed", full_attention_steps="25%")
        mixed = losses(events)
        self.assertEqual([e["step"] for e in events if e["event"] == "phase" and e["phase"] == "full_attention"], [6])
        for step in range(1, 7):
            self.assertEqual(mixed[step], sparse[step])
        self.assertNotEqual(mixed[7], sparse[7])
        self.assertNotEqual(full[1], sparse[1])
        whole = losses(self.steps("whole", full_attention_steps="8"))
        self.assertEqual(whole, full)

    def test_the_mixed_schedule_resumes_where_it_was(self):
        spec = self.write_spec(full_attention_steps="3", save_steps=1)
        whole = losses(events_of(train(spec, self.path("whole")).stdout))
        kill_at_step(["train", "--spec", spec, "--out", self.path("killed"), "--threads", 1], 6)
        rest = losses(events_of(train(spec, self.path("killed")).stdout))
        self.assertTrue(rest and all(whole[step] == value for step, value in rest.items()))

    def test_rolling_warns(self):
        warnings = [e["message"] for e in self.steps("out", wrap="roll", max_steps=1) if e["event"] == "warning"]
        self.assertTrue(any("wrap: roll" in text for text in warnings), warnings)

    def test_a_quantised_base_resumes_bit_for_bit_and_is_never_written(self):
        spec = self.write_spec(method="longqlora", lora_rank=4, save_steps=2)
        whole = losses(events_of(train(spec, self.path("whole")).stdout))
        self.assertEqual(len(whole), 8)
        kill_at_step(["train", "--spec", spec, "--out", self.path("killed"), "--threads", 1], 5)
        rest = losses(events_of(train(spec, self.path("killed")).stdout))
        self.assertTrue(rest and all(whole[step] == value for step, value in rest.items()))
        # What the checkpoint holds is LoRA alone; frozen weights are in no file of it.
        tensors = load_file(os.path.join(self.newest("whole"), "adapter_model.safetensors"))
        self.assertTrue(all(".lora_" in name for name in tensors))
        self.assertEqual(len(tensors), 2 * 7 * 2)

    def test_an_adapter_is_measured_on_the_base_it_was_trained_on(self):
        done = run("quantize", "--model", self.model, "--out", self.path("nf4"))
        self.assertEqual(done.returncode, 0, done.stderr)
        on_load = self.steps("on-load", method="qlora", model=self.model)
        before = self.steps("before", method="lora", model=self.path("nf4"))  # the folder says that it is quantised
        self.assertEqual(losses(on_load), losses(before))
        adapter = self.newest("on-load")
        there = self.evaluate("--model", self.model, "--adapter", adapter)
        self.assertEqual(there, self.evaluate("--model", self.path("nf4"), "--adapter", adapter))
        other = self.evaluate("--model", self.model, "--adapter", adapter, "--quantization", "none")
        self.assertNotEqual(there, other)
        self.assertLess(abs(there - other) / other, 0.2)

    def test_an_fp8_base_resumes_bit_for_bit_and_its_adapter_is_for_the_weights_themselves(self):
        bf16 = losses(self.steps("bf16", precision="bf16", lora_rank=4))
        spec = self.write_spec(quantization="fp8", precision="bf16", lora_rank=4, eval_steps=4, eval_data=self.data)
        events = events_of(train(spec, self.path("whole")).stdout)
        whole = losses(events)
        self.assertEqual(len(whole), 8)
        self.assertTrue(any(e["event"] == "eval" for e in events))
        self.assertLess(whole[8][0], whole[1][0])  # it learns
        for step, (loss, *_) in whole.items():
            self.assertNotEqual(loss, bf16[step][0])
            self.assertLess(abs(loss / bf16[step][0] - 1), 0.02)
        kill_at_step(["train", "--spec", spec, "--out", self.path("killed"), "--threads", 1], 5)
        rest = losses(events_of(train(spec, self.path("killed")).stdout))
        self.assertTrue(rest and all(whole[step] == value for step, value in rest.items()))
        # Evaluated and merged, it goes with the weights in 16 bits.
        adapter = self.newest("whole")
        there = self.evaluate("--model", self.model, "--adapter", adapter)
        self.assertEqual(there, self.evaluate("--model", self.model, "--adapter", adapter, "--quantization", "none"))
        done = run("merge", "--model", self.model, "--adapter", adapter, "--out", self.path("merged"), "--allow-missing-tokenizer")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(abs(self.evaluate("--model", self.path("merged")) / there - 1), 1e-3)

    def test_going_on_from_an_adapter(self):
        self.steps("first", max_steps=4)
        adapter = self.newest("first")
        events = self.steps("second", adapter=adapter, context_length=128, max_steps=2, learning_rate=1e-9)
        self.assertIn(adapter, [e.get("adapter") for e in events if e["event"] == "phase"])
        # On the same rows at the same context: what was learnt is there from the first step on.
        fresh = self.steps("fresh", context_length=128, max_steps=1)
        self.assertLess(losses(events)[1][0], losses(fresh)[1][0])
        # 32 -> 64 -> 128: the factors multiply.
        config = json.loads(read(self.newest("second"), "config.json"))
        self.assertEqual(config["rope_scaling"]["factor"], 4.0)
        self.assertEqual(config["max_position_embeddings"], 128)
        for changes, message in (({"lora_rank": 16}, "lora_rank: expected 8, as the adapter has, found 16"),
                                 ({"target_modules": ["q_proj"]}, "target_modules: expected k_proj, o_proj, q_proj, v_proj"),
                                 ({"trainable": ["none"]}, "trainable: expected a list with embed"),
                                 ({"method": "full"}, "method: expected lora"),
                                 ({"adapter": self.path("nowhere")}, "there is no such folder")):
            done = train(self.write_spec(**({"adapter": adapter, "context_length": 128} | changes)), self.path("refused"))
            self.assertEqual(done.returncode, 20, done.stderr)
            self.assertIn(message, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
            self.assertFalse(os.path.exists(self.path("refused")))

    def test_an_adapter_that_does_not_fit_is_named(self):
        self.steps("first", max_steps=1)
        adapter = self.newest("first")
        path = os.path.join(adapter, "adapter_model.safetensors")
        tensors = load_file(path)
        name = sorted(n for n in tensors if "lora_A" in n)[0]
        for change, message in ((lambda t: t.pop(name), "expected"), (lambda t: t.update(extra=t[name]), "extra"),
                                (lambda t: t.update({name: t[name][:, :7]}), "shape [8, 48]")):
            changed = dict(tensors)
            change(changed)
            save_file({k: v.copy() for k, v in changed.items()}, path)
            done = train(self.write_spec(adapter=adapter), self.path("out"))
            self.assertEqual(done.returncode, 20, done.stderr)
            self.assertIn(message, done.stderr)


if __name__ == "__main__":
    harness.main()
