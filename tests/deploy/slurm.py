"""A Slurm cluster of a test's own on loopback: munged, slurmctld and one slurmd a node, all on this host."""
import os
import pathlib
import secrets
import socket
import subprocess
import tempfile
import time

from packages import need_programs

DEADLINE_S = 120
CONF = """ClusterName=lltest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=20
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool.%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=20
JobRequeue=1
MailProg=/bin/true
NodeName=w[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] CPUs=2 RealMemory=2000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    """Adjacent ones, free a moment ago."""
    for first in range(21000 + os.getpid() % 2000 * 5, 60000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise RuntimeError("no free ports")


class Slurm:
    def __init__(self, nodes):
        self.nodes = nodes

    def __enter__(self):
        if os.geteuid() != 0:
            raise RuntimeError("this Slurm runs as root")
        need_programs(slurmctld="slurmctld", slurmd="slurmd", sbatch="slurm-client", munged="munge")
        self.folder = tempfile.TemporaryDirectory(prefix="ll-slurm-")
        self.dir = pathlib.Path(self.folder.name)
        self.dir.chmod(0o755)
        self.processes = {}
        first = free_ports(self.nodes + 1)
        for name in ("munge", "state"):
            (self.dir / name).mkdir(mode=0o755)
        key = self.dir / "munge/key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        conf = self.dir / "slurm.conf"
        conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], dir=self.dir, ctld_port=first, nodes=self.nodes, first_port=first + 1,
                                    last_port=first + self.nodes))
        self.environment = dict(os.environ, SLURM_CONF=str(conf))
        self.start("munged", "munged", "--foreground", "--force", f"--socket={self.dir}/munge/socket", f"--key-file={key}",
                   f"--pid-file={self.dir}/munge/pid", f"--log-file={self.dir}/munge/log", f"--seed-file={self.dir}/munge/seed")
        self.wait_for((self.dir / "munge/socket").exists, "munge's socket")
        self.start_controller()
        for node in self.node_names():
            self.start_node(node)
        self.wait_for(lambda: self.states("sinfo", "-h", "-N", "-o", "%T").count("idle") == self.nodes, "idle nodes")
        return self

    def node_names(self):
        return [f"w{i + 1}" for i in range(self.nodes)]

    def start(self, name, *command):
        log = open(self.dir / f"{name}.out", "a")
        self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                                                start_new_session=True)
        log.close()

    def start_controller(self):
        self.start("slurmctld", "slurmctld", "-D", "-f", self.dir / "slurm.conf")
        self.wait_for(lambda: self.run("scontrol", "ping", check=False).returncode == 0, "slurmctld")

    def start_node(self, node):
        # In process and mount name spaces of its own: when their first process dies, so does everything on the node.
        self.start(node, "unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "slurmd", "-D", "-N", node, "-f", self.dir / "slurm.conf")

    def kill(self, name):
        """kill -9 of one daemon."""
        self.processes[name].kill()
        self.processes[name].wait()

    def kill_node(self, node):
        """All that runs on it at once, as when its power fails."""
        self.kill(node)

    def run(self, *command, check=True, **options):
        run = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
                             env=dict(self.environment, **options.pop("env", {})), **options)
        if check and run.returncode != 0:
            raise RuntimeError(f"{command}: exit status {run.returncode}\n{run.stdout}{run.stderr}")
        return run

    def states(self, *command):
        return self.run(*command).stdout.split()

    def wait_for(self, condition, what, seconds=DEADLINE_S):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = "".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(self.dir.glob("*.log")))
                raise RuntimeError(f"no {what} within {seconds} s\n{logs}")
            time.sleep(0.2)

    def __exit__(self, *_):
        self.run("scancel", "--signal=KILL", "--user=root", check=False)
        self.run("scancel", "--user=root", check=False)
        for node in self.node_names():
            if node in self.processes:
                self.kill_node(node)
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.folder.cleanup()
