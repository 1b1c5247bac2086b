"""SIGKILL at every phase of a training, swept: after each kill a restart ends with the undisturbed run's bits.

  kill_sweep_test.py --trainer PATH --kill-at LIBRARY [--seed N] [--whole] [--report FILE] [TEST…]

tests/trainer/kill_at.cc, preloaded, lists every operation of one undisturbed run: what it does to files below its folder, where it computes
(call stacks, sorted into phases by the functions in them) and what it sends to other ranks. Then the run is killed at one operation after the other.
Of the files' operations and the messages `--whole` takes every one, else the first and the last of each kind on each file; of the compute operations it
takes the first and the last at each distinct call stack, else the first of each of the phases' innermost functions. Several kills are tried at a
time: after most of them nothing computes until a silence has been long enough.
"""
import collections
import concurrent.futures
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import harness
from harness import Gang, TrainerTest, losses, train

KILL_AT = REPORT = None
WHOLE = False
STEPS, SAVE = 4, 2
CORES = len(os.sched_getaffinity(0))
PATIENCE_S = 8 * int(os.environ.get("LL_PATIENCE", "1"))  # until a rank that lost the other one has ended; more where others have the cores
# A pattern of functions in the call stack -> the phase, the first that is found counting.
PHASES = (("GradNorm", "clip"), ("AdamWOptimizer::Step", "optimizer"), ("AdamWOptimizer::AdamWOptimizer", "load"), ("Snapshot", "snapshot"),
          ("OptimizerTensors", "snapshot"), ("WriteSafetensors", "snapshot"), ("StartStep", "step"),
          ("ShardedParameters::ShardedParameters", "load"), ("ShardedParameters|ShardedSums|SharedFigures", "reduce"),
          ("Loader::Load", "data"), ("LlamaHead", "head"), ("(?<!Forward)Backward", "backward"), ("::Llama::Create", "load"), ("ResumeOrStart", "load"),
          ("RestoreTensors", "load"), ("HostNames", "load"), ("FinishCheckpoint", "finish"), ("ForwardBackward", "forward"), ("RunStep", "step"),
          ("Train", "loop"))
# What an undisturbed run of one rank must have been killed in.
EXPECTED = {"load", "data", "forward", "head", "backward", "clip", "optimizer", "snapshot", "start", "event", "weights file", "optimizer file",
            "small file", "manifest", "COMPLETE", "sync", "rename", "removal", "exit"}


def events_in(path):
    """The whole lines: a kill may have cut one."""
    events = []
    if os.path.exists(path):
        with open(path, errors="replace") as f:
            for line in f:
                try:
                    events.append(json.loads(line))
                except ValueError:
                    pass
    return events


def plain(what, out):
    """A file's name without what differs from run to run."""
    return re.sub(r"\.tmp(-\d+-\d+)?$", "", re.sub(r"step-\d+", "step", what.replace(out, "")))


def phase_of_file(kind, path):
    if kind == "exit":
        return "exit"
    if ".removing-" in path:
        return "removal"
    if kind == "sync":
        return "sync"
    if kind == "rename":
        return "rename"
    for part, phase in (("events.jsonl", "event"), ("MANIFEST", "manifest"), ("COMPLETE", "COMPLETE"), ("optimizer-", "optimizer file"),
                        ("model.safetensors", "weights file"), (".json", "small file")):
        if part in path:
            return phase
    return "start" if kind in ("mkdir", "open") else kind


class Symbols:
    """Functions of the program by the offsets of a call stack."""

    def __init__(self):
        self.names = {}

    def learn(self, offsets):
        new = sorted(set(offsets) - set(self.names))
        if not new:
            return
        told = subprocess.run(["addr2line", "-a", "-f", "-i", "-C", "-e", harness.TRAINER, *new], capture_output=True, text=True, check=True).stdout
        for part in re.split(r"^0x", told, flags=re.M)[1:]:
            offset, *lines = part.splitlines()
            self.names[offset.lstrip("0")] = " < ".join(lines[::2])  # with what was inlined

    def phase(self, offsets):
        self.learn(offsets)
        stack = " < ".join(self.names[o] for o in offsets)
        return next((phase for function, phase in PHASES if re.search(function, stack)), "start")

    def innermost(self, offsets):
        """Of the project's own functions."""
        self.learn(offsets)
        return next((self.names[o] for o in offsets if "ll::" in self.names[o]), "")


