"""Kill the trainer anywhere and start it again: losses, bit for bit, are those of the undisturbed run."""
import json
import os
import signal
import subprocess
import threading

import harness
from harness import Gang, TrainerTest, events_of, kill_at_step, losses, read, train


class ResumeTest(TrainerTest):
    def undisturbed(self, spec):
        done = train(spec, self.path("straight"))
        self.assertEqual(done.returncode, 0, done.stderr)
        return events_of(done.stdout)

    def final_files(self, out, names):
        folder = os.path.join(out, "checkpoints", "step-000008")
        manifest = json.loads(read(folder, "MANIFEST.json"))
        return {name: manifest["files"][name]["sha256"] for name in names}

    def test_kill_9_at_several_steps(self):
        spec = self.write_spec()
        expected = losses(self.undisturbed(spec))
        self.assertEqual(sorted(expected), list(range(1, 9)))
        out = self.path("killed")
        for step in (1, 3, 4, 7):
            _, events = kill_at_step(["train", "--spec", spec, "--out", out, "--threads", 1], step)
            for s, value in losses(events).items():
                self.assertEqual(value, expected[s], f"step {s} after a kill")
        done = train(spec, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        seen = losses(events_of(read(out, "events.jsonl")))
        self.assertEqual(seen, expected)
        names = ["adapter_model.safetensors", "optimizer-00-of-01.safetensors"]
        self.assertEqual(self.final_files(out, names), self.final_files(self.path("straight"), names))

    def test_sigterm_checkpoints_and_exits_10(self):
        spec = self.write_spec(save_steps=0)
        expected = losses(self.undisturbed(spec))
        out = self.path("stopped")
        code, events = kill_at_step(["train", "--spec", spec, "--out", out, "--threads", 1], 3, signal.SIGTERM)
        self.assertEqual(code, 10)
        last = max(losses(events))
        self.assertIn(f"step-{last:06d}", os.listdir(os.path.join(out, "checkpoints")))
        done = train(spec, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        resumed = losses(events_of(done.stdout))
        self.assertEqual(min(resumed), last + 1)
        self.assertEqual({**losses(events), **resumed}, expected)

    def interrupted(self, spec, out):
        """A training that a person started and has asked to stop, by Ctrl-C in its second step; and the line it printed."""
        process = subprocess.Popen([harness.TRAINER, "train", "--spec", spec, "--out", out, "--threads", "1"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        watchdog = threading.Timer(harness.DEADLINE_S, process.kill)
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        while '"event":"step"' not in process.stdout.readline():
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        return process, process.stderr.readline()

    def test_ctrl_c_checkpoints_and_exits_10(self):
        out = self.path("interrupted")
        process, line = self.interrupted(self.write_spec(save_steps=0), out)
        self.assertIn("interrupted: finishes this step, writes a checkpoint and ends; a second Ctrl-C", line)
        seen = events_of(process.stdout.read())
        self.assertEqual(process.wait(), 10)
        self.assertEqual(process.stderr.read(), "")
        written = [e["step"] for e in seen if e["event"] == "checkpoint"]
        self.assertEqual(len(written), 1)
        self.assertEqual(os.listdir(os.path.join(out, "checkpoints")), [f"step-{written[0]:06d}"])

    def test_a_second_ctrl_c_ends_at_once(self):
        out = self.path("interrupted")
        # Long steps: the second comes in the one that the first has found.
        process, _ = self.interrupted(self.write_spec(save_steps=0, global_batch_size=2000), out)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(), -signal.SIGINT)
        self.assertEqual(os.listdir(os.path.join(out, "checkpoints")), [])

    def test_ctrl_c_of_a_script_is_not_for_its_background(self):
        spec, out = self.write_spec(), self.path("background")
        code, _ = kill_at_step(["train", "--spec", spec, "--out", out, "--threads", 1], 3, signal.SIGINT,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        self.assertEqual(code, 0)

    def test_damaged_newest_checkpoint_is_skipped_with_its_reason(self):
        spec = self.write_spec()
        expected = losses(self.undisturbed(spec))
        out = self.path("straight")
        victim = os.path.join(out, "checkpoints", "step-000008", "optimizer-00-of-01.safetensors")
        with open(victim, "r+b") as f:
            f.seek(1000)
            byte = f.read(1)
            f.seek(1000)
            f.write(bytes([byte[0] ^ 1]))
        done = train(spec, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        warnings = [e["message"] for e in events_of(done.stdout) if e["event"] == "warning"]
        self.assertTrue(any("step-000008" in w and "sha256" in w for w in warnings), warnings)
        resumed = losses(events_of(done.stdout))
        self.assertEqual(resumed, {s: expected[s] for s in (7, 8)})

    def test_a_finished_job_reports_its_result_again(self):
        spec = self.write_spec()
        first = [e for e in self.undisturbed(spec) if e["event"] == "done"][0]["result"]
        done = train(spec, self.path("straight"))
        again = [e for e in events_of(done.stdout) if e["event"] == "done"][0]["result"]
        self.assertEqual(again["loss"], first["loss"])
        self.assertEqual(again["first_step"], 8)

    def test_save_total_limit_and_full_method(self):
        spec = self.write_spec(method="full", save_total_limit=2, precision="bf16")
        expected = losses(self.undisturbed(spec))
        checkpoints = sorted(os.listdir(self.path("straight", "checkpoints")))
        self.assertEqual(checkpoints, ["step-000006", "step-000008"])
        out = self.path("killed")
        kill_at_step(["train", "--spec", spec, "--out", out, "--threads", 1], 5)
        done = train(spec, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(losses(events_of(read(out, "events.jsonl"))), expected)

    def test_changing_what_defines_the_job_is_refused(self):
        train(self.write_spec(), self.path("out"))
        done = train(self.write_spec(lora_rank=4), self.path("out"))
        self.assertEqual(done.returncode, 20)
        self.assertIn("lora_rank", done.stderr)
        done = train(self.write_spec(original_context_length=16), self.path("out"))  # positions scaled twice as far
        self.assertEqual(done.returncode, 20)
        self.assertIn("original_context_length", done.stderr)

    def warnings(self, spec, out):
        done = train(spec, self.path(out))
        self.assertEqual(done.returncode, 0, done.stderr)
        return [e["message"] for e in events_of(done.stdout) if e["event"] == "warning"]

    def test_other_weights_below_an_adapter_are_told(self):
        train(self.write_spec(max_steps=4), self.path("out"))
        self.assertEqual(self.warnings(self.write_spec(), "out"), [])
        train(self.write_spec(max_steps=4), self.path("other"))
        harness.SEED += 1
        model = self.make_model("other-model")
        [warning] = self.warnings(self.write_spec(model=model), "other")
        self.assertIn(f"model {model} has other weight files", warning)

    def test_another_end_is_told_where_the_rate_goes_by_it(self):
        for schedule, told in (("cosine", True), ("constant_with_warmup", False)):
            train(self.write_spec(lr_schedule=schedule, max_steps=4), self.path(schedule))
            warnings = self.warnings(self.write_spec(lr_schedule=schedule), schedule)
            self.assertEqual(any("max_steps: 4 -> 8" in w for w in warnings), told, warnings)

    def test_epochs_are_as_long_with_the_batch_that_was_fixed(self):
        rows = 4000 // 64 + 1
        spec = self.write_spec(num_train_epochs=1, max_steps=None, global_batch_size=8)
        code, _ = kill_at_step(["train", "--spec", spec, "--out", self.path("out"), "--threads", 1], 2, signal.SIGTERM)
        self.assertEqual(code, 10)
        spec = self.write_spec(num_train_epochs=1, max_steps=None, global_batch_size=2)
        done = train(spec, self.path("out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(max(losses(events_of(done.stdout))), -(-rows // 8))


class GangTest(TrainerTest):
    def gang(self, spec, out, world, more=()):
        gang = Gang(spec, out, world, more)
        codes = gang.wait()
        self.assertEqual(codes, [0] * world, gang.stderr)
        return losses(gang.events[0])

    def test_two_ranks_equal_one_within_rounding(self):
        # global_batch_size 5: rank 0 runs three rows, rank 1 two.
        spec = self.write_spec(global_batch_size=5, document_boundaries=True)
        self.make_tokens("data.bin", 4000, documents=[[0, 1111], [1111, 1150], [1150, 4000]])
        one = self.gang(spec, self.path("one"), 1)
        two = self.gang(spec, self.path("two"), 2)
        three = self.gang(spec, self.path("three"), 3)
        self.assertEqual(sorted(one), sorted(two))
        for step in one:
            for other in (two, three):
                self.assertLess(abs(one[step][0] - other[step][0]) / one[step][0], 2e-5, f"loss of step {step}")
                self.assertLess(abs(one[step][1] - other[step][1]) / one[step][1], 2e-3, f"norm of step {step}")

    def test_two_ranks_killed_and_resumed_bit_for_bit(self):
        spec = self.write_spec()
        expected = self.gang(spec, self.path("straight"), 2)
        for victim, step in ((0, 3), (1, 5)):
            out = self.path(f"killed-{victim}")
            gang = Gang(spec, out, 2)
            gang.wait_for(lambda e: e["event"] == "step" and e["step"] == step)
            gang.ranks[victim].kill()
            codes = gang.wait()
            self.assertEqual(codes[victim], -signal.SIGKILL)
            self.assertEqual(codes[1 - victim], 30, gang.stderr[1 - victim])  # its peer says infrastructure
            for s, value in losses(gang.events[0]).items():
                self.assertEqual(value, expected[s])
            for s, value in self.gang(spec, out, 2).items():
                self.assertEqual(value, expected[s], f"step {s} after killing rank {victim}")

    def test_resume_in_another_folder_from_a_named_checkpoint(self):
        spec = self.write_spec()
        expected = self.gang(spec, self.path("e1"), 2)
        checkpoint = self.path("e1", "checkpoints", "step-000004")
        sha = read(checkpoint, "COMPLETE").strip()
        resumed = self.gang(spec, self.path("e2"), 2, ("--resume-from", checkpoint, "--resume-manifest", sha))
        self.assertEqual(resumed, {s: expected[s] for s in (5, 6, 7, 8)})
        gang = Gang(spec, self.path("e3"), 1, ("--resume-from", checkpoint, "--resume-manifest", "0" * 64))
        self.assertEqual(gang.wait(), [0], gang.stderr)  # another one than was ordered: an earlier good one is taken
        warnings = [e["message"] for e in gang.events[0] if e["event"] == "warning"]
        self.assertTrue(any("step-000004" in w and "as ordered" in w for w in warnings), warnings)
        self.assertEqual(min(losses(gang.events[0])), 3)

    def test_every_rank_stops_at_the_same_step(self):
        spec = self.write_spec(max_steps=2000, save_steps=0)
        gang = Gang(spec, self.path("out"), 2)
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 3)
        gang.ranks[1].send_signal(signal.SIGTERM)  # told to one, done by all
        self.assertEqual(gang.wait(), [10, 10], gang.stderr)
        last = max(losses(gang.events[0]))
        self.assertEqual(os.listdir(self.path("out", "checkpoints")), [f"step-{last:06d}"])

    def test_sigusr1_checkpoints_and_goes_on(self):
        spec = self.write_spec(max_steps=400, save_steps=0)
        gang = Gang(spec, self.path("out"), 1)
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 2)
        gang.ranks[0].send_signal(signal.SIGUSR1)
        self.assertEqual(gang.wait(), [0], gang.stderr)
        steps = [e["step"] for e in gang.events[0] if e["event"] == "checkpoint"]
        self.assertEqual(len(steps), 2)
        self.assertLess(steps[0], 400)

    def test_the_agents_death_ends_the_rank(self):
        spec = self.write_spec(max_steps=100000, save_steps=0)
        gang = Gang(spec, self.path("out"), 1)
        gang.wait_for(lambda e: e["event"] == "step")
        os.close(gang.controls[0])
        gang.controls.clear()
        self.assertEqual(gang.wait(), [30])


if __name__ == "__main__":
    harness.main()
