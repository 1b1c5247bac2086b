"""Evaluation as users run it: perplexity beside transformers, retrieval on tiny models, evaluation inside training."""
import json
import math
import os
import signal
import subprocess
import unittest
import xml.etree.ElementTree as ElementTree

import numpy
import torch
from transformers import AutoModelForCausalLM

import harness
from harness import Gang, TrainerTest, events_of, losses, read, run, train


def tokens_of(path):
    return torch.from_numpy(numpy.fromfile(path, dtype=numpy.uint16).astype(numpy.int64))


def official(model, ids, seq_len, stride):
    """As LongLoRA's eval.py: whole windows, the last start dropped, each window's mean, then their mean."""
    means = []
    with torch.no_grad():
        for start in list(range(0, len(ids) - seq_len, stride))[:-1]:
            x = ids[None, start:start + seq_len]
            means.append(model(input_ids=x, labels=x).loss.item())
    return sum(means) / len(means), len(means)


def exact(model, ids, seq_len, stride):
    """Hugging Face's strided recipe, weighted by tokens: each window scores what the ones before have not."""
    total, count, scored = 0.0, 0, 0
    with torch.no_grad():
        for begin in range(0, len(ids), stride):
            end = min(begin + seq_len, len(ids))
            logits = model(input_ids=ids[None, begin:end]).logits[0, :-1].double()
            nll = torch.nn.functional.cross_entropy(logits, ids[begin + 1:end], reduction="none")
            nll = nll[max(scored - begin - 1, 0):]
            total, count, scored = total + nll.sum().item(), count + len(nll), end
            if end == len(ids):
                break
    return total / count, count


