"""Supervised fine-tuning and training from text, whole program: labels, loss, resume, packing, bad samples, ranks."""
import json
import os
import struct
import unittest

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import harness
from harness import Gang, TrainerTest, events_of, losses, read, train

PAIRS = [(f"Say {word} {n} times", " ".join([word] * n) + ".")
         for n in (1, 2, 3, 4) for word in ("red", "green", "blue", "sun", "moon")]
VOCAB = 300


def tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([" ".join(pair) for pair in PAIRS], trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"],
        show_progress=False))
    return t


class SftCase(TrainerTest):
    def setUp(self):
        super().setUp()
        self.model = self.make_model("chat", vocab_size=VOCAB + 4, max_position_embeddings=64)
        self.tokenizer = tokenizer()
        self.tokenizer.save(os.path.join(self.model, "tokenizer.json"))
        with open(os.path.join(self.model, "tokenizer_config.json"), "w") as f:
            json.dump({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}, f)
        self.data = self.write_lines("samples.jsonl", [{"instruction": q, "output": a} for q, a in PAIRS])
        self.tokens = self.write_tokens("samples.bin")

    def write_tokens(self, name):
        """The samples as a token file, made here."""
        ids, documents, spans = [], [], []
        for question, answer in PAIRS:
            prompt = [0] + self.tokenizer.encode(f"[INST]{question}[/INST]").ids
            sample = prompt + self.tokenizer.encode(answer).ids + [1]
            documents.append((len(ids), len(ids) + len(sample)))
            spans.append((len(ids) + len(prompt), len(ids) + len(sample)))
            ids += sample
        with open(self.path(name), "wb") as f:
            f.write(struct.pack(f"<{len(ids)}H", *ids))
        with open(self.path(name + ".json"), "w") as f:
            json.dump({"dtype": "uint16", "token_count": len(ids), "documents": documents, "loss_spans": spans}, f)
        self.lengths = [end - start for start, end in documents]
        return self.path(name)

    def write_lines(self, name, entries):
        with open(self.path(name), "w") as f:
            f.writelines(json.dumps(entry) + "\n" for entry in entries)
        return self.path(name)

    def sft_spec(self, name="sft.yaml", **changes):
        return self.write_spec(name, **{"sft": True, "context_length": 128, "max_seq_length": 64, **changes})

    def run_ok(self, spec, out, *more):
        done = train(spec, self.path(out), *more)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        return events_of(done.stdout)

    def packed_samples(self, out):
        """(ids, loss spans relative to the sample) of every sample of the packed file."""
        folder = self.path(out, "data")
        [name] = [n for n in os.listdir(folder) if n.endswith(".bin")]
        raw, sidecar = read(folder, name, mode="rb"), json.loads(read(folder, name + ".json"))
        ids = struct.unpack(f"<{len(raw) // 2}H", raw)
        return os.path.join(folder, name), [
            (list(ids[a:b]), [(s - a, e - a) for s, e in sidecar["loss_spans"] if a <= s and e <= b])
            for a, b in sidecar["documents"]]


