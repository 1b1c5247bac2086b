"""--help of every command against golden/help.txt; `--update` writes it anew, to be reviewed."""
import os
import sys
import unittest

import harness
from harness import read, run

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "help.txt")
COMMANDS = [[], ["train"], ["run"], ["eval", "perplexity"], ["eval", "passkey"], ["eval", "topics"], ["generate"], ["chat"],
            ["init"], ["pack"], ["quantize"], ["merge"], ["publish"], ["verify"], ["profile", "flops"], ["profile", "step"], ["probe"]]


def current():
    text = ""
    for command in COMMANDS:
        done = run(*command, "--help")
        text += f"$ ll-trainer {' '.join([*command, '--help'])}\n" + done.stdout + "\n"
    return text


class HelpTest(unittest.TestCase):
    maxDiff = None

    def test_golden(self):
        self.assertEqual(read(GOLDEN), current())

    def test_usage_errors_exit_20(self):
        self.assertEqual(run("train", "--no-such-flag").returncode, 20)
        self.assertEqual(run().returncode, 20)

    def test_both_spellings_of_version(self):
        version = run("version")
        self.assertRegex(version.stdout, r"^ll-trainer \d+\.\d+\.\d+ \(LibTorch .+\)\n$")
        self.assertEqual((version.returncode, version.stdout), (0, run("--version").stdout))


if __name__ == "__main__":
    if "--update" in sys.argv:
        harness.TRAINER = sys.argv[sys.argv.index("--trainer") + 1]
        with open(GOLDEN, "w") as f:
            f.write(current())
    else:
        harness.main()
