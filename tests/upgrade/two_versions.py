#!/usr/bin/env python3
"""Two versions of the real programs with real stores: a coordinator is upgraded, put back and upgraded again under running jobs, then the
agent, on SQLite and on PostgreSQL; and two coordinators of different versions hand the leadership to each other.

  tests/upgrade/two_versions.py --old FOLDER_OR_COMMIT [--new build/bin] [--trainer build/tests/fake_trainer] [--stores sqlite,postgres]

--old: a folder with ll-coordinator, ll-worker and llctl of the other version, or a commit, of which they are built first (kept in
--cache, minutes on two cores). Without it: the last release, whose commit proto/released.txt names.
One JSON line a store is what was seen; docs/upgrade.md tells of it.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cluster"), str(ROOT / "tests/support")]
from waiting import await_that, free_port  # noqa: E402
PROGRAMS = ("ll-coordinator", "ll-worker", "llctl")
DEADLINE_S = 60
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32"}


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *map(str, arguments)], check=True, capture_output=True, text=True).stdout.strip()


def last_release():
    return re.search(r"^# Commit: (\w+)$", (ROOT / "proto/released.txt").read_text(), re.M)[1]


def build(commit, cache, jobs):
    """The programs of a commit."""
    commit = git("rev-parse", "--short=12", commit)
    out = cache / commit
    if all((out / name).exists() for name in PROGRAMS):
        return out
    tree = cache / f"{commit}-tree"
    if not tree.exists():
        git("worktree", "add", "--detach", tree, commit)
    # The toolchain of this build folder; nothing of torch and no tests.
    run = lambda *command: subprocess.run(command, check=True, cwd=tree, stdin=subprocess.DEVNULL)  # noqa: E731
    run("cmake", "-S", ".", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DLL_TESTS=OFF", "-DLL_TRAINER=OFF")
    run("cmake", "--build", "build", "--target", *PROGRAMS, f"-j{jobs}")
    made = cache / f"{commit}.part"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for name in PROGRAMS:
        shutil.copy2(tree / "build/bin" / name, made / name)
    made.rename(out)
    git("worktree", "remove", "--force", tree)
    return out


def expect(holds, what):
    if not holds:
        raise AssertionError(what)


class Cluster:
    """One or two coordinators and an agent, whose programs may be of either version."""

    def __init__(self, store, old, new, trainer):
        self.programs, self.trainer, self.store = {"old": old, "new": new}, trainer, store
        self.folder = tempfile.TemporaryDirectory(prefix="ll-two-versions-")
        self.root = pathlib.Path(self.folder.name)
        self.postgres = None
        if store == "postgres":
            from postgres import Postgres
            self.postgres = Postgres()
        (self.root / "model").mkdir()
        (self.root / "model/config.json").write_text(json.dumps(CONFIG))
        (self.root / "data.bin").write_bytes(b"\1" * 65536)
        token = secrets.token_hex(32)
        for name, text in (("tokens.jsonl", json.dumps({"token_sha256": hashlib.sha256(token.encode()).hexdigest(), "user": "ada", "scopes": [
                "read", "submit", "cancel", "admin", "worker"]})), ("token", token)):
            (self.root / name).write_text(text + "\n")
            (self.root / name).chmod(0o600)
        self.ports = {name: f"127.0.0.1:{free_port()}" for name in ("a", "b")}
        self.addresses = ",".join(self.ports.values()) if self.postgres else self.ports["a"]
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LLCTL_TOKEN": token, "LLCTL_COORDINATOR": self.addresses}
        self.processes, self.seen = {}, []

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(DEADLINE_S)
        if self.postgres:
            self.postgres.close()
        self.folder.cleanup()

    def run(self, version, program, *arguments, code=0):
        done = subprocess.run([self.programs[version] / program, *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S,
                              env=self.environment)
        if code is not None:
            expect(done.returncode == code, f"{version} {program} {arguments}: {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done

    def knows(self, version, program, *words):
        """Whether a program of that version has this command or flag."""
        return words[-1] in self.run(version, program, *words[:-1], "--help", code=None).stdout

    def llctl(self, version, *arguments):
        return json.loads(self.run(version, "llctl", "-o", "json", *arguments).stdout)

    def start(self, name, program, *arguments):
        log = open(self.root / f"{name}.log", "ab")
        # Started by a path that stays: what stands there may be exchanged.
        self.processes[name] = subprocess.Popen([program, *map(str, arguments)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                                env=self.environment)
        log.close()

    def store_flags(self, name):
        return ("--store", self.postgres.uri) if self.postgres else ()

    def start_coordinator(self, version, name="a"):
        self.start(name, self.programs[version] / "ll-coordinator", "--listen", self.ports[name], "--http", "127.0.0.1:0", "--data-dir",
                   self.root / name, "--tokens", self.root / "tokens.jsonl", *self.store_flags(name))

    def stop(self, name):
        self.processes[name].send_signal(signal.SIGTERM)
        self.processes[name].wait(DEADLINE_S)

    def log(self, name):
        return (self.root / f"{name}.log").read_text(errors="replace")

    def install_agent(self, version):
        """Puts the agent's program where it is started from, as a package does."""
        fresh = self.root / "ll-worker.new"
        shutil.copy2(self.programs[version] / "ll-worker", fresh)
        fresh.rename(self.root / "ll-worker")

    def start_agent(self):
        self.start("agent", self.root / "ll-worker", "--coordinator", self.addresses, "--http", "127.0.0.1:0", "--work-dir", self.root / "w1",
                   "--name", "w1", "--cpu-slots", 3, "--slot-memory", 4000000000, "--trainer", self.trainer, "--trainer-threads", 1,
                   "--token-file", self.root / "token")

    def connected(self):
        run = self.run("new", "llctl", "-o", "json", "workers", "list", code=None)
        return run.returncode == 0 and any(worker.get("connected") for worker in json.loads(run.stdout))

    def await_service(self):
        await_that(self.connected, f"the agent in contact: {self.log('a')[-800:]}")

    def submit(self, version, name, steps, gpus=1, *more):
        return self.llctl(version, "submit", "--model", self.root / "model", "--data", self.root / "data.bin", "--ctx", 512, "--steps", steps,
                          "--gpus", gpus, "--name", name, "--request-id", name, "--set", "save_steps=10", *more)["job_id"]

    def rank_pids(self, job):
        pids = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == bytes(self.trainer) and any(job.encode() in word and bytes(self.root) in word for word in words):
                pids.append(int(folder.name))
        return sorted(pids)

    def steps_on_disk(self, job):
        return sum(file.read_bytes().count(b'"event":"step"') for file in (self.root / "w1/jobs" / job).glob("e*/events.jsonl"))

    def losses(self, job):
        """{step: losses that were computed for it} of all attempts."""
        out = {}
        for file in (self.root / "w1/jobs" / job).glob("e*/events.jsonl"):
            for line in file.read_text().splitlines():
                event = json.loads(line)
                if event.get("event") == "step":
                    out.setdefault(event["step"], set()).add(event["loss"])
        return out


