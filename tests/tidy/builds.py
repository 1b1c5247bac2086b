"""Checks that run a tool: formatting, headers that compile alone, tests that ctest knows."""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

from tree import finding

HEAVY = re.compile(r'#include\s*[<"](torch|ATen|c10|caffe2)/')


def check_format(tree, fix=False):
    """clang-format would change nothing. With `fix` it changes the files."""
    tool = shutil.which("clang-format")
    if tool is None:
        yield finding(".clang-format", 1, "clang-format is not installed (deploy/bootstrap.sh --tests)")
        return
    names = tree.sources()
    if fix:
        subprocess.run([tool, "-i", *names], cwd=tree.root, check=True)
        return

    def differs(name):
        run = subprocess.run([tool, "--dry-run", "--Werror", "--ferror-limit=1", name], cwd=tree.root, capture_output=True)
        return run.returncode != 0

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, bad in zip(names, pool.map(differs, names)):
            if bad:
                yield finding(name, 1, "differs from clang-format (python3 tests/tidy/tidy.py format --fix)")


def is_heavy(tree, name, seen):
    """Whether a header reaches LibTorch's: those cost a quarter of a minute each and their users compile them anyway."""
    if name in seen or not (tree.root / name).is_file():
        return False
    seen.add(name)
    text = tree.text(name)
    if HEAVY.search(text):
        return True
    return any(is_heavy(tree, other, seen) for other in re.findall(r'#include\s*"([^"]+)"', text))


def sources_of(entry):
    """The file that a command compiles, or the files where it is one that CMake made to compile several at a time."""
    file = pathlib.Path(entry["file"])
    if "/Unity/unity_" in str(file) and file.is_file():
        return [pathlib.Path(name) for name in re.findall(r'#include "([^"]+)"', file.read_text())]
    return [file]


def flags_by_folder(build):
    """Include and define flags of a folder's sources, all of them together, from compile_commands.json."""
    flags = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        for folder in {str(file.parent) for file in sources_of(entry)}:
            kept = flags.setdefault(folder, {})
            for index, word in enumerate(words):
                if word.startswith(("-I", "-D", "-std")):
                    kept[(word,)] = None
                elif word == "-isystem":
                    kept[(word, words[index + 1])] = None
    return {folder: [word for option in kept for word in option] for folder, kept in flags.items()}


def proven_headers(tree, build):
    """Headers that a source of this build includes before anything else: the build has compiled them alone. A source with a
    precompiled header proves nothing."""
    proven = set()
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if "cmake_pch" in entry["command"]:
            continue
        try:
            name = str(pathlib.Path(entry["file"]).relative_to(tree.root))
        except ValueError:
            continue  # generated
        first = re.search(r'^\s*#\s*include\s*([<"])([^">]+)', tree.text(name), re.M) if name in tree.names else None
        if first and first.group(1) == '"':
            proven.add(first.group(2))
    return proven


def check_headers(tree, build):
    """Every header compiles alone."""
    build = pathlib.Path(build)
    if not (build / "compile_commands.json").is_file():
        yield finding("CMakeLists.txt", 1, f"no compile_commands.json in {build}")
        return
    flags, proven = flags_by_folder(build), proven_headers(tree, build)
    jobs = []
    for name in tree.sources():
        if not name.endswith(".h") or name in proven or is_heavy(tree, name, set()):
            continue
        folder = str((tree.root / name).parent)
        if folder in flags:  # the other folders are not part of this build
            jobs.append((name, flags[folder]))

    def compile_alone(job):
        name, words = job
        source = f'#include "{name}"\n'
        return subprocess.run(["c++", "-fsyntax-only", "-x", "c++", *words, "-"], input=source, text=True,
                              cwd=tree.root, capture_output=True)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (name, _), run in zip(jobs, pool.map(compile_alone, jobs)):
            if run.returncode != 0:
                first = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr[:200])
                yield finding(name, 1, f"does not compile alone: {first}")
    if not jobs and not proven:
        yield finding("CMakeLists.txt", 1, f"found no header of this build in {build}")


def names_test(cmake, relative):
    """Whether a CMakeLists.txt names a test file, whole or as `${x}_test` in a loop over what comes before."""
    file = relative.rpartition("/")[2]
    stem = re.sub(r"_(test|fuzz)\.\w+$", "", file)
    looped = re.search(r"\}_(test|fuzz)\b", cmake) and re.search(rf"foreach\([^)]*\b{re.escape(stem)}\b[^)]*\)", cmake)
    return file in cmake or bool(looped)


def check_registered(tree):
    """Every test file is named in a CMakeLists.txt of its folder or above, so that ctest runs it."""
    cmake = {name.rpartition("/")[0]: tree.text(name) for name in tree.names if name.endswith("CMakeLists.txt")}
    for name in tree.names:
        if not re.search(r"_(test|fuzz)\.(cc|cu|py|sh)$", name):
            continue
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            if names_test(cmake.get(folder, ""), name):
                break
        else:
            yield finding(name, 1, "no CMakeLists.txt names this test")
