"""Checkpoints and models copied to S3 (moto's server): whole or not at all, whatever happens on the way."""
import hashlib
import json
import os
import shutil
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "storage"))

import harness  # noqa: E402
import stand_in  # noqa: E402
from harness import Gang, TrainerTest, events_of, kill_at_step, losses, read, run, train  # noqa: E402


class StoreTest(TrainerTest):
    @classmethod
    def setUpClass(cls):
        cls.s3 = cls.enterClassContext(stand_in.S3())

    def setUp(self):
        super().setUp()
        self.prefix = os.path.basename(self.dir)
        self.uri = f"s3://checkpoints/{self.prefix}"

    def keys(self):
        return [key.removeprefix(self.prefix + "/") for key in self.s3.keys(self.prefix + "/")]


class PublishTest(StoreTest):
    def publish(self, *more, endpoint=None, code=0):
        done = run("publish", self.model, "--to", self.uri, *more, env=self.s3.environment(endpoint))
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_a_model_arrives_whole(self):
        with stand_in.Proxy(self.s3.port, stand_in.seeded_faults(harness.SEED, 0.2)) as proxy:
            self.publish(endpoint=proxy.url)
        self.assertEqual(self.keys(), sorted(os.listdir(self.model)))
        for name in os.listdir(self.model):
            body = self.s3.client().get_object(Bucket="checkpoints", Key=f"{self.prefix}/{name}")["Body"].read()
            self.assertEqual(hashlib.sha256(body).digest(), hashlib.sha256(read(self.model, name, mode="rb")).digest())
        self.assertIn("--overwrite", self.publish(code=20).stderr)
        self.s3.client().put_object(Bucket="checkpoints", Key=f"{self.prefix}/old.safetensors", Body=b"x")
        self.publish("--overwrite")
        self.assertEqual(self.keys(), sorted(os.listdir(self.model)))

    def test_what_is_no_model_is_not_replaced(self):
        self.s3.client().put_object(Bucket="checkpoints", Key=f"{self.prefix}/thesis.tex", Body=b"x")
        self.assertIn("no config.json", self.publish("--overwrite", code=20).stderr)
        self.assertEqual(self.keys(), ["thesis.tex"])

    def test_without_credentials(self):
        environment = {k: v for k, v in self.s3.environment().items() if not k.startswith("AWS_")}
        done = run("publish", self.model, "--to", self.uri, env=dict(environment, HOME=self.dir))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("AWS_ACCESS_KEY_ID", done.stderr)


