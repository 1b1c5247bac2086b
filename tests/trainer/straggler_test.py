"""A rank that is slowed down is named, by rank and host; ranks that are even are not, and one that recovers is cleared."""
import socket
import signal
import statistics
import threading
import time

import harness
from harness import Gang, TrainerTest

NAMED_WITHIN_S = 60  # two cores for three ranks, and other work beside them


class Brake:
    """Stops a process three quarters of the time."""

    def __init__(self, process):
        self.process, self.off = process, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.off.is_set():
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(0.06)
            self.process.send_signal(signal.SIGCONT)
            self.off.wait(0.02)

    def release(self):
        self.off.set()
        self.thread.join()


class StragglerTest(TrainerTest):
    def gang(self, **spec):
        # A step takes much longer than the brake's period.
        spec = self.write_spec(**{"context_length": 1024, "global_batch_size": 3, "max_steps": 100000, "save_steps": 0, **spec})
        gang = Gang(spec, self.path("out"), 3)
        self.addCleanup(lambda: [p.kill() for p in gang.ranks])
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 5)
        return gang

    def named(self, gang, slow):
        return [e for e in gang.events[0] if e["event"] == "straggler" and e["slow"] == slow]

    def test_the_slow_rank_is_named_and_cleared(self):
        victim = harness.SEED % 3
        gang = self.gang()
        start = time.monotonic()
        brake = Brake(gang.ranks[victim])
        gang.wait_for(lambda e: e["event"] == "straggler" and e["slow"])
        took = time.monotonic() - start
        first = self.named(gang, True)[0]
        self.assertEqual((first["straggler"], first["host"]), (victim, socket.gethostname()))
        self.assertGreater(first["score"], 1.3)
        self.assertIn(f"rank {victim} on {socket.gethostname()} computes ", first["message"])
        self.assertLess(took, NAMED_WITHIN_S)
        brake.release()
        gang.wait_for(lambda e: e["event"] == "straggler" and not e["slow"])
        self.assertEqual({e["straggler"] for e in gang.events[0] if e["event"] == "straggler"}, {victim})
        steps = [e for e in gang.events[0] if e["event"] == "step"]
        print(f"rank {victim}, stopped three quarters of the time, was named after {took:.1f} s with score {first['score']:.2f}; a step takes "
              f"{statistics.median(e['step_seconds'] for e in steps[:5]):.2f} s undisturbed", flush=True)
        gang.ranks[0].send_signal(signal.SIGTERM)
        self.assertEqual(gang.wait(), [10] * 3, gang.stderr)

    def test_phases_add_up_and_every_rank_tells_its_times(self):
        gang = self.gang(max_steps=12)
        self.assertEqual(gang.wait(), [0] * 3, gang.stderr)
        parts = [f"{p}_seconds" for p in ("data", "forward", "head", "backward", "wait", "reduce", "optimizer")]
        for e in gang.events[0]:
            if e["event"] != "step":
                continue
            self.assertTrue(all(e[p] >= 0 for p in parts), e)
            self.assertGreater(sum(e[p] for p in parts), 0.7 * e["step_seconds"])
            self.assertLess(sum(e[p] for p in parts), 1.02 * e["step_seconds"])
            # The highest of smoothed ratios to the median of their step: about 1 where ranks take turns at being slow.
            self.assertGreater(e["straggler_score"], 0.5)
        for rank in range(3):
            times = [e for e in gang.events[rank] if e["event"] == "times"]
            self.assertGreater(len(times), 0)
            self.assertGreater(times[0]["forward_seconds"], 0)
            self.assertGreater(times[0]["straggler_score"], 0)

    def test_context_ranks_are_not_blamed_for_their_neighbour(self):
        # Two ranks share a row: one waits for the other's keys, which is not computing.
        spec = self.write_spec(context_length=1024, global_batch_size=1, max_steps=100000, save_steps=0, context_parallel=2)
        gang = Gang(spec, self.path("out"), 2)
        self.addCleanup(lambda: [p.kill() for p in gang.ranks])
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 5)
        brake = Brake(gang.ranks[0])
        gang.wait_for(lambda e: e["event"] == "straggler")
        brake.release()
        self.assertEqual({e["straggler"] for e in gang.events[0] if e["event"] == "straggler"}, {0})
        self.assertGreater(max(e["exchange_seconds"] for e in gang.events[0] if e["event"] == "step"), 0)
        gang.ranks[0].send_signal(signal.SIGTERM)
        self.assertEqual(gang.wait(), [10] * 2, gang.stderr)


if __name__ == "__main__":
    harness.main()
