"""What only these tests need and so deploy/bootstrap.sh does not install: some Debian packages, some of Python."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

LOCK = pathlib.Path(__file__).with_name("requirements.lock")
CUDA = "--cuda" in sys.argv  # the tests of a release then take that variant's


def release_folder(bin_dir):
    """Where package_test.py puts the release of this build, and the tests that install it look for it."""
    return pathlib.Path(bin_dir).parent / ("release-cuda" if CUDA else "release")


def cache_folder():
    return pathlib.Path(os.environ.get("LL_CACHE_DIR") or
                        pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ll")


def need_programs(**packages):
    """need_programs(program="debian-package", ...) installs what is missing. Their services are not started."""
    missing = sorted({package for program, package in packages.items() if shutil.which(program) is None})
    if not missing:
        return
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")  # invoke-rc.d starts nothing in run level 1
    for command in (["update"], ["install", "--no-install-recommends", *missing]):
        run = subprocess.run(["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *command], stdin=subprocess.DEVNULL, capture_output=True,
                             text=True, env=environment)
        if run.returncode != 0:
            raise RuntimeError(f"apt-get {' '.join(command)} failed:\n{run.stdout[-1000:]}{run.stderr[-1000:]}")


def import_packages():
    """Python's: in a cache folder keyed by the lock file."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = cache_folder() / f"deploy-tests-{version}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        run = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", "--no-deps", "--upgrade",
                              "--target", folder, "-r", LOCK], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError("pip failed:\n" + run.stderr[-2000:])
        (folder / "complete").touch()
    sys.path.insert(0, str(folder))
