"""deploy/systemd and deploy/config without a machine: what systemd says of the units, and keys that the daemons know."""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from packages import need_programs
from status import record

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin").resolve()
DAEMONS = ("coordinator", "worker")
# systemd's exposure score, 0 to 10, lower is better; above it something was taken out of the unit.
MOST_EXPOSED = {"coordinator": 1.5, "worker": 2.0}


class Units(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_programs(**{"systemd-analyze": "systemd"})
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ll-units-")))

    def unit(self, daemon):
        """With the programs of this build in place of the installed ones."""
        text = (ROOT / f"deploy/systemd/ll-{daemon}.service").read_text().replace("/usr/bin/", f"{BIN}/")
        path = self.folder / f"ll-{daemon}.service"
        path.write_text(text)
        return path

    def analyze(self, *arguments):
        return subprocess.run(["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True, timeout=60)

    def test_verify(self):
        run = self.analyze("verify", *(self.unit(daemon) for daemon in DAEMONS))
        own = [line for line in run.stderr.splitlines() if "ll-" in line]
        self.assertEqual((run.returncode, own), (0, []))

    def test_verify_can_fail(self):
        path = self.unit("worker")
        path.write_text(path.read_text().replace("[Service]", "[Service]\nRestartPolicy=always"))
        self.assertIn("RestartPolicy", self.analyze("verify", path).stderr)

    def test_exposure(self):
        found = {}
        for daemon in DAEMONS:
            run = self.analyze("security", "--offline=true", self.unit(daemon))
            found[daemon] = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", run.stdout).group(1))
            self.assertLessEqual(found[daemon], MOST_EXPOSED[daemon], run.stdout)
        record("systemd units: hardening", "run for real",
               f"systemd-analyze verify without a finding; security exposure {found['coordinator']} (coordinator) and {found['worker']} (worker) of 10, lower is better")

    def test_stop_leaves_time_for_a_checkpoint(self):
        stop = int(re.search(r"TimeoutStopSec=(\d+)", self.unit("worker").read_text()).group(1))
        grace = int(re.search(r"shutdown-grace: (\d+)", (ROOT / "deploy/config/worker.yaml").read_text()).group(1))
        self.assertGreater(stop, grace + 10)

    def test_every_key_is_a_flag_and_the_file_is_read(self):
        for daemon in DAEMONS:
            help_text = subprocess.run([BIN / f"ll-{daemon}", "--help"], capture_output=True, text=True, check=True).stdout
            known = set(re.findall(r"--([a-z][a-z-]*)", help_text))
            lines = (ROOT / f"deploy/config/{daemon}.yaml").read_text().splitlines()
            keys = {match.group(1) for line in lines if (match := re.match(r"#?([a-z][a-z-]*):(\s|$)", line))}
            self.assertGreaterEqual(len(keys), 8)
            self.assertEqual(keys - known, set(), daemon)
            wrong = self.folder / "wrong.yaml"
            wrong.write_text("lisen: 127.0.0.1:1\n")
            run = subprocess.run([BIN / f"ll-{daemon}", "--config", wrong, "--data-dir" if daemon == "coordinator" else "--work-dir", self.folder / "x"],
                                 capture_output=True, text=True, timeout=60)
            self.assertEqual(run.returncode, 2)
            self.assertIn("lisen", run.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
