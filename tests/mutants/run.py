#!/usr/bin/env python3
"""Builds the simulator with one mistake at a time in what it runs (the core, the driver's loop, the store, the agent), and tells which seed
noticed it.

  tests/mutants/run.py [--build build] [--seeds 1000] [--table docs/results/mutants.md] [NAME …]

What the simulator does not notice is given to the unit tests and the scenarios. Exit code 1 where a mistake passes them all, or
where a mutant's text is no longer in its file. The tree is left alone: a mutant is compiled from a copy and linked in front of the library.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

from mutants import CORE, MUTANTS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def compile_command(build, source):
    with open(os.path.join(build, "compile_commands.json")) as f:
        for entry in json.load(f):
            if entry["file"] == os.path.join(ROOT, source):
                return entry["command"]
    sys.exit(f"{source} is not built, or not alone, in {build} (configure it with -DLL_UNITY=OFF)")


def link_command(build, target):
    out = subprocess.run(["ninja", "-C", build, "-t", "commands", target], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if f"-o {target}" in line][-1]


def build_mutant(build, work, file, old, new):
    source = file if "/" in file else CORE + file
    with open(os.path.join(ROOT, source)) as f:
        text = f.read()
    if text.count(old) != 1:
        return f"its text is {text.count(old)} times in {source}"
    copy, made = os.path.join(work, os.path.basename(file)), os.path.join(work, "mutant.o")
    with open(copy, "w") as f:
        f.write(text.replace(old, new))
    command = re.sub(r" -o \S+", f" -o {made}", compile_command(build, source)).replace(os.path.join(ROOT, source), copy)
    command = re.sub(r" -MD -MT \S+ -MF \S+", "", command) + f" -w -I{ROOT}"
    done = subprocess.run(command, shell=True, cwd=build, capture_output=True, text=True)
    return done.stderr.strip()[:400] if done.returncode else None


def run_with_mutant(build, work, target, arguments, env, timeout):
    """Whether the tests notice, and their output."""
    program = os.path.join(work, os.path.basename(target))
    if not os.path.exists(program):
        command = link_command(build, target).replace(f"-o {target}", f"{work}/mutant.o -o {program}")
        if subprocess.run(command, shell=True, cwd=build, capture_output=True).returncode != 0:
            return False, "does not link: this program has no part in the file"
    try:
        done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=timeout,
                              env={**os.environ, **env})
    except subprocess.TimeoutExpired:
        return True, "it did not end"
    return done.returncode != 0, done.stdout + done.stderr


def noticed_by(build, work, seeds):
    failed, output = run_with_mutant(build, work, "tests/sim_test", ["--gtest_filter=*KeepsItsPromises*"],
                                     {"LL_SIM_SEEDS": str(seeds), "LL_SIM_STOP": "1"}, 1800)
    if failed:
        seed = re.search(r"LL_SIM_SEED=(\d+)", output)
        why = re.search(r"broken invariant: .*|^  at [^\n]*", output, re.M)
        return f"simulator, {'seed ' + seed[1] if seed else 'at once'}: {why[0].strip()[:110] if why else output[-110:]}"
    for target, arguments in (("tests/core_test", []), ("tests/scenario_test", ["tests/scenarios"]), ("tests/sim_disk_test", []), ("tests/agent_parts_test", []),
                              ("tests/agent_test", [])):
        if run_with_mutant(build, work, target, arguments, {}, 300)[0]:
            return os.path.basename(target)
    return None


def check_texts():
    """0 where every mistake can still be made."""
    gone = 0
    for name, file, old, _ in MUTANTS:
        source = file if "/" in file else CORE + file
        with open(os.path.join(ROOT, source)) as f:
            times = f.read().count(old)
        if times != 1:
            print(f"{name}: its text is {times} times in {source}")
            gone += 1
    return 1 if gone else 0


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=os.path.join(ROOT, "build"))
    ap.add_argument("--seeds", type=int, default=1000)
    ap.add_argument("--table", help="write what noticed each mistake there, as Markdown, after each")
    ap.add_argument("--check", action="store_true", help="only see that each mistake's text is in its file, once; takes no time")
    ap.add_argument("names", nargs="*")
    a = ap.parse_args()
    if a.check:
        sys.exit(check_texts())
    a.build = os.path.abspath(a.build)
    faults = by_simulator = total = 0
    rows = []
    for name, file, old, new in MUTANTS:
        if a.names and name not in a.names:
            continue
        total += 1
        with tempfile.TemporaryDirectory(prefix="ll-mutant-") as work:
            error = build_mutant(a.build, work, file, old, new)
            by = None if error else noticed_by(a.build, work, a.seeds)
        faults += by is None
        by_simulator += by is not None and by.startswith("simulator")
        print(f"{name}: {error or by or 'NOT NOTICED'}", flush=True)
        rows.append(f"| {name} | `{os.path.basename(file)}` | {error or by or '**not noticed**'} |\n")
        if a.table:
            with open(a.table, "w") as f:
                f.write(f"# One-line mistakes and what notices them\n\n`tests/mutants/run.py --seeds {a.seeds}`; "
                        f"{by_simulator} of {total} by the simulator.\n\n| mistake | in | noticed by |\n|---|---|---|\n")
                f.writelines(rows)
    print(f"{total - faults} of {total} noticed, {by_simulator} of them by the simulator within {a.seeds} seeds")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
