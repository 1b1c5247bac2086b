"""A rank of a gang dies or stops: the others name it within seconds and end as infrastructure failures."""
import signal
import time

import harness
from harness import Gang, TrainerTest

SILENCE_S = 3


class LostRankTest(TrainerTest):
    def lose(self, victim, sig, **spec):
        gang = Gang(self.write_spec(max_steps=100000, save_steps=0, **spec), self.path(f"out-{victim}-{sig}"), 4,
                    ("--peer-silence-s", SILENCE_S))
        gang.wait_for(lambda e: e["event"] == "step" and e["step"] == 3)
        start = time.monotonic()
        gang.ranks[victim].send_signal(sig)
        others = [r for r in range(4) if r != victim]
        try:
            for r in others:
                gang.ranks[r].wait(harness.DEADLINE_S)
            took = time.monotonic() - start
        finally:
            gang.ranks[victim].kill()
        codes = gang.wait()
        self.assertEqual([codes[r] for r in others], [30] * 3, gang.stderr)
        for r in others:
            errors = [e for e in gang.events[r] if e["event"] == "error"]
            self.assertEqual(len(errors), 1, errors)
            self.assertEqual(errors[0]["class"], "infrastructure")
            self.assertEqual(errors[0]["field"], f"rank {victim}")
            self.assertEqual(errors[0]["caused_by_rank"], victim)
            self.assertIn(f"last heard of: rank {victim}, ", errors[0]["message"])
            self.assertIn(" in phase ", errors[0]["message"])
        print(f"signal {sig} to rank {victim}: all others ended after {took:.2f} s: {errors[0]['message']}", flush=True)
        return took

    def test_a_killed_rank_is_named_at_once(self):
        for victim in (0, 2):
            self.assertLess(self.lose(victim, signal.SIGKILL), 5)

    def test_a_stopped_rank_is_named_after_its_silence(self):
        for victim in (0, 3):
            took = self.lose(victim, signal.SIGSTOP)
            self.assertGreater(took, SILENCE_S - 1)
            self.assertLess(took, SILENCE_S + 8)


if __name__ == "__main__":
    harness.main()
