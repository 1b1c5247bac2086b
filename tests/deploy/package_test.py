"""Makes the release of this build with deploy/package.sh, for the tests that install it, and looks at it.

package_test.py BIN_DIR [--cuda]: the release goes to BIN_DIR/../release, the CUDA variant's to BIN_DIR/../release-cuda.
"""
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

from packages import CUDA, need_programs, release_folder
from status import record

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin").resolve()
RELEASE = release_folder(BIN)
EPOCH = "1700000000"
NOT_RUN = {  # what nothing here can run, and what is known of it all the same
    "release: CUDA variant on a GPU": "no GPU was at hand when the release was made; it starts and trains without one",
    "Kubernetes: a cluster": "none was at hand; manifests are rendered and checked, ll-scaler talks to a stand-in of the API server",
    "NCCL on several GPUs": "one GPU at most was at hand; ranks on several slots run over Gloo",
    "several hosts over InfiniBand or RoCE": "no such network was at hand; hosts are emulated by network namespaces",
}


def package(out, *formats):
    run = subprocess.run([ROOT / "deploy/package.sh", "--variant", "cuda" if CUDA else "cpu", "--build", BIN.parent, "--out", out, *(word for f in formats for word in ("--format", f))],
                         capture_output=True, text=True, timeout=1500, env=dict(os.environ, SOURCE_DATE_EPOCH=EPOCH))
    if run.returncode != 0:
        raise AssertionError(run.stdout[-2000:] + run.stderr[-2000:])
    return dict(reversed(line.split()) for line in (pathlib.Path(out) / "SHA256SUMS").read_text().splitlines())


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_programs(**{"dpkg-shlibdeps": "dpkg-dev", "readelf": "binutils"})
        for old in list(RELEASE.glob("ll-*.tar.gz")) + list(RELEASE.glob("ll-*.deb")):
            old.unlink()
        cls.sums = package(RELEASE, "tar", "deb")

    @unittest.skipIf(CUDA, "the same script, and gigabytes to press")
    def test_the_same_build_gives_the_same_bytes(self):
        with tempfile.TemporaryDirectory(prefix="ll-package-") as folder:
            again = package(folder, "deb")
        self.assertEqual(len(again), 3)
        self.assertEqual(again, {name: digest for name, digest in self.sums.items() if name.endswith(".deb")})

    def test_nothing_of_this_machine_is_in_the_tarball(self):
        with tempfile.TemporaryDirectory(prefix="ll-package-") as folder, tarfile.open(next(RELEASE.glob("*.tar.gz"))) as tar:
            self.assertEqual({(m.uid, m.gid, m.mtime) for m in tar.getmembers()}, {(0, 0, int(EPOCH))})
            tar.extractall(folder, filter="data")
            (tree,) = pathlib.Path(folder).iterdir()
            programs = sorted(tree.glob("bin/*"))
            self.assertEqual([p.name for p in programs], ["ll-coordinator", "ll-data", "ll-scaler", "ll-trainer", "ll-worker", "llctl"])
            for program in programs:
                dynamic = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
                self.assertIn("Library rpath: [$ORIGIN/../lib/ll]", dynamic, program.name)
            listed = (tree / "share/doc/ll/THIRD_PARTY").read_text()
            for line in listed.splitlines():
                self.assertGreater((tree / "share/doc/ll" / line.rsplit(": ", 1)[1]).stat().st_size, 200, line)
            for name in ("torch-2", "libgrpc29", "nvidia_cuda_runtime", "libssl3") + ("nvidia_cublas", "nvidia_cudnn", "nvidia_nccl") * CUDA:
                self.assertIn(name, listed)
            self.assertEqual((tree / "lib/ll/libll_cuda.so").exists(), CUDA)
            config = (tree / "share/ll/config/worker.yaml").read_text()
            size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
            record(f"release: {'CUDA' if CUDA else 'CPU'} tarball and Debian packages", "run for real",
                   f"made{'' if CUDA else ' twice with the same bytes'}; {next(RELEASE.glob('*.tar.gz')).stat().st_size / 1e6:.0f} MB packed, "
                   f"{size / 1e6:.0f} MB unpacked")
            for artefact, why in NOT_RUN.items():
                record(artefact, "not run", why)
            for path in ("nightly/create.sh", "nightly/nightly.yaml", "prometheus/prometheus.yml", "prometheus/rules/alerts.yml", "slurm/ll-workers.sbatch",
                         "slurm/keep-workers.sh", "grafana/dashboards/ll-job.json"):
                self.assertEqual((tree / "share/ll" / path).read_bytes(), (ROOT / "deploy" / path).read_bytes())
            self.assert_stated(next(RELEASE.glob("*.tar.gz")).stat().st_size, size)
            self.assertEqual(config, (ROOT / "deploy/config/worker.yaml").read_text())

    def assert_stated(self, packed, unpacked):
        """docs/install.md says these sizes; a few per cent come and go with the libraries."""
        page = (ROOT / "docs/install.md").read_text()
        for measured, stated in zip((packed, unpacked), re.search(rf"{'CUDA' if CUDA else 'CPU'} tarball is (\d+) MB and (\d+) MB installed", page).groups()):
            self.assertAlmostEqual(measured / 1e6 / int(stated), 1, delta=0.03, msg=f"{measured / 1e6:.0f} MB, docs/install.md says {stated}")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