SYMBOLS = Symbols()


class Point:
    """An operation of the undisturbed run."""

    def __init__(self, line, what_class, out):
        number, self.kind, *rest = line.split(" ", 2)
        self.number, what = int(number), rest[0].strip() if rest else ""
        if what_class == "compute":
            self.stack = what.split()
            self.phase = SYMBOLS.phase(self.stack)
            self.family = (self.phase, what if WHOLE else SYMBOLS.innermost(self.stack))
        elif what_class == "io":
            self.phase = phase_of_file(self.kind, what)
            self.family = (self.number,) if WHOLE else (self.kind, plain(what, out))
        else:
            self.phase = "message"
            self.family = (self.number,) if WHOLE else (self.kind,)


def chosen(points, what_class):
    """The first and the last of each family; of compute without --whole the first."""
    families = collections.OrderedDict()
    for point in points:
        families.setdefault(point.family, []).append(point)
    both = WHOLE or what_class != "compute"
    picked = {p.number: p for members in families.values() for p in ([members[0], members[-1]] if both else [members[0]])}
    return [picked[n] for n in sorted(picked)]


def each(attempt, points, at_a_time):
    """What `attempt` returns for every point, in their order; they are made in other threads."""
    pool = concurrent.futures.ThreadPoolExecutor(at_a_time)
    try:
        yield from pool.map(attempt, points)
    finally:
        pool.shutdown(cancel_futures=True)


