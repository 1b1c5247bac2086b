"""`ll-trainer generate` and `chat`: whole programs on a tiny model, beside transformers."""
import json
import os
import pty
import select
import subprocess
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import harness
from harness import TrainerTest, read, run, train

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def tokenizer():
    """A token for each ASCII character, and a few special ones."""
    vocab = {text: i for i, text in enumerate(SPECIAL + [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"added_tokens": [{"id": vocab[t], "content": t, "special": True, "normalized": False} for t in SPECIAL],
            "pre_tokenizer": level, "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}


class GenerateTest(TrainerTest):
    def setUp(self):
        super().setUp()
        self.model = self.make_model("talker", vocab_size=100, eos_token_id=1, bos_token_id=0)
        self.write_tokenizer(self.model)

    def write_tokenizer(self, folder):
        for name, value in (("tokenizer.json", tokenizer()),
                            ("tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE})):
            with open(os.path.join(folder, name), "w") as f:
                json.dump(value, f)

    def generate(self, *flags, **options):
        return run("generate", "--model", self.model, "--threads", 1, *flags, **options)

    def answer(self, *flags, **options):
        done = self.generate("--json", *flags, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def chat(self, lines, *flags):
        done = run("chat", "--model", self.model, "--threads", 1, "--temperature", 0, *flags,
                   input="".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def expect_error(self, done, code, *parts):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)

    # ---- generate

    def test_greedy_is_transformers(self):
        got = self.answer("--prompt", "Hello", "--max-new-tokens", 20, "--ignore-eos")
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        prompt = torch.tensor([[ord(c) - 33 + 4 for c in "Hello"]])
        model.generation_config.eos_token_id = None
        theirs = model.generate(prompt, do_sample=False, max_new_tokens=20)[0, 5:].tolist()
        self.assertEqual(got["ids"], theirs)
        self.assertEqual((got["prompt_tokens"], got["new_tokens"], got["finish_reason"]), (5, 20, "length"))
        self.assertGreater(got["tokens_per_second"], 0)

    def test_prompt_from_flag_file_and_standard_input(self):
        with open(self.path("prompt.txt"), "w") as f:
            f.write("some text")
        flags = ("--max-new-tokens", 12)
        expected = self.answer("--prompt", "some text", *flags)["ids"]
        self.assertEqual(self.answer("--prompt-file", self.path("prompt.txt"), *flags)["ids"], expected)
        self.assertEqual(self.answer(*flags, input="some text")["ids"], expected)

    def test_streams_the_text(self):
        text = self.answer("--prompt", "abc", "--max-new-tokens", 15)["text"]
        done = self.generate("--prompt", "abc", "--max-new-tokens", 15)
        self.assertEqual(done.stdout, text + "\n")

    def test_sampling_by_seed(self):
        def sample(seed):
            return self.answer("--prompt", "abc", "--temperature", 1, "--top-p", 0.95, "--top-k", 60, "--seed", seed,
                               "--max-new-tokens", 30, "--ignore-eos")["ids"]
        self.assertEqual(sample(1), sample(1))
        self.assertNotEqual(sample(1), sample(2))

    def test_stop_strings_and_eos_ids(self):
        free = self.answer("--prompt", "abc", "--temperature", 1, "--max-new-tokens", 30, "--ignore-eos")
        stop = free["text"][6:9]
        got = self.answer("--prompt", "abc", "--temperature", 1, "--max-new-tokens", 30, "--ignore-eos", "--stop", stop,
                          "--stop", "never this")
        self.assertEqual(got["finish_reason"], "stop")
        self.assertEqual(got["text"], free["text"][:free["text"].index(stop)])
        with open(os.path.join(self.model, "generation_config.json"), "w") as f:
            json.dump({"eos_token_id": [99, free["ids"][4]]}, f)
        got = self.answer("--prompt", "abc", "--temperature", 1, "--max-new-tokens", 30)
        self.assertEqual(got["finish_reason"], "eos")
        self.assertEqual(got["ids"], free["ids"][:free["ids"].index(free["ids"][4]) + 1])

    def test_adapter_brings_its_scaling(self):
        out = self.path("out")
        done = train(self.write_spec(model=self.model, context_length=64, max_steps=2), out)
        self.assertEqual(done.returncode, 0, done.stderr)
        adapter = os.path.join(out, "checkpoints", sorted(os.listdir(os.path.join(out, "checkpoints")))[-1])
        got = self.answer("--adapter", adapter, "--prompt", "x" * 40, "--max-new-tokens", 16, "--ignore-eos", "--strict")
        base = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        config = json.loads(read(adapter, "config.json"))
        self.assertEqual(config["rope_parameters"]["factor"], 2.0)
        base.config.rope_parameters = config["rope_parameters"]
        base.model.rotary_emb = type(base.model.rotary_emb)(base.config)
        model = PeftModel.from_pretrained(base, adapter).eval()
        model.generation_config.eos_token_id = None
        prompt = torch.tensor([[ord("x") - 33 + 4] * 40])
        theirs = model.generate(input_ids=prompt, do_sample=False, max_new_tokens=16)[0, 40:].tolist()
        self.assertEqual(got["ids"], theirs)

    def test_nf4_and_bf16(self):
        model = self.make_model("wide", vocab_size=100, hidden_size=64, intermediate_size=128)
        self.write_tokenizer(model)
        for flags in (("--quantization", "nf4"), ("--precision", "bf16"), ("--quantization", "nf4", "--precision", "bf16")):
            self.model = model
            self.assertEqual(self.answer("--prompt", "abc", "--max-new-tokens", 8, "--ignore-eos", *flags)["new_tokens"], 8)

    def test_bad_input(self):
        self.expect_error(self.generate("--prompt", ""), 20, "prompt", "some text")
        self.expect_error(self.generate(input=""), 20, "prompt")
        self.expect_error(self.generate("--prompt-file", self.path("none.txt")), 20, "prompt-file", "none.txt")
        self.expect_error(run("generate", "--prompt", "x"), 20, "model")
        self.expect_error(run("generate", "--model", self.path("nowhere"), "--prompt", "x"), 20, "nowhere")
        no_tokenizer = self.make_model("silent")
        self.expect_error(run("generate", "--model", no_tokenizer, "--prompt", "x"), 20, "tokenizer", "--tokenizer")
        self.expect_error(run("generate", "--model", no_tokenizer, "--tokenizer", self.model, "--prompt", "x"), 20,
                          "tokenizer", "96", "100")
        self.assertEqual(self.generate("--prompt", "x", "--top-p", 1.5).returncode, 20)
        self.expect_error(self.generate("--prompt", "x", "--top-p", 0), 20, "top_p")

    def test_beyond_the_context(self):
        flags = ("--prompt", "x" * 30, "--max-new-tokens", 10)
        self.expect_error(self.generate(*flags, "--strict"), 20, "40 tokens", "32", "--context-size")
        done = self.generate(*flags)
        self.assertEqual(done.returncode, 0)
        self.assertIn("warning: 40 tokens", done.stderr)
        done = self.generate(*flags, "--strict", "--context-size", 64)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_cache_that_memory_cannot_hold(self):
        self.model = self.make_model("fat", vocab_size=100, num_attention_heads=16, num_key_value_heads=16, head_dim=64,
                                     max_position_embeddings=1 << 24)
        self.write_tokenizer(self.model)
        self.expect_error(self.generate("--prompt", "x", "--max-new-tokens", 15_000_000), 40, "15000001 tokens", "GB available")

    # ---- chat with a program

    def test_json_lines(self):
        first = [{"role": "user", "content": "hi"}]
        events = self.chat([{"prompt": "abc", "max_new_tokens": 9, "ignore_eos": True},
                            {"messages": first, "max_new_tokens": 6, "request_id": "r7"},
                            "no json\n", {"messages": [{"role": "assistant", "content": "x"}]}, {"prompt": "abc", "seed": -3},
                            {"prompt": "abc", "max_new_tokens": 9, "ignore_eos": True}])
        answers = [e for e in events if e["event"] != "token"]
        self.assertEqual([e["event"] for e in answers], ["answer", "answer", "error", "error", "error", "answer"])
        self.assertEqual(answers[0]["ids"], self.answer("--prompt", "abc", "--max-new-tokens", 9, "--ignore-eos")["ids"])
        self.assertEqual(answers[5]["ids"], answers[0]["ids"])
        self.assertEqual(answers[1]["request_id"], "r7")
        self.assertEqual(answers[1]["prompt_tokens"], 3 + len("user\nhi\nassistant\n"))
        self.assertEqual(answers[4]["field"], "seed")
        streamed = "".join(e["text"] for e in events[:events.index(answers[0])])
        self.assertEqual(streamed, answers[0]["text"])

    def test_the_next_turn_reuses_the_cache(self):
        turn = {"role": "user", "content": "hello there"}
        events = self.chat([{"messages": [turn], "max_new_tokens": 8},
                            {"messages": [turn, {"role": "assistant", "content": "yes"}, turn], "max_new_tokens": 8}])
        answers = [e for e in events if e["event"] == "answer"]
        self.assertEqual(answers[0]["reused_tokens"], 0)
        self.assertGreaterEqual(answers[1]["reused_tokens"], answers[0]["prompt_tokens"])
        fresh = [e for e in self.chat([{"messages": [turn, {"role": "assistant", "content": "yes"}, turn],
                                        "max_new_tokens": 8}]) if e["event"] == "answer"]
        self.assertEqual(answers[1]["ids"], fresh[0]["ids"])

    def test_no_chat_template(self):
        os.remove(os.path.join(self.model, "tokenizer_config.json"))
        messages = [{"role": "user", "content": "hi"}]
        self.assertEqual(self.chat([{"messages": messages}])[0]["field"], "prompt_template")

    # ---- chat with a person

    def test_terminal(self):
        master, slave = pty.openpty()
        command = [harness.TRAINER, "chat", "--model", self.model, "--threads", "1", "--temperature", "1", "--ignore-eos",
                   "--max-new-tokens", "5"]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True)
        os.close(slave)
        self.addCleanup(process.kill)
        seen = ""

        def expect_prompt(count):
            nonlocal seen
            deadline = time.monotonic() + harness.DEADLINE_S
            while seen.count("> ") < count:
                self.assertLess(time.monotonic(), deadline, seen)
                if select.select([master], [], [], 1)[0]:
                    seen += os.read(master, 4096).decode(errors="replace")

        expect_prompt(1)
        for n, line in enumerate([b"hi\n", b"again\n", b"/reset\n", b"hi\n"]):
            os.write(master, line)
            expect_prompt(n + 2)
        process.send_signal(2)  # at the prompt: a new one
        expect_prompt(6)
        os.write(master, b"\x04")
        self.assertEqual(process.wait(harness.DEADLINE_S), 0)
        os.close(master)

    def test_a_terminal_does_not_obey_the_model(self):
        """One of the tokens is the escape character: a pipe gets it, a terminal does not."""
        said = self.answer("--prompt", "abc", "--max-new-tokens", 5, "--ignore-eos")["ids"][0]
        made = tokenizer()
        vocab = made["model"]["vocab"]
        self.assertNotIn(said, [vocab[c] for c in "abc"])
        made["model"]["vocab"] = {"\u011b" if i == said else text: i for text, i in vocab.items()}
        with open(os.path.join(self.model, "tokenizer.json"), "w") as f:
            json.dump(made, f)
        flags = ("--prompt", "abc", "--max-new-tokens", "1", "--ignore-eos")
        self.assertEqual(self.generate(*flags).stdout, "\x1b\n")
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        subprocess.run([harness.TRAINER, "generate", "--model", self.model, "--threads", "1", *flags], stdin=subprocess.DEVNULL, stdout=theirs,
                       stderr=subprocess.DEVNULL, check=True, timeout=harness.DEADLINE_S)
        os.close(theirs)
        self.assertEqual(os.read(ours, 100), b"?\r\n")

    def test_interrupt_ends_the_answer(self):
        process = subprocess.Popen([harness.TRAINER, "chat", "--model", self.model, "--threads", "1", "--ignore-eos",
                                    "--temperature", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(process.kill)
        process.stdin.write(json.dumps({"prompt": "abc", "max_new_tokens": 1_000_000}) + "\n")
        process.stdin.flush()
        self.assertEqual(json.loads(process.stdout.readline())["event"], "token")
        process.send_signal(2)
        for line in process.stdout:
            if json.loads(line)["event"] == "answer":
                break
        self.assertEqual(json.loads(line)["finish_reason"], "interrupted")
        process.stdin.close()
        self.assertEqual(process.wait(harness.DEADLINE_S), 0)
        process.stdout.close()


if __name__ == "__main__":
    harness.main()
