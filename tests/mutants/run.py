#!/usr/bin/env python3
"""Builds the simulator with one mistake at a time in what it runs (the core, the driver's loop, the store, the agent), and tells which seed
noticed it.

  tests/mutants/run.py [--build build] [--seeds 1000] [--table docs/results/mutants.md] [NAME …]

Needs a build with sim_test. A mutant costs the compilation of one unit (its file, and those of its library that are compiled together with it), a link, and the seeds in order up to the first that notices it: mostly fewer than ten. One that
makes parties answer each other without end is noticed by the simulator's bound of actions a run, one within a step by a limit of the time that it computes.
What the simulator does not notice is given to the unit tests and the scenarios, as far as they are built. Exit code 1 where a mistake
passes them all, or where a mutant's text is no longer in its file. The tree is left alone: a mutant is compiled from a copy and linked in
front of the library. With --table, what is known there is kept: mistakes that it lists are not made again but by name.
"""
import argparse
import datetime
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile

from mutants import CORE, MUTANTS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def unit_of(build, source):
    """How a source is compiled: the unit (itself, or a file that includes it and others of its library) and the command."""
    path = os.path.join(ROOT, source)
    with open(os.path.join(build, "compile_commands.json")) as f:
        entries = json.load(f)
    for entry in entries:
        if entry["file"] == path:
            return entry["file"], entry["command"]
    for entry in entries:
        if "/Unity/" in entry["file"]:
            with open(entry["file"]) as f:
                if f'"{path}"' in f.read():
                    return entry["file"], entry["command"]
    sys.exit(f"{source} is not built in {build}")


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
    unit, command = unit_of(build, source)
    if unit != os.path.join(ROOT, source):
        with open(unit) as f:
            together = f.read().replace(os.path.join(ROOT, source), copy)
        copy = os.path.join(work, "unit.cc")
        with open(copy, "w") as f:
            f.write(together)
    command = re.sub(r" -o \S+", f" -o {made}", command).replace(f" -c {unit}", f" -c {copy}")
    command = re.sub(r" -MD -MT \S+ -MF \S+", "", command) + f" -w -I{ROOT}"
    done = subprocess.run(command, shell=True, cwd=build, capture_output=True, text=True)
    return done.stderr.strip()[:400] if done.returncode else None


def run_with_mutant(build, work, target, arguments, env, cpu_s, mutant="mutant.o"):
    """Whether the tests notice, and their output. They may use so much time of a core: by the clock a busy machine would be taken for a mistake."""
    program = os.path.join(work, os.path.basename(target) + ("" if mutant else "-control"))
    if not os.path.exists(program):
        command = link_command(build, target).replace(f"-o {target}", f"{os.path.join(work, mutant) if mutant else ''} -o {program}")
        if subprocess.run(command, shell=True, cwd=build, capture_output=True).returncode != 0:
            return False, "does not link: this program has no part in the file"
    try:
        done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=3600,
                              env={**os.environ, **env}, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5)))
    except subprocess.TimeoutExpired as e:
        return True, (e.stderr or b"").decode(errors="replace") + "\nit did not end"
    return done.returncode != 0, done.stdout + done.stderr + ("\nit did not end" if done.returncode == -signal.SIGXCPU else "")


def noticed_by(build, work, seeds):
    """(seed or "", what noticed); None: nothing does."""
    # One thread, so that the last seed begun is the one of an abort.
    failed, output = run_with_mutant(build, work, "tests/sim_test", ["--gtest_filter=*KeepsItsPromises*"],
                                     {"LL_SIM_SEEDS": str(seeds), "LL_SIM_STOP": "1", "LL_SIM_THREADS": "1"}, 120 + seeds)
    if failed:
        begun = re.findall(r"^seed (\d+)$", output, re.M)
        named = re.search(r"LL_SIM_SEED=(\d+)", output)
        whys = (re.search(what, output, re.M) for what in (r"broken invariant: .*", r"^  at [^\n]*", r"^\S+_test.cc:\d+: Failure[^\x00]{,200}", r"it did not end"))
        why = next((found for found in whys if found), None)
        text = " ".join(why[0].split()) if why else output.strip()[-110:]
        return named[1] if named else begun[-1] if begun else "", re.sub(r"^at \S+ ", "", text)[:150].replace("|", "/")
    for target, arguments in (("tests/core_test", []), ("tests/scenario_test", ["tests/scenarios"]), ("tests/sim_disk_test", []), ("tests/agent_parts_test", []),
                              ("tests/agent_test", [])):
        if os.path.exists(os.path.join(build, target)) and run_with_mutant(build, work, target, arguments, {}, 300)[0]:
            # Objects that are older than the library would fail by themselves.
            if run_with_mutant(build, work, target, arguments, {}, 300, mutant=None)[0]:
                sys.exit(f"{target} fails without a mistake: build it")
            return "", f"`{os.path.basename(target)}`, not the simulator within {seeds} seeds"
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
    rows = read_table(a.table) if a.table and os.path.exists(a.table) else {}
    faults = by_simulator = total = 0
    for name, file, old, new in MUTANTS:
        if (a.names and name not in a.names) or (not a.names and name in rows):
            continue
        total += 1
        with tempfile.TemporaryDirectory(prefix="ll-mutant-") as work:
            error = build_mutant(a.build, work, file, old, new)
            seed, by = ("", error) if error else noticed_by(a.build, work, a.seeds) or ("", None)
        faults += by is None or error is not None
        by_simulator += seed != ""
        print(f"{name}: {'seed ' + seed + ': ' if seed else ''}{by or 'NOT NOTICED'}", flush=True)
        rows[name] = (f"`{os.path.basename(file)}`", seed, by or f"**not noticed** within {a.seeds} seeds", datetime.date.today().isoformat())
        if a.table:
            write_table(a.table, rows, a.seeds)
    print(f"{total - faults} of {total} noticed, {by_simulator} of them by the simulator within {a.seeds} seeds")
    sys.exit(1 if faults else 0)


def read_table(path):
    with open(path) as f:
        cells = [[c.strip() for c in line.strip().strip("|").split(" | ")] for line in f if line.startswith("| ") and " `" in line]
    return {c[0]: tuple(c[1:]) for c in cells}


def write_table(path, rows, seeds):
    known = [name for name, *_ in MUTANTS if name in rows]
    by_simulator = sum(rows[name][1] != "" for name in known)
    unmade = len(MUTANTS) - len(known)
    unmade = f", {unmade} of the list in tests/mutants/mutants.py have not been made" if unmade else ""
    with open(path, "w") as f:
        f.write(f"""# One-line mistakes and what notices them

The simulator with one mistake at a time in what it runs: the core, the driver's loop, the store, the agent. Its seeds are run in order, up to {seeds}; the first
that fails is named, with what it said. {by_simulator} of {len(known)} are noticed by it{unmade}. Made by
[tests/mutants/run.py](../../tests/mutants/run.py):

<!-- not run: takes up to an hour -->
```
python3 tests/mutants/run.py --seeds {seeds} --table docs/results/mutants.md
```

| mistake | in | seed | what noticed it | on |
|---|---|---|---|---|
""")
        f.writelines(f"| {name} | {' | '.join(rows[name])} |\n" for name in known)


if __name__ == "__main__":
    main()
