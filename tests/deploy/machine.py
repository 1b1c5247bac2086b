"""A Debian 12 machine of a test's own: systemd as process 1 in new namespaces, over a minimal root that is thrown away.

Nothing of the host is visible in it: no compiler, no Python, no /usr/local, no network but loopback. Needs root,
debootstrap and a version 2 control group hierarchy.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from packages import cache_folder, need_programs

SYSTEMD = "systemd,systemd-sysv"
DEADLINE_S = 60
# Run by bash as process 1 of the new namespaces; $1 is the root. systemd then takes the process over.
BOOT = r"""
set -e
root=$1
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
cd "$root"
mkdir -p .host
pivot_root . .host
umount -l .host
rmdir .host
exec env -i container=ll-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=console --show-status=0
"""


def base_root(packages=SYSTEMD):
    """A minimal Debian root with these packages, made once a machine (a minute) and never changed."""
    cache = cache_folder()
    need_programs(debootstrap="debootstrap", curl="curl")
    root = cache / ("debian-" + hashlib.sha256(f"bookworm {packages}".encode()).hexdigest()[:12])
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = pathlib.Path(tempfile.mkdtemp(prefix="debian-", dir=cache))
        try:
            run = subprocess.run(["debootstrap", "--variant=minbase", *([f"--include={packages}"] if packages else []), "bookworm", made],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500)
            if run.returncode != 0:
                raise RuntimeError("debootstrap failed:\n" + run.stdout[-2000:] + run.stderr[-2000:])
            made.chmod(0o755)
            made.rename(root)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return root


def cgroup2():
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return pathlib.Path(folder)
    raise RuntimeError("no control group hierarchy of version 2 is mounted")


class Machine:
    """Use as a context; `root` is its root folder as the host sees it. `packages`: more of Debian's that it has."""

    def __init__(self, *packages):
        self.packages = ",".join((SYSTEMD, *packages))

    def __enter__(self):
        if os.geteuid() != 0:
            raise RuntimeError("a machine of its own needs root")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ll-machine-"))
        self.root = self.folder / "root"
        for name in ("root", "upper", "work"):
            (self.folder / name).mkdir()
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir={base_root(self.packages)},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}", self.root], check=True)
        self.cgroup = cgroup2() / self.folder.name
        self.cgroup.mkdir()
        self.pid = None
        return self

    def boot(self):
        """Returns the seconds until systemd was up."""
        began = time.monotonic()
        self.log = open(self.folder / "console.log", "w")
        inner = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child", "--propagation", "private",
                 "bash", "-c", BOOT, "bash", str(self.root)]
        join = f'echo $$ > "{self.cgroup}/cgroup.procs" && exec "$@"'
        self.process = subprocess.Popen(["bash", "-c", join, "bash", *inner], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.wait_for(lambda: children.read_text().strip(), "a first process")
        self.pid = children.read_text().split()[0]
        self.wait_for(lambda: pathlib.Path(f"/proc/{self.pid}/comm").read_text().strip() == "systemd", "systemd")
        self.wait_for(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() == "running", "the end of the boot")
        self.run_host_in_network("ip", "link", "set", "lo", "up")
        return time.monotonic() - began

    def run(self, *arguments, check=True, timeout=DEADLINE_S, **options):
        """Inside, with nothing of the host's environment."""
        command = ["nsenter", "-t", self.pid, "-a", "env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *map(str, arguments)]
        options.setdefault("stdin", subprocess.DEVNULL)
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
        if check and run.returncode != 0:
            raise RuntimeError(f"{arguments}: exit status {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        return run

    def run_host_in_network(self, *arguments):
        """A program of the host that sees the machine's network."""
        return subprocess.run(["nsenter", "-t", self.pid, "-n", *arguments], check=True, capture_output=True, text=True, timeout=DEADLINE_S)

    def files(self):
        """Every path with its kind, without what systemd itself writes, and Prometheus into its own folder."""
        own = ("run", "proc", "sys", "dev", "tmp", "var/log", "var/lib/systemd", "var/lib/prometheus", "var/tmp", "var/cache", "etc/machine-id")
        listed = self.run("find", "/", "-xdev", *sum((["-path", f"/{name}", "-prune", "-o"] for name in own), []), "-printf", "%y %p\\n").stdout
        return set(listed.splitlines())

    def wait_for(self, condition, what, seconds=DEADLINE_S):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "-q", "-n", "40", "-o", "cat", "-u", "ll-*", check=False).stdout if self.pid else ""
                raise RuntimeError(f"no {what} within {seconds} s\n{(self.folder / 'console.log').read_text()[-3000:]}{journal}")
            time.sleep(0.1)

    def __exit__(self, *_):
        if self.pid is not None:
            self.process.kill()  # and with it process 1, which takes the rest along
            self.process.wait()
            self.log.close()
        for _ in range(100):
            folders = [self.cgroup] + [path for path in self.cgroup.rglob("*") if path.is_dir()]
            try:
                for path in sorted(folders, key=lambda path: -len(path.parts)):
                    path.rmdir()
                break
            except OSError:
                time.sleep(0.1)
        subprocess.run(["umount", "-l", self.root], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