class KillSweepTest(TrainerTest):
    def setUp(self):
        super().setUp()
        self.hit = collections.Counter()
        self.redone = []
        self.seconds = time.monotonic()

    def preload(self, what_class, out, at, log):
        return {"LD_PRELOAD": KILL_AT, "LL_KILL_CLASS": what_class, "LL_KILL_DIR": out, "LL_KILL_AT": str(at), "LL_KILL_LOG": log,
                "OMP_NUM_THREADS": "1"}

    def spec(self, **changes):
        return self.write_spec(**{"max_steps": STEPS, "save_steps": SAVE, "save_total_limit": 1, "lora_dropout": 0.1, **changes})

    def lines(self, path):
        if not os.path.exists(path):
            return []
        with open(path) as f:
            return f.readlines()

    def whole_checkpoints(self, out):
        """Steps of what looks like a checkpoint, each of which must be whole: COMPLETE, manifest and files agree."""
        root, steps = os.path.join(out, "checkpoints"), []
        for name in os.listdir(root) if os.path.isdir(root) else []:
            if not name.startswith("step-"):
                continue
            folder = os.path.join(root, name)
            manifest = harness.read(folder, "MANIFEST.json", mode="rb")
            self.assertEqual(harness.read(folder, "COMPLETE").strip(), hashlib.sha256(manifest).hexdigest())
            for file, promised in json.loads(manifest)["files"].items():
                self.assertEqual(hashlib.sha256(harness.read(folder, file, mode="rb")).hexdigest(), promised["sha256"], f"{name}/{file}")
            steps.append(int(name[5:]))
        return steps

    def weights(self, out):
        folder = os.path.join(out, "checkpoints", f"step-{STEPS:06d}")
        return {name: f["sha256"] for name, f in json.loads(harness.read(folder, "MANIFEST.json"))["files"].items() if name.endswith(".safetensors")}

    def check_after_kill(self, out, events, resumed, expected):
        """`events` before the kill, `resumed` after the restart."""
        seen = losses(events)
        for step, value in {**seen, **losses(resumed)}.items():
            self.assertEqual(value, expected["losses"][step], f"step {step}")
        for step, value in losses(resumed).items():
            self.assertEqual(value, expected["losses"][step], f"step {step} after the restart")
        first = min(losses(resumed), default=STEPS + 1)
        redone = max(0, max(seen, default=0) + 1 - first)
        # An interval, and the steps taken while the snapshot at its beginning was being written, which the next snapshot waits for.
        self.assertLessEqual(redone, 2 * SAVE)
        self.redone.append(redone)
        self.assertEqual(self.weights(out), expected["weights"])
        self.assertEqual(self.whole_checkpoints(out), [STEPS])
        self.assertEqual([n for n in os.listdir(os.path.join(out, "checkpoints")) if not n.startswith("step-")], [])

    def report(self, name):
        seconds = time.monotonic() - self.seconds
        result = {"test": name, "whole": WHOLE, "kills": sum(self.hit.values()), "by_phase": dict(sorted(self.hit.items())),
                  "steps_redone": dict(sorted(collections.Counter(self.redone).items())), "seconds": round(seconds, 1), "seed": harness.SEED}
        print(json.dumps(result), flush=True)
        if REPORT:
            with open(REPORT, "a") as f:
                f.write(json.dumps(result) + "\n")

    # ---- one rank

    def one(self, spec, out, **preload):
        return train(spec, out, env={**os.environ, "OMP_NUM_THREADS": "1", **preload})

    def undisturbed(self, spec):
        out = self.path("straight")
        done = self.one(spec, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {"losses": losses(events_in(os.path.join(out, "events.jsonl"))), "weights": self.weights(out)}

    def points(self, spec, what_class):
        out, log = self.path("listed-" + what_class), self.path(what_class + ".log")
        done = self.one(spec, out, **self.preload(what_class, out, 0, log))
        self.assertEqual(done.returncode, 0, done.stderr)
        return [Point(line, what_class, out) for line in self.lines(log)]

    def sweep(self, what_class, spec, expected, prepare=lambda out: None):
        points = chosen(self.points(spec, what_class), what_class)

        def attempt(point):
            out, log = self.path(f"{what_class}-{point.number}"), self.path(f"{what_class}-{point.number}.log")
            prepare(out)
            killed = self.one(spec, out, **self.preload(what_class, out, point.number, log))
            self.whole_checkpoints(out)
            before = events_in(os.path.join(out, "events.jsonl"))
            return out, self.lines(log), killed, before, self.one(spec, out)

        for out, fatal, killed, before, again in each(attempt, points, CORES):
            if not fatal:  # two threads write files: this run had fewer operations than the listed one
                self.assertEqual(killed.returncode, 0, killed.stderr)
                self.hit["(fewer operations)"] += 1
            else:
                self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
                self.hit[Point(fatal[0], what_class, out).phase] += 1
            with self.subTest(kill=fatal):
                self.assertEqual(again.returncode, 0, again.stderr)
                self.check_after_kill(out, before, events_in(os.path.join(out, "events.jsonl"))[len(before):], expected)
            subprocess.run(["rm", "-rf", out], check=True)

    def test_one_rank(self):
        spec = self.spec()
        expected = self.undisturbed(spec)
        self.sweep("io", spec, expected)
        self.sweep("compute", spec, expected)
        self.report("one rank")
        self.assertEqual(EXPECTED - set(self.hit), set(), "phases without a kill")

    def test_a_restart_is_killed_too(self):
        """A run that resumes loads a checkpoint, removes what the first kill left, and writes the later ones anew."""
        spec = self.spec()
        expected = self.undisturbed(spec)
        first, log = self.path("first"), self.path("first.log")
        listed = self.points(spec, "io")
        at = [p.number for p in listed if p.phase == "manifest"][-1]  # while the last checkpoint is being written
        self.one(spec, first, **self.preload("io", first, at, log))
        self.assertEqual(self.whole_checkpoints(first), [SAVE])
        self.points = lambda spec, what_class: self.points_of_restart(spec, what_class, first)
        copy = lambda out: subprocess.run(["cp", "-a", first, out], check=True)
        self.sweep("io", spec, expected, copy)
        self.sweep("compute", spec, expected, copy)
        self.report("a restart")
        self.assertEqual({"load", "event", "removal", "manifest", "optimizer"} - set(self.hit), set(), "phases without a kill")

    def points_of_restart(self, spec, what_class, first):
        out, log = self.path("relisted-" + what_class), self.path("re" + what_class + ".log")
        subprocess.run(["cp", "-a", first, out], check=True)
        self.assertEqual(self.one(spec, out, **self.preload(what_class, out, 0, log)).returncode, 0)
        return [Point(line, what_class, out) for line in self.lines(log)]

    # ---- two ranks

    def two(self, spec, out, environments):
        """Exit codes, and rank 0's events. Ranks that have met end by themselves when one dies; of those that have not, the other one would
        wait two minutes for it, and the agent ends it, as it does with all of a gang that a rank has left."""
        gang = Gang(spec, out, 2, ("--peer-silence-s", "5"), environments=environments)
        while any(p.poll() is None for p in gang.ranks):
            time.sleep(0.02)
            for rank in (0, 1):
                if gang.ranks[rank].poll() == -signal.SIGKILL and gang.ranks[1 - rank].poll() is None:
                    try:
                        gang.ranks[1 - rank].wait(PATIENCE_S)
                    except subprocess.TimeoutExpired:
                        met = [e for e in gang.events[1 - rank] if e["event"] == "phase" and e["phase"] not in ("rendezvous", "pack")]
                        self.assertEqual(met, [], "the other rank waits for a dead one")
                        gang.ranks[1 - rank].kill()
        return gang.wait(), gang.events[0]

    def test_two_ranks(self):
        spec = self.spec()
        out = self.path("straight")
        codes, events = self.two(spec, out, [{}, {}])
        self.assertEqual(codes, [0, 0])
        expected = {"losses": losses(events), "weights": self.weights(out)}
        for victim in (0, 1):
            for what_class in ("net", "compute", *(["io"] if victim == 0 else [])):
                self.sweep_gang(victim, what_class, spec, expected)
        self.report("two ranks")
        self.assertEqual({"message", "load", "forward", "backward", "reduce", "clip", "optimizer", "manifest", "rename"} - {p.split(" of ")[0] for p in self.hit},
                         set(), "phases without a kill")

    def sweep_gang(self, victim, what_class, spec, expected):
        def environments(out, at, log):
            return [self.preload(what_class, out, at, log) if rank == victim else {} for rank in (0, 1)]

        out, log = self.path(f"listed-{victim}-{what_class}"), self.path(f"{victim}{what_class}.log")
        codes, _ = self.two(spec, out, environments(out, 0, log))
        self.assertEqual(codes, [0, 0])

        def attempt(point):
            out, log = self.path(f"{victim}-{what_class}-{point.number}"), self.path(f"{victim}-{what_class}-{point.number}.log")
            codes, before = self.two(spec, out, environments(out, point.number, log))
            self.whole_checkpoints(out)
            return out, self.lines(log), codes, before, *self.two(spec, out, [{}, {}])

        points = chosen([Point(line, what_class, out) for line in self.lines(log)], what_class)
        for out, fatal, codes, before, codes_after, resumed in each(attempt, points, 3 * CORES):
            if fatal:
                self.assertEqual(codes[victim], -signal.SIGKILL)
                # The other one ends as an infrastructure failure, unless its work was done, or it was waiting for the first word.
                self.assertIn(codes[1 - victim], (30, 0, -signal.SIGKILL))
                self.hit[f"{Point(fatal[0], what_class, out).phase} of rank {victim}"] += 1
            else:
                self.assertEqual(codes, [0, 0])
                self.hit["(fewer operations)"] += 1
            with self.subTest(rank=victim, kill=fatal):
                self.assertEqual(codes_after, [0, 0])
                self.check_after_kill(out, before, resumed, expected)
            subprocess.run(["rm", "-rf", out], check=True)


if __name__ == "__main__":
    for name in ("--kill-at", "--report"):
        if name in sys.argv:
            at = sys.argv.index(name)
            value = os.path.abspath(sys.argv[at + 1])
            del sys.argv[at:at + 2]
            KILL_AT, REPORT = (value, REPORT) if name == "--kill-at" else (KILL_AT, value)
    if "--whole" in sys.argv:
        sys.argv.remove("--whole")
        WHOLE = True
    harness.main()