def undisturbed(cluster, what, job, ranks, epoch=1):
    """The job's ranks are the processes they were, train on, and both clients see them."""
    cluster.await_service()
    expect(cluster.rank_pids(job) == ranks, f"{what}: ranks {ranks} became {cluster.rank_pids(job)}")
    before = cluster.steps_on_disk(job)
    await_that(lambda: cluster.steps_on_disk(job) > before, f"{what}: another step")
    for version in ("old", "new"):
        seen = cluster.llctl(version, "get", job)
        expect((seen["state"], int(seen["epoch"]), int(seen.get("retries", 0))) == ("RUNNING", epoch, 0), f"{what}: {version} llctl: {seen}")
    cluster.seen.append(what)
    print(f"  {what}: the same ranks", flush=True)


def finished(cluster, job, steps=None):
    """The job ends well, or is cancelled where it would go on for ever, and no step was lost or has two losses."""
    if steps is None:
        cluster.run("new", "llctl", "cancel", job)
    end = "CANCELLED" if steps is None else "SUCCEEDED"
    await_that(lambda: cluster.llctl("new", "get", job)["state"] == end, "the job's end", 120)
    losses = cluster.losses(job)
    expect(sorted(losses) == list(range(1, (steps or max(losses)) + 1)), f"steps {sorted(losses)[:3]}…{sorted(losses)[-3:]} of {steps}")
    expect(all(len(values) == 1 for values in losses.values()), "a step has two losses")


