"""The Debian packages on a minimal Debian: installed by apt, every program runs, removed without a trace.

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
    def test_install_run_purge(self):
        packages = sorted(RELEASE.glob("ll-*_amd64.deb"))
        self.assertEqual(len(packages), 3)
        with Machine() as machine:  # not booted: a chroot that reaches the mirror
            def run(*command, check=True):
                enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"'
                done = subprocess.run(["unshare", "--mount", "bash", "-c", enter, machine.root, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
                if check and done.returncode != 0:
                    raise AssertionError(f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
                return done.stdout + done.stderr
            for name in ("resolv.conf", "hosts"):
                shutil.copy(f"/etc/{name}", machine.root / "etc" / name)
            run("apt-get", "update")
            before = self.files(machine.root)
            for package in packages:
                shutil.copy(package, machine.root / "root")
            self.assertEqual("+cuda_" in packages[2].name, CUDA)
            run("apt-get", "install", "-y", "--no-install-recommends", *(f"/root/{package.name}" for package in packages))
            size = sum(int(line) for line in run("dpkg-query", "-W", "-f", "${Installed-Size}\\n", "ll-client", "ll-coordinator", "ll-worker").split())
            for program in PROGRAMS:
                self.assertNotEqual(run(program, "--help"), "")
            self.assertIn("LibTorch", run("ll-trainer", "version"))
            self.assertIn("ll:", run("getent", "passwd", "ll"))
            for package in packages:
                (machine.root / "root" / package.name).unlink()
            run("apt-get", "purge", "-y", "ll-client", "ll-coordinator", "ll-worker")
            run("apt-get", "autoremove", "--purge", "-y")
            left = self.files(machine.root) - before
            self.assertEqual({path for path in left if not path.startswith(("var/lib/dpkg", "var/cache", "var/log", "var/lib/apt", "etc/ld.so.cache"))}, set())
            record(f"bare host: Debian packages{', CUDA variant' * CUDA}", "run for real",
                   f"installed by apt on a minimal Debian 12, every program started, purged without a trace; the three packages are {size / 1e3:.0f} MB installed")

    @staticmethod
    def files(root):
        return {str(path.relative_to(root)) for path in root.rglob("*")}


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