class CopyTest(StoreTest):
    """checkpoint_uri, with the real trainer."""

    def train(self, spec, out, *more, endpoint=None, code=0):
        done = train(spec, self.path(out), *more, env=self.s3.environment(endpoint))
        self.assertEqual(done.returncode, code, done.stderr)
        return events_of(done.stdout)

    def copied(self, events):
        return [e["step"] for e in events if e["event"] == "checkpoint_copied"]

    def test_another_host_goes_on_bit_for_bit(self):
        spec = self.write_spec(checkpoint_uri=self.uri, save_total_limit=2)
        events = self.train(spec, "a")
        expected = losses(events)
        self.assertEqual(self.copied(events)[-1], 8)
        self.assertEqual(sorted({key.split("/")[0] for key in self.keys()})[-1], "step-000008")
        # All but step 6 is lost, there and here.
        for key in self.keys():
            if key.startswith("step-000008"):
                self.s3.client().delete_object(Bucket="checkpoints", Key=f"{self.prefix}/{key}")
        resumed = self.train(spec, "b")
        fetched = [e for e in resumed if e.get("fetched_from")]
        first = fetched[0]["step"] if fetched else 0
        self.assertGreater(first, 0)
        self.assertEqual(losses(resumed), {s: v for s, v in expected.items() if s > first})
        names = ["adapter_model.safetensors", "optimizer-00-of-01.safetensors"]
        for name in names:
            self.assertEqual(read(self.path("a", "checkpoints", "step-000008", name), mode="rb"),
                             read(self.path("b", "checkpoints", "step-000008", name), mode="rb"))

    def test_the_local_newest_wins_and_the_copys_damage_is_named(self):
        spec = self.write_spec(checkpoint_uri=self.uri, max_steps=4)
        self.train(spec, "a")
        again = self.train(spec, "a")
        self.assertEqual([e for e in again if e.get("fetched_from")], [])
        key = f"{self.prefix}/step-000004/adapter_model.safetensors"
        body = bytearray(self.s3.client().get_object(Bucket="checkpoints", Key=key)["Body"].read())
        body[len(body) // 2] ^= 1
        self.s3.client().put_object(Bucket="checkpoints", Key=key, Body=bytes(body))
        elsewhere = self.train(spec, "b")
        warnings = [e["message"] for e in elsewhere if e["event"] == "warning"]
        self.assertTrue(any("step-000004: adapter_model.safetensors: expected sha256" in w for w in warnings), warnings)
        self.assertEqual([e["step"] for e in elsewhere if e.get("fetched_from")], [2])

    def test_a_store_that_cannot_be_reached_does_not_stop_training_but_a_start_from_nothing(self):
        environment = dict(self.s3.environment("http://127.0.0.1:1"), LL_S3_DEADLINE_S="1")
        spec = self.write_spec(checkpoint_uri=self.uri, max_steps=4)
        done = train(spec, self.path("a"), env=environment)
        # Nobody can say that there is nothing to go on from.
        self.assertEqual(done.returncode, 30, done.stderr)
        self.assertIn("checkpoint_uri", done.stderr)
        self.assertNotIn("tester-secret", done.stdout + done.stderr)
        first = train(self.write_spec("other.yaml", max_steps=2), self.path("b"))
        self.assertEqual(first.returncode, 0, first.stderr)
        done = train(spec, self.path("b"), env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        warnings = [e for e in events_of(done.stdout) if e["event"] == "warning"]
        self.assertTrue(any(w.get("about") == "checkpoint_copy" and w["step"] == 4 for w in warnings), warnings)

    def test_over_a_bad_network_kills_included(self):
        spec = self.write_spec(checkpoint_uri=self.uri, save_total_limit=1, save_steps=1)
        expected = losses(self.train(self.write_spec("plain.yaml", save_steps=0), "plain"))
        with stand_in.Proxy(self.s3.port, stand_in.seeded_faults(harness.SEED, 0.15)) as proxy:
            environment = self.s3.environment(proxy.url)
            seen = {}
            for attempt, step in enumerate((3, 6)):
                _, events = kill_at_step(["train", "--spec", spec, "--out", self.path(f"o{attempt}"), "--threads", 1], step, env=environment)
                seen.update(losses(events))
            seen.update(losses(self.train(spec, "last", endpoint=proxy.url)))
        self.assertEqual(seen, expected)
        # One checkpoint, whole, and nothing half beside it.
        manifest = json.loads(self.s3.client().get_object(Bucket="checkpoints", Key=f"{self.prefix}/step-000008/MANIFEST.json")["Body"].read())
        self.assertEqual(self.keys(), sorted(f"step-000008/{n}" for n in [*manifest["files"], "MANIFEST.json", "COMPLETE"]))
        self.assertEqual(self.s3.uploads(), [])

    def test_a_killed_upload_is_continued_and_other_leavings_go(self):
        """The optimizer's file goes in parts; the trainer dies among them. The next attempt sends what is missing, and aborts what nobody will continue."""
        wide = self.make_model("wide", vocab_size=36000)
        spec = self.write_spec(model=wide, checkpoint_uri=self.uri, max_steps=2)
        stuck = threading.Event()

        def faults(line):
            if "partNumber=2" in line:
                stuck.set()
                return "hang"
            return None

        with stand_in.Proxy(self.s3.port, faults) as proxy:
            gang = Gang(spec, self.path("e0001"), 1, environments=[self.s3.environment(proxy.url)])
            self.assertTrue(stuck.wait(harness.DEADLINE_S))
            deadline = time.monotonic() + harness.DEADLINE_S
            name = "optimizer-00-of-01.safetensors"
            key = f"{self.prefix}/e0001/step-000002/{name}"
            listed = []
            while not listed and time.monotonic() < deadline:  # the first part has arrived
                left = [u for u in self.s3.uploads() if u["Key"] == key]
                listed = left and self.s3.client().list_parts(Bucket="checkpoints", Key=key, UploadId=left[0]["UploadId"]).get("Parts", [])
                time.sleep(0.02)
            gang.ranks[0].kill()
            gang.wait()
        self.assertIn(1, [part["PartNumber"] for part in listed])
        abandoned = f"{self.prefix}/e0001/step-000001/{name}"
        self.s3.client().create_multipart_upload(Bucket="checkpoints", Key=abandoned)
        newer = f"{self.prefix}/e0003/step-000001/{name}"
        theirs = self.s3.client().create_multipart_upload(Bucket="checkpoints", Key=newer)["UploadId"]
        self.addCleanup(self.s3.client().abort_multipart_upload, Bucket="checkpoints", Key=newer, UploadId=theirs)
        more = self.write_spec("more.yaml", model=wide, checkpoint_uri=self.uri, max_steps=3)
        with stand_in.Proxy(self.s3.port, lambda line: None) as proxy:
            gang = Gang(more, self.path("e0002"), 1, ("--resume-from", self.path("e0001", "checkpoints", "step-000002")),
                        environments=[self.s3.environment(proxy.url)], epoch=2)
            self.assertEqual(gang.wait(), [0], gang.stderr)
        sent = [line for line in proxy.lines if line.startswith("PUT") and f"step-000002/{name}" in line]
        self.assertTrue(any("partNumber=2" in line for line in sent), sent)
        self.assertFalse(any("partNumber=1&" in line for line in sent), sent)
        self.assertEqual({e["uri"].rsplit("/", 2)[1] for e in gang.events[0] if e["event"] == "checkpoint_copied"}, {"e0001", "e0002"})
        body = self.s3.client().get_object(Bucket="checkpoints", Key=key)["Body"].read()
        self.assertEqual(body, read(self.path("e0001", "checkpoints", "step-000002", name), mode="rb"))
        self.assertEqual([u["Key"] for u in self.s3.uploads() if u["Key"].startswith(self.prefix)], [newer])  # not ours to touch

    def test_attempts_of_a_job_have_folders_of_their_own(self):
        spec = self.write_spec(checkpoint_uri=self.uri, max_steps=4, save_total_limit=1)
        gang = Gang(spec, self.path("e1"), 1, environments=[self.s3.environment()])
        self.assertEqual(gang.wait(), [0], gang.stderr)
        self.assertEqual({key.rsplit("/", 1)[0] for key in self.keys()}, {"e0001/step-000004"})
        # The next attempt starts on a host that lacks the ordered checkpoint.
        spec = self.write_spec(checkpoint_uri=self.uri, max_steps=6, save_total_limit=1)
        missing = self.path("elsewhere", "checkpoints", "step-000004")
        gang = Gang(spec, self.path("e2"), 1, ("--resume-from", missing), environments=[self.s3.environment()], epoch=2)
        self.assertEqual(gang.wait(), [0], gang.stderr)
        self.assertEqual(sorted(losses(gang.events[0])), [5, 6])
        self.assertEqual({key.rsplit("/", 1)[0] for key in self.keys()}, {"e0002/step-000006"})

    def test_a_folder_that_all_hosts_see(self):
        store = self.path("store")
        spec = self.write_spec(checkpoint_uri=store, save_total_limit=1, save_keep_every=4)
        expected = losses(self.train(spec, "a"))
        self.assertEqual(sorted(os.listdir(self.path("a", "checkpoints"))), ["step-000004", "step-000008"])
        shutil.rmtree(os.path.join(store, "step-000008"))
        if not os.path.exists(os.path.join(store, "step-000004")):
            return  # its copy was dropped for that of step 6 on a slow machine
        self.assertEqual(losses(self.train(spec, "b")), {s: expected[s] for s in (5, 6, 7, 8)})

    def test_bad_places_are_refused(self):
        for uri, words in (("gs://bucket/x", "s3://BUCKET"), ("relative/path", "absolute path"), ("s3://Bad_Bucket/x", "bucket's name")):
            done = train(self.write_spec(checkpoint_uri=uri), self.path("a"))
            self.assertEqual(done.returncode, 20)
            self.assertIn("checkpoint_uri", done.stderr)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    harness.main()
