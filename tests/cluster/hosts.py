"""Hosts as network namespaces: each with an address, a name and a cable to one switch, which can be cut, slowed and restored.

Needs root, iproute2 and a kernel that lets network namespaces be made; `why_not()` says what is missing.
"""
import os
import signal
import subprocess

SUBNET = "10.213.7"  # seen by nobody outside the namespaces


def ip(*arguments, check=True):
    return subprocess.run(["ip", *map(str, arguments)], check=check, capture_output=True, text=True)


def why_not():
    """Why hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"ll-probe-{os.getpid()}"
    try:
        made = ip("netns", "add", name, check=False)
        if made.returncode != 0:
            return f"ip netns add: {made.stderr.strip()}"
        bridge = ip("-n", name, "link", "add", "br0", "type", "bridge", check=False)
        return f"a bridge: {bridge.stderr.strip()}" if bridge.returncode != 0 else ""
    except FileNotFoundError:
        return "iproute2 is not installed"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Hosts:
    """`count` hosts named host0, host1, … in a network of their own."""

    def __init__(self, count):
        self.prefix = f"ll{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.count = 0
        self.processes = []
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")
        for _ in range(count):
            self._add()

    def _add(self):
        i, name = self.count, self.namespace(self.count)
        self.count += 1
        ip("netns", "add", name)
        # Made inside the switch's namespace: nothing of it is ever seen outside.
        ip("-n", self.switch, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", self.switch, "link", "set", f"port{i}", "master", "br0")
        ip("-n", self.switch, "link", "set", f"port{i}", "up")
        ip("-n", name, "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "eth0", "up")

    def namespace(self, i):
        return f"{self.prefix}-host{i}"

    def address(self, i):
        return f"{SUBNET}.{10 + i}"

    def start(self, i, command, **options):
        """A process on host i; it sees the host's name and network, and the same files as everybody."""
        script = f"hostname host{i} && exec \"$@\""
        process = subprocess.Popen(["ip", "netns", "exec", self.namespace(i), "unshare", "--uts", "sh", "-c", script, "sh", *map(str, command)],
                                   **options)
        self.processes.append(process)
        return process

    def run(self, i, command, **options):
        return subprocess.run(["ip", "netns", "exec", self.namespace(i), *map(str, command)], **options)

    def cut(self, i):
        ip("-n", self.switch, "link", "set", f"port{i}", "down")

    def restore(self, i):
        ip("-n", self.switch, "link", "set", f"port{i}", "up")

    def slow(self, i, rate):
        """Both directions, e.g. "2mbit"; why it cannot be, or nothing."""
        for namespace, device in ((self.switch, f"port{i}"), (self.namespace(i), "eth0")):
            done = subprocess.run(["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "32kbit",
                                   "latency", "400ms"], capture_output=True, text=True)
            if done.returncode != 0:
                return done.stderr.strip() or "tc failed"
        return ""

    def full_speed(self, i):
        for namespace, device in ((self.switch, f"port{i}"), (self.namespace(i), "eth0")):
            subprocess.run(["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"], capture_output=True)

    def pids(self, i):
        return [int(pid) for pid in ip("netns", "pids", self.namespace(i), check=False).stdout.split()]

    def kill(self, i):
        """Every process of the host, at once."""
        for pid in self.pids(i):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def remove(self):
        for i in range(self.count):
            self.kill(i)
            ip("netns", "del", self.namespace(i), check=False)
        for process in self.processes:
            process.wait()
        ip("netns", "del", self.switch, check=False)
