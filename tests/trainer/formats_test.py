"""What the trainer writes, as transformers and PEFT read it; perplexity against transformers."""
import json
import math
import os

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import harness
from harness import TrainerTest, events_of, read, run, train


class FormatsTest(TrainerTest):
    def checkpoint(self, **changes):
        done = train(self.write_spec(save_steps=0, **changes), self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.path("out", "checkpoints", "step-000008")

    def perplexity(self, *args, seq_len=64, window=32, mode="official"):
        done = run("eval", "perplexity", *args, "--data", self.data, "--seq-len", seq_len, "--sliding-window", window,
                   "--mode", mode)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def reference(self, model, seq_len=64, window=32):
        """LongLoRA's eval.py: mean over windows of the mean over their seq_len - 1 predictions."""
        ids = torch.from_numpy(numpy.fromfile(self.data, dtype=numpy.uint16).astype(numpy.int64))
        starts = list(range(0, len(ids) - seq_len, window))[:-1]
        model.eval().float()
        means = []
        with torch.no_grad():
            for start in starts:
                x = ids[None, start:start + seq_len]
                means.append(model(input_ids=x, labels=x).loss.item())
        return sum(means) / len(means), len(starts)

    def load_adapter(self, folder):
        """The base with the scaled config that lies beside the adapter, then PEFT on top: nothing else is needed."""
        from transformers import AutoConfig
        config = AutoConfig.from_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(self.model, config=config, dtype=torch.float32)
        return PeftModel.from_pretrained(base, folder)

    def check_adapter(self):
        folder = self.checkpoint()
        model = self.load_adapter(folder)
        nll, windows = self.reference(model)
        ours = self.perplexity("--model", self.model, "--adapter", folder)
        self.assertEqual(ours["windows"], windows)
        self.assertEqual(ours["tokens"], windows * 63)
        self.assertLess(abs(ours["nll"] - nll) / nll, 1e-4)
        self.assertAlmostEqual(ours["perplexity"], math.exp(ours["nll"]), places=6)
        base = self.perplexity("--model", self.model)
        self.assertGreater(abs(base["nll"] - nll), 0.01, "training changed nothing, so this test shows nothing")
        merged_nll, _ = self.reference(model.merge_and_unload())
        self.assertLess(abs(merged_nll - nll) / nll, 1e-4)
        return model

    def test_peft_loads_the_adapter_of_a_tied_model(self):
        model = self.check_adapter()
        self.assertTrue(torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight))

    def test_peft_loads_the_adapter_of_an_untied_model(self):
        self.model = self.make_model("untied", tie_word_embeddings=False)
        self.check_adapter()

    def test_lora_alone(self):
        folder = self.checkpoint(method="lora", target_modules=["q_proj", "down_proj"])
        nll, _ = self.reference(self.load_adapter(folder))
        ours = self.perplexity("--model", self.model, "--adapter", folder)
        self.assertLess(abs(ours["nll"] - nll) / nll, 1e-4)

    def test_going_on_from_pefts_all_linear(self):
        base = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        torch.manual_seed(harness.SEED)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.2)
        model.save_pretrained(self.path("peft"))
        self.assertNotIn("q_proj", json.loads(read(self.path("peft"), "adapter_config.json"))["target_modules"])  # paths
        folder = self.checkpoint(method="lora", adapter=self.path("peft"), context_length=32, learning_rate=1e-9)
        before = self.perplexity("--model", self.model, "--adapter", self.path("peft"), seq_len=32)["nll"]
        self.assertLess(abs(self.perplexity("--adapter", folder, seq_len=32)["nll"] - before) / before, 1e-5)
        self.assertGreater(abs(self.perplexity("--model", self.model, seq_len=32)["nll"] - before), 0.01)

    def test_adapter_names_its_base(self):
        folder = self.checkpoint()
        self.assertEqual(self.perplexity("--adapter", folder)["nll"],
                         self.perplexity("--model", self.model, "--adapter", folder)["nll"])

    def test_transformers_loads_a_full_checkpoint(self):
        folder = self.checkpoint(method="full")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.assertEqual(model.config.max_position_embeddings, 64)
        nll, _ = self.reference(model)
        ours = self.perplexity("--model", folder)
        self.assertEqual(self.perplexity("--adapter", folder)["nll"], ours["nll"])  # a whole model, found out by itself
        self.assertLess(abs(ours["nll"] - nll) / nll, 1e-4)

    def test_evaluation_while_training(self):
        done = train(self.write_spec(eval_steps=4, eval_data=self.data, max_steps=8), self.path("out"))
        evals = [e for e in events_of(done.stdout) if e["event"] == "eval"]
        self.assertEqual([e["step"] for e in evals], [4, 8])
        ours = self.perplexity("--adapter", self.path("out", "checkpoints", "step-000008"), window=64, mode="exact")
        self.assertLess(abs(evals[1]["nll"] - ours["nll"]) / ours["nll"], 1e-5)

    def test_checkpoint_holds_what_the_design_says(self):
        folder = self.checkpoint()
        self.assertEqual(sorted(os.listdir(folder)),
                         ["COMPLETE", "MANIFEST.json", "adapter_config.json", "adapter_model.safetensors", "config.json",
                          "optimizer-00-of-01.safetensors", "trainer_state.json"])
        state = json.loads(read(folder, "trainer_state.json"))
        self.assertEqual(state["step"], 8)
        self.assertEqual(state["data_position"]["rows_consumed"], 32)
        self.assertEqual(state["spec"]["method"], "longlora")
        config = json.loads(read(folder, "config.json"))
        self.assertEqual(config["rope_scaling"]["factor"], 2.0)


class PackTest(TrainerTest):
    def test_text_becomes_tokens_a_job_can_train_on(self):
        with open(self.path("text.txt"), "w") as f:
            for i in range(300):
                f.write(f"the {i % 7} quick brown foxes jump over {i % 5} lazy dogs\n")
        done = run("pack", self.path("text.txt"), "--train-tokenizer", self.path("tokenizer.model"), "--vocab-size", 320,
                   "--out", self.path("packed.bin"))
        self.assertEqual(done.returncode, 0, done.stderr)
        packed = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(os.path.getsize(self.path("packed.bin")), 2 * packed["tokens"])
        model = self.make_model("fits", vocab_size=packed["vocab_size"])
        done = train(self.write_spec(model=model, data=self.path("packed.bin")), self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_from_a_config_with_random_weights(self):
        done = train(self.write_spec(model=None, model_config=self.path("model.config.json"), method="full",
                                     context_length=32, max_steps=30, save_steps=0), self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        steps = [e["loss"] for e in events_of(done.stdout) if e["event"] == "step"]
        self.assertLess(steps[-1], steps[0] - 0.5)


if __name__ == "__main__":
    harness.main()
