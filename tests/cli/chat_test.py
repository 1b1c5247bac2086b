#!/usr/bin/env python3
"""llctl chat end to end: coordinator, worker and the real trainer on a tiny model with random weights.

  chat_test.py BIN_DIR

What the model says is noise; what is tested is the way there and back: the same words as `ll-trainer chat` gives, history, refusals,
Ctrl-C, and that the job ends with the conversation.
"""
import json
import signal
import subprocess
import unittest

from service import BIN, DEADLINE_S, ServiceCase


class ChatTest(ServiceCase):
    def chat(self, lines, *flags, code=0):
        return self.llctl("-o", "json", "chat", "--model", self.model, "--temperature", 0, "--max-new-tokens", 8, *flags, code=code,
                          input="".join(line + "\n" for line in lines))

    def test_answers_are_the_trainers_and_history_counts(self):
        done = self.chat(["hello", "and again"])
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(answers), 2)
        turns = [{"role": "user", "content": "hello"}]
        requests = [{"messages": list(turns)}]
        turns += [{"role": "assistant", "content": answers[0]["text"]}, {"role": "user", "content": "and again"}]
        requests.append({"messages": turns})
        alone = subprocess.run([BIN / "ll-trainer", "chat", "--model", self.model, "--temperature", "0", "--max-new-tokens", "8", "--threads", "1"],
                               input="".join(json.dumps(r) + "\n" for r in requests), capture_output=True, text=True, timeout=DEADLINE_S)
        expected = [json.loads(line) for line in alone.stdout.splitlines()]
        expected = [e for e in expected if e["event"] == "answer"]
        self.assertEqual([a["ids"] for a in answers], [e["ids"] for e in expected])
        self.assertEqual(answers[0]["new_tokens"], len(answers[0]["ids"]))
        self.assertGreater(answers[1]["reused_tokens"], 0)
        job = self.await_end()
        self.assertEqual(job["state"], "CANCELLED")
        self.assertIn("the conversation is over", job["reason"])

    def test_a_refused_message_does_not_end_the_conversation(self):
        done = self.chat(["x" * 3, "/reset", "ok"], "--repetition-penalty", "0", code=1)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("repetition_penalty"), 2, done.stderr)
        self.await_end()

    def test_what_no_sampling_takes_is_refused_before_a_worker_is_asked(self):
        for flag, value in (("--max-new-tokens", "1.5"), ("--temperature", "nan"), ("--top-k", "-1"), ("--seed", "1e300")):
            done = self.llctl("chat", "--model", self.model, flag, value, code=2, input="hi\n")
            self.assertIn(f"{flag}: expected a ", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_without_a_template_the_error_says_what_to_give(self):
        bare = self.root / "bare"
        if not bare.exists():
            bare.mkdir()
            for name in ("config.json", "model.safetensors", "tokenizer.json"):
                (bare / name).write_bytes((self.model / name).read_bytes())
        run = self.llctl("chat", "--model", bare, code=1, input="hi\n")
        self.assertIn("template", run.stderr)
        run = self.llctl("-o", "json", "chat", "--model", bare, "--prompt-template", "chatml", "--max-new-tokens", 4, input="hi\n")
        self.assertEqual(len(run.stdout.splitlines()), 1)
        self.await_end()

    def test_say_needs_a_job_that_listens(self):
        self.llctl("chat", "--model", self.root / "nowhere", code=8, input="")
        self.llctl("chat", "--job", "j-none", code=8, input="")

    def test_ctrl_c_ends_the_conversation_and_the_job(self):
        talk = subprocess.Popen([BIN / "llctl", "chat", "--model", self.model, "--max-new-tokens", "4"], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        talk.stdin.write("hello\n")
        talk.stdin.flush()
        self.assertTrue(talk.stdout.readline())
        talk.send_signal(signal.SIGINT)
        self.assertEqual(talk.wait(timeout=DEADLINE_S), 130)
        for pipe in (talk.stdin, talk.stdout, talk.stderr):
            pipe.close()
        self.assertEqual(self.await_end()["state"], "CANCELLED")


if __name__ == "__main__":
    unittest.main()
