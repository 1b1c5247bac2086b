#!/usr/bin/env python3
"""docs/reference/ from the programs and sources: cli.md, spec.md, metrics.md, proto.md.

  generate.py BUILD_DIR [--check]   writes the pages; --check only says which are stale (exit status 1)
"""
import argparse
import difflib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs/reference"
MADE = "Made by `tests/docs/generate.py`; do not edit.\n"
# Commands whose help repeats the keys of a job.
SPEC_FLAGS = ("llctl plan", "llctl schedule create")


def help_of(program, *words):
    run = subprocess.run([program, *words, "--help"], capture_output=True, text=True, timeout=60, check=True,
                         env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
    return run.stdout.replace(str(program), program.name).strip("\n")


def subcommands(text):
    """Names in the list of subcommands of a help text."""
    listed = re.search(r"^(?:Subcommands|SUBCOMMANDS):\n((?:  .*\n?)+)", text, flags=re.M)
    return re.findall(r"^  ([a-z][a-z-]*)", listed[1], flags=re.M) if listed else []


def command_sections(program, words, depth):
    name = " ".join([program.name, *words])
    text = help_of(program, *words)
    if name in SPEC_FLAGS:
        text = re.sub(r"\n\nWhat:\n.*?(?=\n\n\n?Example|\Z)", "\n\nA job's keys: as for `llctl submit`.", text, flags=re.S)
    yield f"{'#' * depth} `{name}`\n```text\n{text}\n```\n"
    for word in subcommands(text):
        yield from command_sections(program, [*words, word], min(depth + 1, 4))


def cli(build):
    parts = [f"# Commands and flags\n{MADE}\nEvery program's `--help`, as it prints it. `llctl plan` and `llctl schedule create` take the flags of a job's keys, "
             "as `llctl submit` does; the keys are in [spec.md](spec.md).\n"]
    for name in ("llctl", "ll-coordinator", "ll-worker", "ll-trainer", "ll-data", "ll-scaler"):
        parts += command_sections(build / "bin" / name, [], 2)
    return "\n".join(parts)


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def spec(build):
    run = subprocess.run([build / "tests/spec_table"], capture_output=True, text=True, timeout=60, check=True)
    rows = [f"# Keys of a job\n{MADE}\nOne name in YAML (`llctl submit -f job.yaml`), on the command line (`--context-length`, or `--set context_length=…`) and in "
            "`proto/job.proto`. What methods preset: [methods.md](../methods.md).\n",
            "| key | takes | default | meaning |", "|---|---|---|---|"]
    for field in json.loads(run.stdout):
        also = "".join(f", `{alias}`" for alias in field["aliases"])
        rows.append(f"| `{field['name']}`{also} | {cell(field['takes'])} | {cell(field['default'])} | {cell(field['help'])} |")
    return "\n".join(rows) + "\n"


def literals(text):
    """The value of adjacent C++ string literals."""
    return "".join(json.loads(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"', text))


def metrics(_build):
    """Names and HELP texts where the sources register them."""
    strings = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
    pattern = re.compile(r'"(ll_[a-z0-9_]+)"\s*(?:\)\s*\.Help\(|,)\s*' + strings)
    found, named = {}, set()
    for folder, program in (("coordinator", "ll-coordinator"), ("worker/agent", "ll-worker"), ("scaler", "ll-scaler"), ("rpc", "ll-coordinator")):
        for file in sorted((ROOT / folder).rglob("*.cc")):
            if file.name.endswith("_test.cc") or file.name.endswith("_bench.cc"):
                continue
            source = file.read_text()
            named |= set(re.findall(r'"(ll_[a-z0-9_]+)"', source))
            for name, text in pattern.findall(source):
                whole = literals(text)
                if not re.fullmatch(r"ll_[a-z0-9_]+", whole):
                    found[name] = (whole, program)
    if named - set(found):
        sys.exit(f"no HELP text found for {sorted(named - set(found))}: correct the pattern in generate.py")
    rows = [f"# Metrics\n{MADE}\nNames and HELP texts of `/metrics`, which the daemons serve at `--http`. Alerts on them: [runbooks.md](../runbooks.md), "
            "[deploy/prometheus](../../deploy/prometheus/README.md).\n", "| metric | of | is |", "|---|---|---|"]
    rows += [f"| `{name}` | {program} | {cell(text)} |" for name, (text, program) in sorted(found.items())]
    return "\n".join(rows) + "\n"


def proto(_build):
    """The sources themselves, comments included: they are the reference."""
    parts = [f"# Protocol\n{MADE}\nThe gRPC services and messages with their comments. `Jobs` and `Admin` are for users' programs (`grpcurl` finds them by "
             "reflection), `Workers` for agents. Fields are only added; numbers are never used again.\n"]
    for name in ("jobs", "job", "schedules", "admin", "errors", "auth", "workers"):
        text = (ROOT / "proto" / f"{name}.proto").read_text()
        head = re.match(r"((?://.*\n)*)", text)[1]
        body = re.sub(r"^(syntax|package|import|option) .*\n", "", text[len(head):], flags=re.M).strip("\n")
        intro = "\n".join(line.removeprefix("//").removeprefix(" ") for line in head.splitlines())
        parts.append(f"## {name}.proto\n{intro}\n```proto\n{body}\n```\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    stale = False
    for name, make in (("cli", cli), ("spec", spec), ("metrics", metrics), ("proto", proto)):
        page, text = PAGES / f"{name}.md", make(args.build.resolve())
        old = page.read_text() if page.exists() else ""
        if old == text:
            continue
        if args.check:
            stale = True
            print(f"docs/reference/{name}.md is stale: run tests/docs/generate.py {args.build}")
            sys.stdout.writelines(list(difflib.unified_diff(old.splitlines(True), text.splitlines(True), "there", "made", n=0))[:40])
        else:
            PAGES.mkdir(exist_ok=True)
            page.write_text(text)
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
