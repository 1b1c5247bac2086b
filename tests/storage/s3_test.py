#!/usr/bin/env python3
"""storage/ against an S3 stand-in: the promises of every store (object_store_test.cc), quietly and through a proxy that cuts, delays,
truncates and answers 500 and 503.

  s3_test.py STORAGE_TEST [--seed N]
"""
import argparse
import hashlib
import subprocess
import time
import unittest

import stand_in

PROGRAM, SEED = None, 0


def promises(s3, endpoint=None, name="*"):
    environment = dict(s3.environment(endpoint), LL_STORE_UNDER_TEST="s3://checkpoints/tests")
    return subprocess.run([PROGRAM, f"--gtest_filter=ObjectStoreTest.{name}"], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=300)


class S3Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s3 = cls.enterClassContext(stand_in.S3())

    def test_every_promise(self):
        done = promises(self.s3)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.s3.uploads(), [])

    def test_every_promise_over_a_bad_network(self):
        # A conditional write whose answer was lost is told as lost to somebody else, which is why only this one is left out.
        with stand_in.Proxy(self.s3.port, stand_in.seeded_faults(SEED, 0.25)) as proxy:
            done = promises(self.s3, proxy.url, "*:-*.OneOfManyWritersWins:*.TextsAndConditions")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertGreater(len(proxy.lines), 40)
        self.assertEqual(self.s3.uploads(), [])

    def test_objects_carry_their_hash_and_large_ones_go_in_parts(self):
        done = promises(self.s3, name="FilesComeBackAsTheyWere")
        self.assertEqual(done.returncode, 0, done.stdout)
        key = next(k for k in self.s3.keys("tests/") if k.endswith("file-100000"))
        head = self.s3.client().head_object(Bucket="checkpoints", Key=key)
        body = self.s3.client().get_object(Bucket="checkpoints", Key=key)["Body"].read()
        self.assertEqual(head["Metadata"]["sha256"], hashlib.sha256(body).hexdigest())
        large = next(k for k in self.s3.keys("tests/") if k.endswith("file-17000001"))
        etag = self.s3.client().head_object(Bucket="checkpoints", Key=large)["ETag"]
        self.assertTrue(etag.strip('"').endswith("-3"), etag)  # three parts of 8 MiB at most

    def test_a_server_that_is_gone_is_an_error_and_not_a_wait_for_ever(self):
        begin = time.monotonic()
        environment = dict(self.s3.environment("http://127.0.0.1:1"), LL_STORE_UNDER_TEST="s3://checkpoints/tests",
                           LL_S3_DEADLINE_S="2")
        done = subprocess.run([PROGRAM, "--gtest_filter=ObjectStoreTest.ListingAndRemoval"], env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("tries", done.stdout)
        self.assertNotIn(stand_in.CREDENTIALS["AWS_SECRET_ACCESS_KEY"], done.stdout)
        self.assertLess(time.monotonic() - begin, 50)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1000)
    known, rest = parser.parse_known_args()
    PROGRAM, SEED = known.program, known.seed
    print(f"seed {SEED}", flush=True)
    unittest.main(argv=["s3_test.py", *rest], verbosity=2)
