#!/usr/bin/env python3
"""llctl data pack and data doctor as a user runs them; neither needs a coordinator.

  data_test.py BIN_DIR   (with llctl and ll-data)
"""
import array
import gzip
import json
import os
import pathlib
import pty
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
DEMO_MODEL = pathlib.Path(__file__).resolve().parents[2] / "deploy/demo/base"  # a SentencePiece tokenizer
BOS, EOS = 256, 257


def byte_tokenizer():
    """Bytes as tokens: byte b is id b, then <s> and </s>."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    letters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    special = [{"id": BOS, "content": "<s>", "special": True}, {"id": EOS, "content": "</s>", "special": True}]
    return {
        "model": {"type": "BPE", "vocab": {letter: b for b, letter in letters.items()}, "merges": []},
        "added_tokens": special,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "decoder": {"type": "ByteLevel"},
    }


class DataTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ll-data-")
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        model = self.root / "model"
        model.mkdir()
        (model / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
        (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))

    def write(self, name, *objects):
        (self.root / name).write_text("".join(json.dumps(o) + "\n" for o in objects))

    def llctl(self, *arguments, code=0):
        run = subprocess.run([BIN / "llctl", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                             stdin=subprocess.DEVNULL, cwd=self.root)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run

    def pack(self, *arguments, **kwargs):
        return self.llctl("data", "pack", "--tokenizer", "model", "--out", "f.bin", *arguments, **kwargs)

    def read(self, name="f.bin"):
        """Ids and sidecar."""
        ids = array.array("H", (self.root / name).read_bytes())
        return list(ids), json.loads((self.root / (name + ".json")).read_text())

    def test_text(self):
        (self.root / "a.txt").write_text("Grüße")
        (self.root / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "two"}\n{"text": "three"}\n'))
        run = self.pack("a.txt", "b.jsonl.gz", "--bos", "-o", "json")
        self.assertEqual(json.loads(run.stdout), {"tokens": 21, "documents": 3, "text_bytes": 7 + 16 + 18,
                                                  "vocab_size": 258, "out": "f.bin"})
        ids, sidecar = self.read()
        self.assertEqual(ids, [BOS, *"Grüße".encode(), EOS, BOS, *b"two", EOS, BOS, *b"three", EOS])
        self.assertEqual(sidecar["documents"], [[0, 9], [9, 14], [14, 21]])
        self.assertNotIn("loss_spans", sidecar)
        self.assertEqual(self.pack("*.txt", "-o", "name").stdout, "f.bin\n")
        self.assertEqual(self.pack("a.txt").stdout, "f.bin: 8 tokens in 1 document\n")

    def test_supervised(self):
        self.write("a.jsonl", {"instruction": "Add.", "input": "", "output": "two"},
                   {"instruction": "Name it.", "output": "cat"})
        self.pack("a.jsonl", "--prompt-template", "longlora")
        ids, sidecar = self.read()
        answers = [ids[begin:end] for begin, end in sidecar["loss_spans"]]
        self.assertEqual(answers, [[*b"two", EOS], [*b"cat", EOS]])
        prompt = bytes(i for i in ids[:sidecar["loss_spans"][0][0]] if i < 256).decode()
        self.assertEqual(prompt, "[INST]Add.[/INST]")

    def test_sentencepiece(self):
        (self.root / "a.txt").write_text("In the beginning\nGod created the heaven and the earth.\n" * 20000)
        sizes = set()
        for threads in (1, 3):
            self.llctl("data", "pack", "a.txt", "--tokenizer", DEMO_MODEL, "--out", "f.bin", "--threads", threads)
            sizes.add((self.root / "f.bin").read_bytes())
        self.assertEqual(len(sizes), 1)
        text = self.llctl("data", "doctor", "a.txt", "--tokenizer", DEMO_MODEL).stdout
        self.assertIn("In the beginning\nGod created", text)

    def test_odd_arguments_arrive(self):
        (self.root / "-odd name.txt").write_text("a")
        self.llctl("data", "pack", "--tokenizer=model", "--no-eos", "--out", "-f.bin", "--", "-odd name.txt")
        self.assertEqual(self.read("-f.bin")[0], [*b"a"])

    def test_errors(self):
        self.write("a.jsonl", {"text": "good"}, {"text": None})
        run = self.pack("a.jsonl", code=2)
        self.assertIn("a.jsonl:2 text: expected a text, found null", run.stderr)
        self.assertFalse((self.root / "f.bin").exists() or (self.root / "f.bin.partial").exists())
        run = self.pack("a.jsonl", "--on-bad-sample", "skip", "-o", "json")
        self.assertEqual(json.loads(run.stdout)["skipped"], 1)
        self.assertIn("skipped: a.jsonl:2", run.stderr)
        self.write("a.jsonl", {"instruction": "i", "output": "o"})
        self.assertIn("--prompt-template", self.pack("a.jsonl", code=2).stderr)
        self.pack("nothing.txt", code=8)
        self.llctl("data", "pack", "a.jsonl", "--out", "f.bin", code=2)
        self.llctl("data", "pack", "a.jsonl", "--tokenizer", "model", code=2)
        run = self.pack("a.jsonl", "-o", "json", code=2)
        error = json.loads(run.stderr)
        self.assertEqual(error["code"], "INVALID_ARGUMENT")
        self.assertTrue(error["field"].endswith("a.jsonl:1"), error)

    def test_doctor(self):
        self.write("a.jsonl", {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "yes"}]},
                   {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "yes"}]},
                   {"messages": [{"role": "user", "content": "Q"}]})
        arguments = ["data", "doctor", "a.jsonl", "--tokenizer", "model", "--prompt-template", "llama2", "--ctx", "4096"]
        report = json.loads(self.llctl(*arguments, "-o", "json").stdout)
        self.assertEqual(report["records"], 2)
        self.assertEqual(report["duplicates"], 1)
        self.assertEqual(report["without_target"], 1)
        self.assertEqual(report["bad_records"], 1)
        self.assertIn("a.jsonl:3", report["bad_examples"][0])
        self.assertEqual(report["roles"], {"assistant": 2, "user": 3})
        self.assertEqual(report["targets"], 2 * len([*b" yes ", EOS]))
        self.assertEqual(report["shorter_than_context_share"], 1.0)
        trained = [run["text"] for run in report["preview"][0]["runs"] if run["trained"]]
        self.assertEqual(trained, [" yes <eos>"])
        text = self.llctl(*arguments).stdout
        self.assertIn("⟦ yes <eos>⟧", text)
        self.assertIn("context of 4,096", text)
        # In colour on a terminal, but for those who want none.
        for environment, colour in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            ours, theirs = pty.openpty()
            plain = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
            subprocess.run([BIN / "llctl", *arguments], stdout=theirs, cwd=self.root, env={**plain, **environment}, check=True, timeout=60)
            os.close(theirs)
            shown = b""
            while piece := self.rest(ours):
                shown += piece
            os.close(ours)
            self.assertEqual(b"\x1b[" in shown, colour, (environment, shown))

    @staticmethod
    def rest(fd):
        try:
            return os.read(fd, 65536)
        except OSError:  # the other end is closed
            return b""


if __name__ == "__main__":
    unittest.main(verbosity=2)