def coordinator_upgrade(cluster, job, ranks, out):
    """old -> new -> old -> new, one coordinator after the other. Another schema: old refuses in one line, and a backup brings it back."""
    backup = cluster.root / "before.backup"
    where = ("--store", cluster.postgres.uri) if cluster.postgres else ()
    if cluster.knows("old", "ll-coordinator", "backup"):
        cluster.run("old", "ll-coordinator", "backup", "--data-dir", cluster.root / "a", *where, "--to", backup)
    queued = cluster.submit("old", "queued-by-old", 30, 1, "--set", f"after_any={job}")
    waits = cluster.llctl("old", "get", queued)["state"]
    cluster.stop("a")
    cluster.start_coordinator("new")
    undisturbed(cluster, "coordinator old to new", job, ranks)
    state = cluster.llctl("new", "get", queued)["state"]
    expect(state == waits, f"what waited as {waits} is {state}")
    expect(cluster.submit("old", "queued-by-old", 30, 1, "--set", f"after_any={job}") == queued, "the same request is another job after the upgrade")
    small = cluster.submit("old", "of-old-at-new", 30)
    finished(cluster, small, 30)
    cluster.stop("a")
    cluster.start_coordinator("old")
    process = cluster.processes["a"]
    until = time.monotonic() + DEADLINE_S
    while process.poll() is None and not cluster.connected() and time.monotonic() < until:
        time.sleep(0.05)
    if process.poll() is None:
        out["schema"] = "the same"
        undisturbed(cluster, "coordinator new back to old", job, ranks)
        small = cluster.submit("new", "of-new-at-old", 30)
        finished(cluster, small, 30)
        cluster.stop("a")
    else:
        refused = cluster.log("a").strip().splitlines()[-1]
        expect("schema version" in refused and "start the newer version again" in refused, f"old says: {refused}")
        out["schema"] = refused
        cluster.seen.append("old refuses the newer store in one line")
    cluster.start_coordinator("new")
    undisturbed(cluster, "coordinator old to new again", job, ranks)
    return queued, backup


def leadership(cluster, job, ranks):
    """On PostgreSQL: an old standby beside a new leader, and the other way round."""
    cluster.start_coordinator("old", "b")
    time.sleep(1)
    cluster.processes["a"].kill()
    cluster.processes["a"].wait(DEADLINE_S)
    time.sleep(3)  # its lease
    if cluster.connected():
        undisturbed(cluster, "leader new killed, old leads", job, ranks)
    else:
        expect("schema version" in cluster.log("b"), "the old standby neither leads nor says why")
        cluster.seen.append("an old standby does not lead over a newer schema")
    cluster.start_coordinator("new")
    time.sleep(1)
    cluster.stop("b")
    undisturbed(cluster, "leader old ended, new leads", job, ranks)


