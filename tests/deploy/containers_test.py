"""deploy/containers: both images built by buildah without a daemon, and what is in them; compose.yaml looked at.

containers_test.py BIN_DIR [--cuda], with the Debian packages that package_test.py made. Needs root. The base image is not
pulled: a minimal Debian root of the same release stands for it. --cuda: the worker's image of that variant, which is started
without a GPU.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from machine import base_root
from packages import CUDA, import_packages, need_programs, release_folder
from status import record

import_packages()
import yaml  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin").resolve()
FOLDER = ROOT / "deploy/containers"
DEADLINE_S = 1200 if CUDA else 500
# name: (packages, what a shell of the image's user runs, what that says, the same in words)
IMAGES = {
    # Serves, answers llctl, ends by SIGTERM; the scaler is there.
    "coordinator": (("client", "coordinator"),
                    "ll-coordinator --data-dir /var/lib/ll > /tmp/log 2>&1 & "
                    "for i in $(seq 300); do [ -s /var/lib/ll/endpoints.json ] && break; sleep 0.1; done; "
                    "llctl -o json workers list && id -u && kill %1 && wait %1; echo ended $?; ll-scaler --version | cut -d' ' -f1",
                    ["[]", "7070", "ended", "0", "ll-scaler"], "serves as user 7070"),
    # LibTorch is found, and the agent runs as far as it can without a coordinator.
    "worker": (("client", "worker"),
               "ll-trainer version | cut -d' ' -f1; "
               "ll-worker --work-dir /var/lib/ll/worker --cpu-slots 1 --trainer-sandbox auto > /tmp/log 2>&1 & "
               "for i in $(seq 300); do grep -q slots=1 /tmp/log && break; sleep 0.1; done; "
               "grep -o slots=1 /tmp/log && id -u && kill %1 && wait %1; echo ended $?",
               ["ll-trainer", "slots=1", "7070", "ended", "0"], "the trainer and the agent start as user 7070"),
}
NO_GPU = ("; ll-worker --work-dir /tmp/w --gpus all 2>&1 | grep -o 'found no NVIDIA driver'; "
          "ll-trainer probe --device cuda 2>&1 | grep -o 'libcuda.so.1'")


class Containers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_programs(buildah="buildah")
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ll-buildah-")))
        cls.addClassCleanup(lambda: cls.buildah("rm", "--all", check=False))

    @classmethod
    def buildah(cls, *arguments, check=True, **options):
        command = ["buildah", "--root", cls.folder / "storage", "--runroot", cls.folder / "run", "--storage-driver", "overlay", *arguments]
        run = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
                             env=dict(os.environ, BUILDAH_ISOLATION="chroot"), **options)
        if check and run.returncode != 0:
            raise RuntimeError(f"buildah {arguments}: {run.stdout[-1500:]}{run.stderr[-1500:]}")
        return run

    def make_base(self):
        container = self.buildah("from", "scratch").stdout.strip()
        self.buildah("add", "-q", container, base_root(""), "/")
        self.buildah("commit", "-q", "--rm", container, "localhost/debian:bookworm-slim")

    def build(self, target, packages):
        """(container, its configuration, seconds, MB) of an image of this release's packages."""
        began = time.monotonic()
        context = self.folder / f"context-{target}"
        (context / "build/release").mkdir(parents=True)
        for package in packages:
            (found,) = release_folder(BIN).glob(f"ll-{package}_*.deb")
            try:
                os.link(found, context / "build/release" / found.name)
            except OSError:  # another file system
                shutil.copy(found, context / "build/release")
        self.buildah("bud", "--layers=false", "--build-arg", "BASE=localhost/debian:bookworm-slim", "--build-arg", "PACKAGES=context", "--target",
                     target, "-t", f"localhost/ll-{target}:test", "-f", FOLDER / "Dockerfile", context)
        shutil.rmtree(context)
        took = time.monotonic() - began
        container = self.buildah("from", f"localhost/ll-{target}:test").stdout.strip()
        config = json.loads(self.buildah("inspect", container).stdout)["OCIv1"]["config"]
        self.assertEqual(config["User"], "7070:7070")
        mounted = pathlib.Path(self.buildah("mount", container).stdout.strip())
        size = sum(path.lstat().st_size for path in mounted.rglob("*") if path.is_file() and not path.is_symlink())
        return container, took, size / 1e6

    def in_container(self, container, script):
        """Standard output's words, of a shell of the image's user. By way of a file: buildah may end before it has copied the last lines."""
        run = self.buildah("run", container, "--", "bash", "-mc", f"exec > /tmp/said; {script}; test ! -w /usr/bin && command -v cc pip python3", check=False)
        said = pathlib.Path(self.buildah("mount", container).stdout.strip()) / "tmp/said"
        return said.read_text().split(), run.stdout + run.stderr

    @unittest.skipIf(CUDA, "one image")
    def test_images(self):
        self.make_base()
        for target, (packages, script, expected, seen) in IMAGES.items():
            with self.subTest(target):
                self.record_image(f"image of the {target}", self.check_image(target, packages, script, expected), seen)

    @unittest.skipUnless(CUDA, "wants packages of that variant")
    def test_cuda_image(self):
        self.make_base()
        packages, script, expected, seen = IMAGES["worker"]
        measured = self.check_image("worker", packages, script + NO_GPU, expected + "found no NVIDIA driver libcuda.so.1".split())
        self.record_image("CUDA image of the worker", measured, seen + " without a GPU, which they name when they are asked for one; never started on a GPU")

    def check_image(self, target, packages, script, expected):
        container, took, size_mb = self.build(target, packages)
        said, errors = self.in_container(container, script)
        self.assertEqual(said, expected, errors)
        self.buildah("rm", container)
        return took, size_mb

    @staticmethod
    def record_image(artefact, measured, seen):
        record(f"Containers: {artefact}", "run for real",
               f"built by buildah 1.28 (chroot isolation, no daemon) from the Debian packages in {measured[0]:.0f} s over a root of debootstrap instead of "
               f"the registry's image; {seen}; {measured[1]:.0f} MB unpacked")

    @unittest.skipIf(CUDA, "the same file")
    def test_compose(self):
        compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
        for name, service in compose["services"].items():
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertIs(service["read_only"], True, name)
            self.assertIn("no-new-privileges:true", service["security_opt"], name)
            self.assertRegex(service["image"], r":v?\d", name)
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), port)
            for volume in service.get("volumes", []):
                source = volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[0]
                self.assertTrue(source.startswith(("./", "../", "${")) or source in compose["volumes"], volume)
                if source.startswith("."):
                    self.assertTrue((FOLDER / source).exists(), source)
        for service in (one for one in compose["services"].values() if "command" in one):
            daemon, flags = service["command"][0], [word for word in service["command"] if word.startswith("--")]
            if daemon.startswith("ll-"):
                known = subprocess.run([BIN / daemon, "--help"], capture_output=True, text=True, check=True).stdout
                self.assertEqual([flag for flag in flags if flag not in known], [])
        grafana = compose["services"]["grafana"]
        self.assertTrue(any(volume.endswith("/dashboards:/etc/ll/grafana/dashboards:ro") for volume in grafana["volumes"]), grafana)
        for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]:
            self.assertTrue(all(target.startswith("127.0.0.1:707") for entry in job["static_configs"] for target in entry["targets"]))
        record("Containers: compose.yaml with Prometheus and Grafana", "rendered only",
               "no Docker daemon or Compose at hand; its keys, ports, mounts and the daemons' flags are checked")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