class EvalTest(TrainerTest):
    def setUp(self):
        super().setUp()
        # A tokenizer of 320 pieces on the sentences of the tests, and a model with that vocabulary.
        with open(self.path("text.txt"), "w") as f:
            for i in range(400):
                f.write(f"The pass key is {i * 97 % 50000}. The grass is green. The sky is blue. Remember it {i}.\n")
        done = run("pack", self.path("text.txt"), "--train-tokenizer", self.path("tokenizer.model"), "--vocab-size", 300,
                   "--out", self.path("text.bin"))
        self.assertEqual(done.returncode, 0, done.stderr)
        vocab = json.loads(done.stdout.splitlines()[-1])["vocab_size"]
        self.talker = self.make_model("talker", vocab_size=vocab, max_position_embeddings=512)
        os.rename(self.path("tokenizer.model"), os.path.join(self.talker, "tokenizer.model"))

    def evaluate(self, task, *args, code=0):
        done = run("eval", task, "--threads", 1, *args)
        self.assertEqual(done.returncode, code, done.stderr)
        self.stderr = done.stderr
        return json.loads(done.stdout) if code == 0 else None

    def reference_model(self):
        return AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32).eval()

    # ---- perplexity

    def test_sigterm_ends_an_evaluation_at_once(self):
        # Windows for many minutes.
        with open(self.path("eval.json"), "w") as f:
            json.dump({"kind": "eval", "model": self.model, "eval_task": "perplexity", "eval_seq_len": 32, "eval_sliding_window": 1,
                       "eval_data": self.make_tokens("long.bin", 2000000)}, f)
        process = subprocess.Popen([harness.TRAINER, "train", "--spec", self.path("eval.json"), "--out", self.path("evaluated"),
                                    "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        while '"phase":"eval"' not in process.stdout.readline():
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=20), 10)

    def test_official_mode_is_that_of_longlora(self):
        nll, windows = official(self.reference_model(), tokens_of(self.data), 32, 16)
        ours = self.evaluate("perplexity", "--model", self.model, "--data", self.data, "--seq-len", 32,
                             "--sliding-window", 16)
        self.assertEqual((ours["windows"], ours["tokens"]), (windows, windows * 31))
        self.assertLess(abs(ours["perplexity"] - math.exp(nll)) / math.exp(nll), 1e-4)

    def test_exact_mode_counts_each_token_once(self):
        model, ids = self.reference_model(), tokens_of(self.data)
        for stride in (8, 31, 32):
            nll, count = exact(model, ids, 32, stride)
            ours = self.evaluate("perplexity", "--model", self.model, "--data", self.data, "--seq-len", 32,
                                 "--sliding-window", stride, "--mode", "exact")
            self.assertEqual(ours["tokens"], count)
            self.assertLess(abs(ours["nll"] - nll) / nll, 1e-5, stride)
            if stride < 32:
                self.assertEqual(count, len(ids) - 1)

    def test_perplexity_by_position(self):
        ids = tokens_of(self.data)
        sums = numpy.zeros(31)
        model = self.reference_model()
        windows = range(0, len(ids) - 31, 32)
        with torch.no_grad():
            for start in windows:
                logits = model(input_ids=ids[None, start:start + 32]).logits[0, :-1].double()
                sums += torch.nn.functional.cross_entropy(logits, ids[start + 1:start + 32], reduction="none").numpy()
        ours = self.evaluate("perplexity", "--model", self.model, "--data", self.data, "--seq-len", 32,
                             "--sliding-window", 32, "--mode", "exact", "--position-buckets", 4)
        buckets = ours["by_position"]
        self.assertEqual([(b["first"], b["last"]) for b in buckets], [(1, 8), (9, 16), (17, 24), (25, 31)])
        self.assertEqual(4000 % 32, 0)
        for b in buckets:
            part = sums[b["first"] - 1:b["last"]]
            self.assertEqual(b["tokens"], len(windows) * len(part))
            wanted = part.sum() / b["tokens"]
            self.assertLess(abs(b["nll"] - wanted) / wanted, 1e-5)

    def test_validation_bin_is_read_as_it_is(self):
        """uint16, little-endian, no header, no sidecar, ids up to the top of the vocabulary."""
        path = self.path("validation.bin")
        numpy.array([95, 0, 1, 300 % 96] * 40, dtype="<u2").tofile(path)
        self.assertEqual(self.evaluate("perplexity", "--model", self.model, "--data", path, "--seq-len", 16,
                                       "--sliding-window", 16)["windows"], 8)

    def test_any_number_of_ranks_gives_the_same_bits(self):
        for extra in ({"eval_mode": "exact", "eval_seq_len": 32, "eval_sliding_window": 8, "data": self.data},
                      {"eval_task": "passkey", "passkey_lengths": [256, 400], "passkey_depths": 3, "model": self.talker}):
            spec = self.path("eval.json")
            with open(spec, "w") as f:
                json.dump({"kind": "eval", "model": self.model, **extra}, f)
            results = []
            for world in (1, 2, 4):
                gang = Gang(spec, self.path(f"eval-{world}"), world)
                self.assertEqual(gang.wait(), [0] * world, gang.stderr)
                result = [e["result"] for e in gang.events[0] if e["event"] == "done"][0]
                del result["seconds"]
                results.append(result)
            self.assertEqual(results[0], results[1])
            self.assertEqual(results[0], results[2])

    def test_short_contexts_beside_the_base(self):
        self.assertEqual(train(self.write_spec(), self.path("out")).returncode, 0)
        adapter = self.path("out", "checkpoints", "step-000008")
        ours = self.evaluate("perplexity", "--adapter", adapter, "--data", self.data, "--seq-len", 64, "--mode", "exact",
                             "--compare-base")
        both = ours["compare_base"]
        self.assertEqual(both["seq_len"], 32)  # the base's own context
        at_32 = ["--data", self.data, "--seq-len", 32, "--sliding-window", 32, "--mode", "exact"]
        self.assertEqual(both["base_perplexity"], self.evaluate("perplexity", "--model", self.model, *at_32)["perplexity"])
        self.assertEqual(both["perplexity"], self.evaluate("perplexity", "--adapter", adapter, *at_32)["perplexity"])
        self.assertEqual(both["difference"], both["perplexity"] - both["base_perplexity"])
        full = train(self.write_spec(method="full"), self.path("full"))
        self.assertEqual(full.returncode, 0, full.stderr)
        adapter = self.path("full", "checkpoints", "step-000008")
        self.evaluate("perplexity", "--adapter", adapter, *at_32, "--compare-base", code=20)
        self.assertIn("model: expected the base to compare with", self.stderr)
        self.evaluate("perplexity", "--adapter", adapter, "--model", self.model, *at_32, "--compare-base")

    def test_table(self):
        done = run("eval", "perplexity", "--model", self.model, "--data", self.data, "--seq-len", 32, "-o", "table")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^perplexity +\d")
        self.assertRegex(done.stdout, r"(?m)^FIRST +LAST +TOKENS +NLL +PERPLEXITY$")

    # ---- retrieval

    def test_an_untrained_model_finds_no_key(self):
        plot = self.path("map.svg")
        ours = self.evaluate("passkey", "--model", self.talker, "--lengths", "256,400", "--depths", 3, "--num-tests", 2,
                             "--plot", plot)
        self.assertEqual(ours["tests"], 12)
        self.assertLess(ours["accuracy"], 0.2)
        self.assertEqual(ours["effective_context_length"], 0)
        self.assertEqual([row["length"] for row in ours["by_length"]], [256, 400])
        self.assertEqual(len(ours["grid"]), 6)
        self.assertEqual(ElementTree.parse(plot).getroot().tag, "{http://www.w3.org/2000/svg}svg")

    def test_longloras_protocol(self):
        ours = self.evaluate("passkey", "--model", self.talker, "--max-tokens", 600, "--interval", 300, "--num-tests", 2,
                             "--context-size", 2048)
        self.assertEqual(ours["protocol"], "longlora")
        self.assertEqual([row["tests"] for row in ours["by_length"]], [2, 2])
        self.assertNotIn("warning", self.stderr)

    def test_longer_than_the_model_reaches_is_a_warning(self):
        self.evaluate("passkey", "--model", self.talker, "--lengths", 600, "--depths", 1, "--num-tests", 1)
        warnings = [e["message"] for e in events_of(self.stderr) if e["event"] == "warning"]
        self.assertEqual(len(warnings), 1, self.stderr)
        self.assertIn("600 tokens are longer than the 512", warnings[0])

    def test_topics(self):
        ours = self.evaluate("topics", "--model", self.talker, "--lengths", "2000", "--num-tests", 2, "--context-size", 2000)
        self.assertEqual(ours["by_length"][0]["tests"], 2)
        self.assertEqual(ours["accuracy"], 0)
        self.evaluate("topics", "--model", self.talker, "--lengths", "2000", "--prompt", "chat", code=20)
        self.assertIn("chat template", self.stderr)

    def test_a_model_without_a_tokenizer_is_told_what_to_give(self):
        self.evaluate("passkey", "--model", self.model, "--lengths", 128, code=20)
        self.assertIn("tokenizer.json or tokenizer.model", self.stderr)
        # Ids the model has no rows for would be read beyond its embedding.
        self.evaluate("passkey", "--model", self.model, "--tokenizer", os.path.join(self.talker, "tokenizer.model"),
                      "--lengths", 128, code=20)
        self.assertIn("tokenizer: expected ids below the model's vocabulary of 96", self.stderr)

    def test_a_length_too_short_for_a_prompt(self):
        self.evaluate("passkey", "--model", self.talker, "--lengths", 10, code=20)
        self.assertIn("passkey_lengths: expected at least", self.stderr)

    # ---- inside training

    def training(self, **changes):
        return self.write_spec(model=self.talker, data=self.path("text.bin"), context_length=512, max_steps=6,
                               lora_dropout=0.1, **changes)

    def test_evaluation_does_not_change_the_training_by_a_bit(self):
        plain = train(self.training(), self.path("plain"))
        self.assertEqual(plain.returncode, 0, plain.stderr)
        measured = train(self.training(eval_steps=2, eval_data=self.path("text.bin"), passkey_lengths=[256, 400],
                                       passkey_depths=2), self.path("measured"))
        self.assertEqual(measured.returncode, 0, measured.stderr)
        self.assertEqual(losses(events_of(plain.stdout)), losses(events_of(measured.stdout)))
        self.assertEqual(read(self.path("plain"), "checkpoints", "step-000006", "adapter_model.safetensors", mode="rb"),
                         read(self.path("measured"), "checkpoints", "step-000006", "adapter_model.safetensors", mode="rb"))
        evals = [e for e in events_of(measured.stdout) if e["event"] == "eval"]
        self.assertEqual([e["step"] for e in evals], [2, 4, 6])
        for e in evals:
            self.assertEqual(e["passkey"]["tests"], 4)
            self.assertEqual(e["effective_context_length"], e["passkey"]["effective_context_length"])

    def test_the_grid_in_training_is_the_one_of_the_checkpoint(self):
        done = train(self.training(eval_steps=6, eval_data=self.path("text.bin"), passkey_lengths=[256], passkey_depths=2,
                                   eval_num_tests=2), self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        inside = [e["passkey"] for e in events_of(done.stdout) if e["event"] == "eval"][-1]
        after = self.evaluate("passkey", "--adapter", self.path("out", "checkpoints", "step-000006"), "--lengths", 256,
                              "--depths", 2, "--num-tests", 2)
        self.assertEqual(inside["grid"], after["grid"])

    def test_early_stopping_ends_with_a_checkpoint_and_the_reason(self):
        # A learning rate this small gains less than the threshold at every evaluation but the first.
        spec = self.write_spec(learning_rate=1e-9, eval_steps=2, eval_data=self.data, max_steps=40, save_steps=0,
                               early_stopping_patience=2, early_stopping_threshold=0.01)
        done = train(spec, self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        events = events_of(done.stdout)
        self.assertEqual(max(losses(events)), 6)  # gains at 2, none at 4 and 6
        result = [e["result"] for e in events if e["event"] == "done"][0]
        self.assertIn("early stopping: perplexity did not fall below", result["stop_reason"])
        self.assertTrue(os.path.exists(self.path("out", "checkpoints", "step-000006", "COMPLETE")))
        # The end stays the end when the job is started again.
        again = train(spec, self.path("out"))
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(losses(events_of(again.stdout)), {})
        # Without patience the same training goes on.
        more = train(spec, self.path("out"), "--set", "early_stopping_patience=0", "--set", "max_steps=8")
        self.assertEqual(max(losses(events_of(more.stdout))), 8)

    def test_early_stopping_is_the_same_after_a_kill(self):
        keys = dict(learning_rate=1e-9, eval_steps=2, eval_data=self.data, max_steps=40, save_steps=2,
                    early_stopping_patience=2, early_stopping_threshold=0.01)
        harness.kill_at_step(["train", "--spec", self.write_spec(**keys), "--out", self.path("out"), "--threads", 1], 5)
        done = train(self.write_spec(**keys), self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(max(losses(events_of(done.stdout)), default=6), 6)

    def test_passkey_lengths_need_a_tokenizer_before_training_starts(self):
        done = train(self.write_spec(eval_steps=2, eval_data=self.data, passkey_lengths=[256]), self.path("out"))
        self.assertEqual(done.returncode, 20)
        self.assertIn("tokenizer.json or tokenizer.model", done.stderr)
        self.assertFalse(os.path.exists(self.path("out")))


if __name__ == "__main__":
    harness.main()