def agent_upgrade(cluster, job, ranks, out):
    """In place where the old agent can (no rank notices); otherwise stopped and started, which costs a resume and no step."""
    cluster.install_agent("new")
    done = cluster.run("new", "ll-worker", "reexec", "--work-dir", cluster.root / "w1", code=None)
    out["agent"] = (done.stdout + done.stderr).strip().splitlines()[-1].replace(str(cluster.root / "w1"), "its work directory")
    print(f"  ll-worker reexec: {out['agent']}", flush=True)
    if done.returncode == 0:
        undisturbed(cluster, "agent old to new in place", job, ranks)
    else:
        expect(cluster.processes["agent"].poll() is None, "the old agent died of what it cannot do")
        undisturbed(cluster, "the old agent goes on as it was", job, ranks)
        cluster.stop("agent")
        cluster.start_agent()
        cluster.await_service()
        await_that(lambda: len(cluster.rank_pids(job)) == len(ranks) and cluster.llctl("new", "get", job)["state"] == "RUNNING", "the resumed ranks")
        cluster.seen.append("agent old to new by a restart: one resume")
    seen = cluster.llctl("new", "get", job)
    finished(cluster, job)
    out["attempts"], out["retries"] = int(seen["epoch"]), int(seen.get("retries", 0))


def exercise(store, old, new, trainer):
    out, began = {"store": store}, time.monotonic()
    print(f"{store}:", flush=True)
    cluster = Cluster(store, old, new, trainer)
    try:
        if store == "postgres" and not cluster.knows("old", "ll-coordinator", "--store"):
            return {**out, "seen": ["the old version has no PostgreSQL"]}
        cluster.start_coordinator("old")
        cluster.install_agent("old")
        cluster.start_agent()
        cluster.await_service()
        out["versions"] = cluster.run("old", "ll-coordinator", "--version").stdout.strip(), cluster.run("new", "ll-coordinator", "--version").stdout.strip()
        job = cluster.submit("old", "long", 10_000_000, 2, "--labels", "fake.step_ms=20")
        await_that(lambda: cluster.llctl("old", "get", job)["state"] == "RUNNING" and len(cluster.rank_pids(job)) == 2, "the job's ranks")
        ranks = cluster.rank_pids(job)
        queued, backup = coordinator_upgrade(cluster, job, ranks, out)
        if store == "postgres":
            leadership(cluster, job, ranks)
        agent_upgrade(cluster, job, ranks, out)
        await_that(lambda: cluster.llctl("new", "get", queued)["state"] == "SUCCEEDED", "what old had queued")
        if backup.exists():
            cluster.run("new", "ll-coordinator", "restore", "--store", "sqlite", "--data-dir", cluster.root / "restored", "--from", backup)
            cluster.seen.append("a backup of old restored by new")
    except BaseException:
        for file in sorted(cluster.root.glob("*.log")):
            print(f"--- {file.name}\n{file.read_text(errors='replace')[-2500:]}", file=sys.stderr)
        raise
    finally:
        cluster.close()
    out.update(seen=cluster.seen, ranks_restarted_by_coordinators=0, seconds=round(time.monotonic() - began))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--old")
    ap.add_argument("--new", type=pathlib.Path, default=ROOT / "build/bin")
    ap.add_argument("--trainer", type=pathlib.Path, default=ROOT / "build/tests/fake_trainer")
    ap.add_argument("--stores", default="sqlite,postgres")
    ap.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "ll-versions")
    ap.add_argument("--jobs", type=int, default=os.cpu_count())
    a = ap.parse_args()
    old = pathlib.Path(a.old or "/nowhere")
    if not old.is_dir():
        a.cache.mkdir(parents=True, exist_ok=True)
        old = build(a.old or last_release(), a.cache, a.jobs)
    for name in ("ll-coordinator", "ll-worker"):
        if (old / name).read_bytes() == (a.new / name).read_bytes():
            sys.exit(f"two_versions.py: {name} is the same program in both: nothing would be shown")
    for store in a.stores.split(","):
        print("UPGRADE " + json.dumps({**exercise(store, old.resolve(), a.new.resolve(), a.trainer.resolve()), "old": old.name}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