class TokensTest(SftCase):
    """Samples in a token file."""

    def sft_spec(self, name="sft.yaml", **changes):
        return super().sft_spec(name, **{"data": self.tokens, **changes})

    def test_the_loss_falls(self):
        events = self.run_ok(self.sft_spec(max_steps=16), "out")
        curve = [loss for _, (loss, _) in sorted(losses(events).items())]
        self.assertLess(curve[-1], 0.6 * curve[0], curve)

    def test_packed_samples_have_the_loss_and_gradients_they_have_alone(self):
        for attention in ("full", "s2"):
            plain = dict(attention=attention, global_batch_size=len(PAIRS), max_steps=3, warmup_steps=0)
            alone = losses(self.run_ok(self.sft_spec(**plain), f"alone-{attention}"))
            rooms = []
            for length in self.lengths:  # first fit
                slot = next((i for i, room in enumerate(rooms) if room >= length), None)
                if slot is None:
                    rooms.append(64 - length)
                else:
                    rooms[slot] -= length
            self.assertLess(len(rooms), len(PAIRS))
            packed = losses(self.run_ok(self.sft_spec(**{**plain, "global_batch_size": len(rooms)}, sft_packing=True),
                                        f"packed-{attention}"))
            for step in alone:  # later steps depend on every gradient of the steps before
                for a, b in zip(alone[step], packed[step]):
                    self.assertAlmostEqual(a, b, delta=2e-5 * abs(a), msg=f"{attention} step {step}")

    def test_several_passes(self):
        events = self.run_ok(self.sft_spec(global_batch_size=3, max_steps=15), "out")  # more than two passes
        self.assertEqual(len(losses(events)), 15)

    def test_longloras_group_rule(self):
        by_length = losses(self.run_ok(self.sft_spec(sft_group="longlora_sft"), "rule"))
        full = losses(self.run_ok(self.sft_spec(attention="full"), "full"))
        for step in full:  # below 8192 tokens its groups hold the whole sample
            self.assertAlmostEqual(by_length[step][0], full[step][0], delta=1e-4)

    def test_two_ranks_train_as_one(self):
        alone = losses(self.run_ok(self.sft_spec(), "alone"))
        gang = Gang(self.sft_spec(), self.path("gang"), 2)
        self.assertEqual(gang.wait(), [0, 0], gang.events)
        for step, (loss, norm) in losses(gang.events[0]).items():
            self.assertAlmostEqual(loss, alone[step][0], delta=1e-5)
            self.assertAlmostEqual(norm, alone[step][1], delta=1e-4)

    def test_a_token_file_without_targets_is_refused(self):
        done = train(self.sft_spec(data=self.make_tokens("plain.bin", 500)), self.path("out"))
        self.assertEqual(done.returncode, 20)
        self.assertIn("loss_spans", done.stderr)

    def test_keys_of_sft_need_sft(self):
        done = train(self.sft_spec(sft=False, prompt_template="llama2"), self.path("out"))
        self.assertEqual(done.returncode, 20)
        self.assertIn("sft: expected true", done.stderr)

    def test_resume_has_the_same_bits(self):
        whole = losses(self.run_ok(self.sft_spec(max_steps=8, sft_packing=True), "whole"))
        self.run_ok(self.sft_spec(max_steps=4, sft_packing=True), "parts")
        rest = losses(self.run_ok(self.sft_spec(max_steps=8, sft_packing=True), "parts"))
        self.assertEqual(rest, {step: whole[step] for step in (5, 6, 7, 8)})
        done = train(self.sft_spec(max_steps=9), self.path("parts"))
        self.assertEqual(done.returncode, 20)
        self.assertIn("sft_packing", done.stderr)

    def test_rows_stay_the_same_when_a_job_resumes(self):
        short = sorted(self.lengths)[len(PAIRS) // 2]  # the file holds longer samples
        spec = {"max_seq_length": short, "data": self.tokens}
        self.run_ok(self.sft_spec(max_steps=4, **spec), "out")
        done = train(self.sft_spec(max_steps=8, truncation="drop", **spec), self.path("out"))
        self.assertEqual(done.returncode, 20)
        self.assertIn("truncation", done.stderr)


class SamplesTest(SftCase):
    """Samples as text."""

    def test_the_answers_are_trained(self):
        self.run_ok(self.sft_spec(max_steps=1), "out")
        _, samples = self.packed_samples("out")
        self.assertEqual(len(samples), len(PAIRS))
        for (question, answer), (ids, spans) in zip(PAIRS, samples):
            [(start, end)] = spans
            self.assertEqual(self.tokenizer.decode(ids[start:end]), answer)
            self.assertEqual(ids[0], self.tokenizer.token_to_id("<s>"))
            self.assertEqual(ids[end - 1], self.tokenizer.token_to_id("</s>"))
            self.assertEqual(self.tokenizer.decode(ids[:start]), f"[INST]{question}[/INST]")

    def test_resume_has_the_same_bits_and_packs_once(self):
        whole = losses(self.run_ok(self.sft_spec(max_steps=8), "whole"))
        self.run_ok(self.sft_spec(max_steps=4), "parts")
        path, _ = self.packed_samples("parts")
        before = os.stat(path).st_mtime_ns
        rest = losses(self.run_ok(self.sft_spec(max_steps=8), "parts"))
        self.assertEqual(sorted(rest), [5, 6, 7, 8])
        self.assertEqual(rest, {step: whole[step] for step in rest})
        self.assertEqual(os.stat(path).st_mtime_ns, before)

    def test_other_samples_are_not_resumed(self):
        self.run_ok(self.sft_spec(max_steps=2), "out")
        self.write_lines("samples.jsonl", [{"instruction": q, "output": a + "!"} for q, a in PAIRS])
        done = train(self.sft_spec(max_steps=4), self.path("out"))
        self.assertEqual(done.returncode, 20, done.stderr)
        self.assertIn("data", done.stderr)

    def test_bad_samples_stop_the_job_or_are_skipped(self):
        entries = [{"instruction": q, "output": a} for q, a in PAIRS]
        entries[2]["output"] = "  "
        self.write_lines("samples.jsonl", entries)
        done = train(self.sft_spec(), self.path("stopped"))
        self.assertEqual(done.returncode, 20, done.stderr)
        self.assertIn("samples.jsonl:3", done.stderr)
        self.assertIn("answer is empty", done.stderr)
        events = self.run_ok(self.sft_spec(on_bad_sample="skip"), "skipped")
        warnings = " ".join(e["message"] for e in events if e["event"] == "warning")
        self.assertIn("samples.jsonl:3", warnings)
        self.assertEqual(len(self.packed_samples("skipped")[1]), len(PAIRS) - 1)

    def test_truncation(self):
        long = {"instruction": "Say " + "red " * 80, "output": "red red red."}
        self.write_lines("samples.jsonl", [{"instruction": q, "output": a} for q, a in PAIRS] + [long])
        place = f"samples.jsonl:{len(PAIRS) + 1}"
        done = train(self.sft_spec(truncation="error"), self.path("error"))
        self.assertEqual(done.returncode, 20)
        self.assertIn(place, done.stderr)
        self.assertIn("max_seq_length", done.stderr)
        done = train(self.sft_spec(), self.path("right"))  # the whole answer would be cut off
        self.assertEqual(done.returncode, 20)
        self.assertIn(place, done.stderr)
        self.run_ok(self.sft_spec(truncation="drop"), "drop")
        self.assertEqual(len(self.packed_samples("drop")[1]), len(PAIRS))
        self.run_ok(self.sft_spec(truncation="left"), "left")
        ids, [(start, end)] = self.packed_samples("left")[1][-1]
        self.assertEqual(len(ids), 64)
        self.assertEqual(self.tokenizer.decode(ids[start:end]), long["output"])

    def test_conversations_and_the_folders_own_template(self):
        with open(os.path.join(self.model, "chat_template.jinja"), "w") as f:
            f.write("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
                    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
                    "{% if add_generation_prompt %}[assistant]{% endif %}")
        self.write_lines("samples.jsonl", [{"messages": [
            {"role": "user", "content": q}, {"role": "assistant", "content": a},
            {"role": "user", "content": "again"}, {"role": "assistant", "content": a}]} for q, a in PAIRS])
        self.run_ok(self.sft_spec(prompt_template="chat_template"), "out")
        for (_, answer), (ids, spans) in zip(PAIRS, self.packed_samples("out")[1]):
            self.assertEqual([self.tokenizer.decode(ids[s:e], skip_special_tokens=False) for s, e in spans],
                             [answer + "</s>"] * 2)

    def test_ranks_wait_for_the_one_that_packs(self):
        alone = losses(self.run_ok(self.sft_spec(), "alone"))
        gang = Gang(self.sft_spec(), self.path("gang"), 2)
        self.assertEqual(gang.wait(), [0, 0], gang.events)
        for step, (loss, _) in losses(gang.events[0]).items():
            self.assertAlmostEqual(loss, alone[step][0], delta=1e-5)
        self.assertEqual(len(self.packed_samples("gang")[1]), len(PAIRS))

    def test_a_packed_file_trains_as_its_text(self):
        from_text = losses(self.run_ok(self.sft_spec(), "text"))
        path, _ = self.packed_samples("text")
        self.assertEqual(losses(self.run_ok(self.sft_spec(data=path), "tokens")), from_text)


class TextTest(SftCase):
    """Pre-training on text without packing it first."""

    def test_text_trains_as_the_packed_file(self):
        text = "".join(f"{q} {a}\n" for q, a in PAIRS)
        with open(self.path("text.txt"), "w") as f:
            f.write(text)
        events = self.run_ok(self.write_spec(data=self.path("text.txt")), "text")
        done = harness.run("pack", "--tokenizer", self.model, "--out", self.path("packed.bin"), self.path("text.txt"))
        self.assertEqual(done.returncode, 0, done.stderr)
        packed = self.run_ok(self.write_spec(data=self.path("packed.bin")), "packed")
        self.assertEqual(losses(events), losses(packed))

    def test_json_lines(self):
        data = self.write_lines("text.jsonl", [{"text": f"{q} {a}"} for q, a in PAIRS])
        self.run_ok(self.write_spec(data=data, document_boundaries=True), "out")
        self.assertEqual(len(self.packed_documents("out")), len(PAIRS))

    def packed_documents(self, out):
        folder = self.path(out, "data")
        [name] = [n for n in os.listdir(folder) if n.endswith(".bin.json")]
        return json.loads(read(folder, name))["documents"]


if __name__ == "__main__":
    harness.main()
