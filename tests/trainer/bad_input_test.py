"""Every mistake is one line that names the field, exit code 20, and nothing half-written."""
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import struct

import harness
from harness import TrainerTest, events_of, losses, read, run, train


class BadInputTest(TrainerTest):
    def assert_refused(self, done, *words, out=None):
        self.assertEqual(done.returncode, 20, done.stdout + done.stderr)
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        for word in words:
            self.assertIn(word, lines[0])
        if out is not None:
            self.assertFalse(os.path.exists(out), "the output folder was made although the job was refused")

    def refuse(self, *words, **changes):
        out = self.path("out")
        done = train(self.write_spec(**changes), out)
        self.assert_refused(done, *words, out=out)
        errors = [e for e in events_of(done.stdout) if e["event"] == "error"]
        self.assertEqual([e["class"] for e in errors], ["user"])

    def test_unknown_model(self):
        self.refuse("model", "no-such-model", model="no-such-model")

    def test_context_below_the_original(self):
        self.refuse("context_length", "32", "16", context_length=16)

    def test_context_not_positive(self):
        for context in (0, -5):
            self.refuse("context_length", str(context), context_length=context)

    def test_a_wait_for_ranks_that_has_no_end(self):
        for flag in ("--collective-timeout-s", "--peer-silence-s"):
            for seconds in ("inf", "nan", "1e300", "0", "-1"):
                done = run("run", "--spec", self.write_spec(), "--out", self.path("out"), "--rank", 0, "--world", 2, flag, seconds)
                self.assert_refused(done, flag, "1 to 86400 seconds", out=self.path("out"))

    def test_missing_data(self):
        self.refuse("data", "no-such-file", data=self.path("no-such-file"))
        self.refuse("data", data=None)

    def test_unknown_key_names_the_nearest(self):
        done = train(self.write_spec(learning_rat=1), self.path("out"))
        self.assert_refused(done, "learning_rat", "learning_rate", out=self.path("out"))

    def test_unreadable_token_file(self):
        with open(self.path("odd.bin"), "wb") as f:
            f.write(b"abc")
        self.refuse("odd.bin", data=self.path("odd.bin"))

    def test_token_outside_the_vocabulary(self):
        self.refuse("big.bin", "96", "at token", data=self.make_tokens("big.bin", 400, vocab=300))

    def test_truncated_token_file(self):
        path = self.make_tokens("cut.bin", 400, documents=[[0, 150], [150, 400]])
        os.truncate(path, 600)
        self.refuse("cut.bin", "400 tokens (800 bytes)", "300 tokens (600 bytes)", data=path)
        os.truncate(path, 601)
        self.refuse("cut.bin", "a multiple of 2 bytes", "601", data=path)

    def test_sidecar_that_lies(self):
        path = self.make_tokens("odd.bin", 400)
        for sidecar, words in (
                ('{"dtype": "uint32", "token_count": 400}', ["1600 bytes", "800 bytes"]),
                ('{"dtype": "float16"}', ["odd.bin.json dtype", "uint16 or uint32", "float16"]),
                ('{"dtype": "uint16", "token_count": 18446744073709551615}', ["odd.bin.json token_count"]),
                ('{"dtype": "uint16", "documents": [[0, 200], [100, 400]]}', ["odd.bin.json documents", "[100,400]"]),
                ('{"dtype": "uint16", "documents": [[0, 401]]}', ["odd.bin.json documents", "400", "401"]),
                ('{"dtype": "uint16",\n "documents": [[0, 400]', ["odd.bin.json", "line 2"]),
                ('{"documents": ' + "[" * 100_000, ["odd.bin.json", "levels"])):
            with open(path + ".json", "w") as f:
                f.write(sidecar)
            self.refuse(*words, data=path)

    def test_data_of_another_tokenizer_is_told(self):
        data, tokenizer = self.make_tokens("packed.bin", 400), os.path.join(self.model, "tokenizer.json")
        with open(tokenizer, "w") as f:
            f.write('{"model": {}}')

        def warnings(sidecar):
            with open(data + ".json", "w") as f:
                json.dump({"dtype": "uint16", "token_count": 400, **sidecar}, f)
            done = train(self.write_spec(data=data, max_steps=1), self.path("out"))
            self.assertEqual(done.returncode, 0, done.stderr)
            shutil.rmtree(self.path("out"))
            return [e["message"] for e in events_of(done.stdout) if e["event"] == "warning" and "tokenizer" in e["message"]]

        self.assertEqual(warnings({}), [])
        self.assertEqual(warnings({"tokenizer_hash": hashlib.sha256(read(tokenizer, mode="rb")).hexdigest()}), [])
        told = warnings({"tokenizer_hash": "0" * 64})
        self.assertEqual(len(told), 1)
        self.assertIn(f"data: packed with another tokenizer than {tokenizer}", told[0])
        os.unlink(tokenizer)
        self.assertEqual(warnings({"tokenizer_hash": "0" * 64}), [])

    def test_dropout_in_attention_is_told_not_to_take_place(self):
        for given, told in ((0.0, 0), (0.1, 1)):
            model = self.make_model(f"dropout-{told}", attention_dropout=given)
            done = train(self.write_spec(model=model, max_steps=1), self.path(f"out-{told}"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(sum("attention_dropout 0.1" in e["message"] for e in events_of(done.stdout) if e["event"] == "warning"), told)

    def test_truncated_safetensors(self):
        path = os.path.join(self.model, "model.safetensors")
        size = os.path.getsize(path)
        os.truncate(path, size - 10)
        self.refuse("model.safetensors", "expected", "found")

    def test_wrong_dtype(self):
        path = os.path.join(self.model, "model.safetensors")
        raw = read(path, mode="rb")
        with open(path, "wb") as f:
            f.write(raw.replace(b'"F32"', b'"I32"', 1))
        self.refuse("model.safetensors", "I32")

    def test_missing_spec_file(self):
        self.assert_refused(train(self.path("none.yaml"), self.path("out")), "none.yaml", out=self.path("out"))

    def test_methods_of_later_versions(self):
        self.refuse("stages", "stages", stages=[64, 128])

    def test_bad_set(self):
        done = train(self.write_spec(), self.path("out"), "--set", "max_steps=soon")
        self.assert_refused(done, "max_steps", "soon", out=self.path("out"))

    def test_numbers_that_no_flag_takes(self):
        for flag, value in (("--threads", "-1"), ("--threads", "100000"), ("--seed", "-1"), ("--seed", "99999999999999999999")):
            done = run("eval", "passkey", "--model", self.model, flag, value)
            self.assertEqual(done.returncode, 20, done.stderr)
            self.assertRegex(done.stderr, rf"^ll-trainer eval passkey: {flag}: expected .*, found {value}; see")
        self.assertEqual(run("--version").stdout, run("version").stdout)

    def test_an_out_that_is_a_file(self):
        done = train(self.write_spec(), self.data)
        self.assertEqual(done.returncode, 20, done.stderr)  # the user's fault: no other attempt would do better
        self.assertIn("Not a directory", done.stderr)

    def test_boundaries_without_documents(self):
        self.refuse("document_boundaries", document_boundaries=True)

    def test_eval_of_a_file_too_short_for_a_window(self):
        done = run("eval", "perplexity", "--model", self.model, "--data", self.data, "--seq-len", 4096)
        self.assertEqual(done.returncode, 20)
        self.assertIn("tokens", done.stderr.splitlines()[-1])

    def test_adapter_folder_that_is_none(self):
        done = run("eval", "perplexity", "--model", self.model, "--adapter", self.dir, "--data", self.data,
                   "--seq-len", 32)
        self.assertEqual(done.returncode, 20)
        self.assertIn("adapter", done.stderr.splitlines()[-1])

    def test_adapter_config_that_is_none(self):
        adapter = self.path("adapter")
        os.makedirs(adapter)
        for text, word in (('{"peft_type": 7}', "peft_type"), ('{"peft_type": "LORA", "r": 1e-300}', "r: expected"),
                           ("{", "syntax error at line 1")):
            with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
                f.write(text)
            done = run("eval", "perplexity", "--model", self.model, "--adapter", adapter, "--data", self.data,
                       "--seq-len", 32)
            self.assertEqual(done.returncode, 20, done.stderr)
            self.assertIn("adapter_config.json", done.stderr.splitlines()[-1])
            self.assertIn(word, done.stderr.splitlines()[-1])

    def test_hostile_model_config(self):
        with open(os.path.join(self.model, "config.json"), "w") as f:
            f.write('{"model_type": ' + "[" * 100_000)
        self.refuse("config.json", "levels")

    def test_two_trainers_in_one_folder(self):
        os.makedirs(self.path("out"))
        with open(self.path("out", ".lock"), "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            self.assert_refused(train(self.write_spec(), self.path("out")), "--out", "another")


class FailingTest(TrainerTest):
    def assert_nan(self, done, *words):
        self.assertEqual(done.returncode, 50, done.stderr)
        errors = [e for e in events_of(done.stdout) if e["event"] == "error"]
        self.assertEqual([e["class"] for e in errors], ["nan"])
        for word in words:
            self.assertIn(word, errors[0]["message"])

    def test_not_a_number_keeps_the_checkpoints_before_it(self):
        out = self.path("out")
        done = train(self.write_spec(learning_rate=10, method="full", warmup_steps=0, max_grad_norm=0, adam_beta1=0,
                                     adam_beta2=0, max_steps=200, weight_decay=1, save_steps=1), out)
        last = max(losses(events_of(done.stdout)))
        self.assert_nan(done, f"at step {last + 1}")
        kept = sorted(os.listdir(os.path.join(out, "checkpoints")))
        self.assertEqual(kept[-1], f"step-{last:06d}")
        for name in kept:
            self.assertTrue(os.path.exists(os.path.join(out, "checkpoints", name, "COMPLETE")))

    def test_weights_that_are_not_numbers(self):
        path = os.path.join(self.model, "model.safetensors")
        raw = read(path, mode="rb")
        with open(path, "wb") as f:
            f.write(raw[:-4] + struct.pack("<f", float("nan")))
        out = self.path("out")
        self.assert_nan(train(self.write_spec(), out), "loss", "at step 1")
        self.assertEqual(os.listdir(os.path.join(out, "checkpoints")), [])

    def limited(self, bytes_limit):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit is an error, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_limit, bytes_limit))
        return limit

    def test_checkpoint_that_cannot_be_written(self):
        spec, out = self.write_spec(), self.path("out")
        done = train(spec, out, preexec_fn=self.limited(60_000))
        self.assertEqual(done.returncode, 30, done.stderr)
        events = events_of(done.stdout)
        self.assertEqual(max(e["step"] for e in events if e["event"] == "step"), 8)  # periodic failures: it went on
        warnings = [e for e in events if e["event"] == "warning" and "checkpoint" in e["message"]]
        self.assertEqual(len(warnings), 4)
        self.assertEqual([e["class"] for e in events if e["event"] == "error"], ["infrastructure"])
        self.assertEqual(os.listdir(os.path.join(out, "checkpoints")), [])
        again = train(spec, out)  # the disk has room again
        self.assertEqual(again.returncode, 0, again.stderr)


if __name__ == "__main__":
    harness.main()
