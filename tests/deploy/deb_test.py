"""The Debian packages on a minimal Debian: installed by apt, every program runs, upgraded under systemd, removed without a trace.

deb_test.py BIN_DIR [--cuda], with the packages of package_test.py. Needs root and a Debian mirror.
"""
import pathlib
import shutil
import subprocess
import sys
import unittest

from machine import Machine
from packages import CUDA, release_folder
from status import record

RELEASE = release_folder(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin").resolve())
PROGRAMS = ("llctl", "ll-data", "ll-coordinator", "ll-worker", "ll-trainer", "ll-scaler")


class Deb(unittest.TestCase):
    def setUp(self):
        self.packages = sorted(RELEASE.glob("ll-*_amd64.deb"))
        self.assertEqual(len(self.packages), 3)
        self.assertEqual("+cuda_" in self.packages[2].name, CUDA)
        self.machine = self.enterContext(Machine())  # not booted: a chroot that reaches the mirror
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self.machine.root / "etc" / name)
        self.run_in_chroot("apt-get", "update")

    def run_in_chroot(self, *command):
        enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"'
        done = subprocess.run(["unshare", "--mount", "bash", "-c", enter, self.machine.root, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=900)
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout + done.stderr

    def install(self):
        for package in self.packages:
            shutil.copy(package, self.machine.root / "root")
        self.run_in_chroot("apt-get", "install", "-y", "--no-install-recommends", *self.on_machine())

    def on_machine(self):
        return [f"/root/{package.name}" for package in self.packages]

    def test_install_run_purge(self):
        before = self.files(self.machine.root)
        self.install()
        run = self.run_in_chroot
        size = sum(int(line) for line in run("dpkg-query", "-W", "-f", "${Installed-Size}\\n", "ll-client", "ll-coordinator", "ll-worker").split())
        for program in PROGRAMS:
            self.assertNotEqual(run(program, "--help"), "")
        self.assertIn("LibTorch", run("ll-trainer", "version"))
        self.assertIn("ll:", run("getent", "passwd", "ll"))
        run("rm", *self.on_machine())
        run("apt-get", "purge", "-y", "ll-client", "ll-coordinator", "ll-worker")
        run("apt-get", "autoremove", "--purge", "-y")
        left = self.files(self.machine.root) - before
        self.assertEqual({path for path in left if not path.startswith(("var/lib/dpkg", "var/cache", "var/log", "var/lib/apt", "etc/ld.so.cache"))}, set())
        record(f"bare host: Debian packages{', CUDA variant' * CUDA}", "run for real",
               f"installed by apt on a minimal Debian 12, every program started, purged without a trace; the three packages are {size / 1e3:.0f} MB installed")

    @unittest.skipIf(CUDA, "the same scripts")
    def test_an_upgrade_under_systemd(self):
        """What the packages' scripts do to daemons that run: the coordinator is restarted, the agent goes on as the new program."""
        self.install()
        self.machine.boot()
        worker = self.machine.root / "etc/ll/worker.yaml"
        worker.write_text(worker.read_text() + "cpu-slots: 1\n")
        (self.machine.root / "srv/ll/models").mkdir(parents=True)
        (self.machine.root / "srv/ll/data").mkdir()
        self.machine.run("systemctl", "enable", "--now", "ll-coordinator", "ll-worker")
        self.machine.wait_for(lambda: "in contact" in self.show("ll-worker", "StatusText"), "worker in contact with the coordinator")
        before = {unit: self.show(unit, "MainPID") for unit in ("ll-coordinator", "ll-worker")}
        self.machine.run("dpkg", "--install", *self.on_machine(), timeout=600)
        self.machine.wait_for(lambda: "in contact" in self.show("ll-worker", "StatusText"), "worker in contact again")
        self.assertNotEqual(self.show("ll-coordinator", "MainPID"), before["ll-coordinator"])
        self.assertEqual(self.show("ll-worker", "MainPID"), before["ll-worker"])
        self.assertIn("the 1. time", self.machine.run("journalctl", "-u", "ll-worker", "-n", "50", "-o", "cat").stdout)
        self.assertIn("cpu-slots: 1", worker.read_text())
        # Removed: nothing runs, and what is an operator's stays. Purged: not that either.
        self.machine.run("dpkg", "--remove", "ll-worker", "ll-coordinator", "ll-client", timeout=200)
        self.assertEqual([self.show(unit, "ActiveState") for unit in before], ["inactive", "inactive"])
        self.assertTrue((self.machine.root / "var/lib/ll/coordinator/ll.db").exists() and worker.exists())
        self.machine.run("dpkg", "--purge", "ll-worker", "ll-coordinator", "ll-client", timeout=200)
        self.assertFalse((self.machine.root / "var/lib/ll").exists() or (self.machine.root / "etc/ll").exists())
        record("bare host: Debian packages, upgrade under systemd", "run for real",
               "the packages' own scripts: the coordinator restarted, the agent the same process as the new program, configuration kept; removed with the store "
               "kept, purged without it")

    def show(self, unit, key):
        return self.machine.run("systemctl", "show", "-P", key, unit).stdout.strip()

    @staticmethod
    def files(root):
        return {str(path.relative_to(root)) for path in root.rglob("*")}


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
