"""deploy/slurm against a real Slurm on loopback: a 4-rank gang on two nodes of three, and what can happen to it.

slurm_test.py BIN_DIR. Needs root and Debian's slurmctld, slurmd, slurm-client and munge.
"""
import json
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
import service  # noqa: E402  takes BIN_DIR
from slurm import Slurm  # noqa: E402
from status import record  # noqa: E402

SCRIPT = ROOT / "deploy/slurm/ll-workers.sbatch"
KEEP = ROOT / "deploy/slurm/keep-workers.sh"
SAVE_STEPS = 20


class SlurmTest(service.ServiceCase):
    COORDINATOR = ("--lease-seconds", "4", "--heartbeat-seconds", "1", "--shared-job-store")
    WORKERS = ()  # Slurm starts them

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.make_data()
        cls.slurm = cls.enterClassContext(Slurm(3))
        cls.config = cls.slurm.dir / "worker.yaml"
        cls.config.write_text(f"""coordinator: {cls.environment["LLCTL_COORDINATOR"]}
http: 127.0.0.1:0
token-file: {cls.root / "coordinator/token"}
cpu-slots: 2
trainer-threads: 1
job-store: {cls.root / "jobs"}
root: [models={cls.root}]
shutdown-grace: 15
""")

    def submission(self):
        """Flags of sbatch, and the environment."""
        return f"--output={self.slurm.dir}/agent-%A_%a.log", {"LL_CONFIG": str(self.config), "LL_BIN": str(service.BIN),
                                                              "LL_WORK_ROOT": str(self.slurm.dir / "work"), "LL_LOCK": str(self.slurm.dir / "lock")}

    def sbatch(self, *arguments):
        output, environment = self.submission()
        return self.slurm.run("sbatch", "--parsable", output, *arguments, SCRIPT, env=environment).stdout.strip()

    def keep(self, count, check=True):
        output, environment = self.submission()
        return self.slurm.run("bash", KEEP, count, output, env=environment, check=check)

    def workers(self):
        return [w for w in json.loads(self.llctl("-o", "json", "workers", "list").stdout) if w.get("connected")]

    def wait(self, condition, what, seconds=150):
        self.slurm.wait_for(condition, what, seconds)

    def job_states(self):
        return sorted(self.slurm.states("squeue", "-h", "-r", "-o", "%T"))

    def wait_for_step(self, job, step):
        self.wait(lambda: self.step(job) >= step, f"step {step}")

    def brief(self, job):
        return json.loads(self.llctl("-o", "json", "get", job).stdout)

    def step(self, job):
        return self.brief(job).get("progress", {}).get("step", 0)

    def check_steps(self, job, graceful):
        """Attempts follow each other without a gap; those that were asked to end lost no step."""
        attempts = {}
        for step in self.get(job)["steps"]:
            attempts.setdefault(step["epoch"], []).append(step["step"])
        last = 0
        for epoch, steps in sorted(attempts.items()):
            self.assertEqual(steps, list(range(steps[0], steps[-1] + 1)), f"attempt {epoch}")
            if epoch in graceful:
                self.assertEqual(steps[0], last + 1, f"attempt {epoch} repeats or loses steps")
            self.assertTrue(last - SAVE_STEPS <= steps[0] - 1 <= last, f"attempt {epoch} starts at {steps[0]} after {last}")
            last = steps[-1]
        return {epoch: (steps[0], steps[-1]) for epoch, steps in attempts.items()}

    def test_life_on_slurm(self):
        array = self.sbatch("--array=1-2")
        self.wait(lambda: len(self.workers()) == 2, "two workers")
        self.llctl("models", "add", "talker", self.model)
        self.llctl("data", "add", "words", self.root / "text.bin", "--default")
        job = self.llctl("-o", "name", "submit", "--model", "talker", "--ctx", "512", "--gpus", "4", "--steps", "4000", "--set", f"save_steps={SAVE_STEPS}",
                         "--set", "max_retries=10").stdout.strip()
        self.wait_for_step(job, 5)
        self.first_epoch = self.brief(job)["epoch"]
        self.controller_killed(array, job)
        forgotten = self.submission_forgotten(array, job)
        self.time_limit(job)
        self.node_killed(job)
        self.cancelled(job)
        record("Slurm: deploy/slurm/ll-workers.sbatch", "run for real",
               "Slurm 22.05.8 on loopback, three nodes, a gang of 4 CPU ranks on two: slurmctld killed with -9 and started again (agents and job go "
               f"on), killed right after a submission ({forgotten}; keep-workers.sh makes the number right, and submits nothing twice), signal before the time "
               "limit (checkpoint, requeue, resume), node killed (requeued on the third node, resumed), scancel")

    def controller_killed(self, array, job):
        before = {worker["worker"] for worker in self.workers()}
        self.slurm.kill("slurmctld")
        step = self.step(job)
        self.wait_for_step(job, step + 5)
        self.slurm.start_controller()
        self.wait(lambda: self.job_states() == ["RUNNING", "RUNNING"], "both jobs, still running")
        self.assertEqual(sorted(self.slurm.states("squeue", "-h", "-r", "-o", "%F")), [array, array])
        self.assertEqual({worker["worker"] for worker in self.workers()}, before)
        self.wait_for_step(job, step + 10)
        self.assertEqual(self.brief(job)["epoch"], self.first_epoch, [change["reason"] for change in self.get(job)["history"]])

    def submission_forgotten(self, array, job):
        """Slurm writes its queue down now and then: what it accepted just before it was killed it may not know any more."""
        self.assertIn("2 of 2 are there", self.keep(2).stdout)
        self.keep(3)
        self.slurm.kill("slurmctld")
        self.assertEqual(self.keep(3, check=False).returncode, 1, "submits nothing while the controller does not answer")
        self.slurm.start_controller()
        self.wait(lambda: self.job_states()[:2] == ["RUNNING", "RUNNING"] or self.job_states().count("RUNNING") >= 2, "the two jobs of before")
        known = len(self.job_states())
        said = self.keep(3).stdout
        self.assertIn("3 of 3 are there" if known == 3 else "submitted 1", said)
        self.assertIn("3 of 3 are there", self.keep(3).stdout)
        self.wait(lambda: self.job_states() == ["RUNNING"] * 3, "three elements")
        self.wait(lambda: len(self.workers()) == 3, "three workers")
        self.assertEqual(self.brief(job)["epoch"], self.first_epoch, [change["reason"] for change in self.get(job)["history"]])
        for element in self.slurm.states("squeue", "-h", "-r", "-o", "%i"):
            if not element.startswith(f"{array}_"):
                self.slurm.run("scancel", "--batch", "--signal=TERM", element)
        self.wait(lambda: self.job_states() == ["RUNNING", "RUNNING"], "the third one's end")
        return "it remembered the element" if known == 3 else "it had forgotten the element"

    def newest(self, job):
        """(attempt, step) of the newest step that has been recorded."""
        step = self.get(job)["steps"][-1]
        return step["epoch"], step["step"]

    def time_limit(self, job):
        """Slurm's own signal ahead of the limit: the agents end after a checkpoint and come back."""
        attempt, _ = self.newest(job)
        self.set_time_limit("5")
        self.wait(lambda: self.newest(job)[0] > attempt, "steps of an attempt after the time limit", 400)
        # A later attempt's records replace what it repeats, so look now.
        print("attempts:", self.check_steps(job, {self.newest(job)[0]}))
        self.set_time_limit("UNLIMITED")
        self.assertEqual(self.job_states(), ["RUNNING", "RUNNING"])

    def set_time_limit(self, minutes):
        for element in self.slurm.states("squeue", "-h", "-r", "-o", "%i"):
            self.slurm.run("scontrol", "update", f"JobId={element}", f"TimeLimit={minutes}")

    def node_killed(self, job):
        attempt, _ = self.newest(job)
        node = self.slurm.states("squeue", "-h", "-r", "-o", "%N")[0]
        self.slurm.kill_node(node)
        self.wait(lambda: self.newest(job)[0] > attempt, "steps after the node's death", 400)
        self.assertNotIn(node, self.slurm.states("squeue", "-h", "-r", "-o", "%N"))

    def cancelled(self, job):
        self.llctl("cancel", job)
        self.wait(lambda: self.brief(job)["state"] == "CANCELLED", "the job's end")
        print("attempts:", self.check_steps(job, set()))
        self.slurm.run("scancel", "--user=root")
        self.wait(lambda: self.job_states() == [], "an empty queue")
        self.wait(lambda: self.workers() == [], "the agents' farewell")


if __name__ == "__main__":
    unittest.main(verbosity=2)
