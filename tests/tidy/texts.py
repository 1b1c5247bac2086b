"""Checks on what is written: leftovers, links, licence, lengths."""
import re

from tree import finding

# Put together here so that this file does not find itself.
LEFTOVERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "WI" + "P"]) + r")\b"
                       + "|<<<" + "<<<<|>>>" + ">>>>")
# Paths of somebody's machine have no place in a repository.
MACHINE_PATHS = re.compile(r"(?<![\w$}.])/" + r"(root|work|home/\w+)/[\w.]")
SKIPPED = ("/golden/", ".lock", ".json", ".jsonl", ".safetensors", "/testdata/")
LONGEST_LINE = 100
LONGEST_FILE = 500
LONGEST_FUNCTION = 70


def check_leftovers(tree):
    """No marks of unfinished work, merge conflicts or private paths."""
    for name in tree.texts():
        if any(part in name for part in SKIPPED):
            continue
        for number, line in tree.lines(name):
            if LEFTOVERS.search(line):
                yield finding(name, number, "mark of unfinished work")
            if MACHINE_PATHS.search(line):
                yield finding(name, number, "path of one machine")


def check_links(tree):
    """Relative links of Markdown files lead somewhere, headings included."""
    link = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
    for name in tree.names:
        if not name.endswith(".md"):
            continue
        fenced = False
        for number, line in tree.lines(name):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            if fenced:
                continue
            for target in link.findall(line):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                file = (tree.root / name).parent / path if path else tree.root / name
                if not file.exists():
                    yield finding(name, number, f"link to {target}: no such file")
                elif anchor and file.suffix == ".md" and anchor not in headings(file):
                    yield finding(name, number, f"link to {target}: no such heading")


def headings(file):
    """Anchors of a Markdown file as code hosts make them."""
    found = set()
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            title = line.lstrip("#").strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found


def check_licence(tree):
    """The licence is there and is Apache-2.0."""
    if "LICENSE" not in tree.names:
        yield finding("LICENSE", 1, "missing")
    elif "Apache License" not in tree.text("LICENSE") or "Version 2.0" not in tree.text("LICENSE"):
        yield finding("LICENSE", 1, "not the text of Apache-2.0")


def check_headers_once(tree):
    """Every header is guarded against a second inclusion."""
    for name in tree.sources():
        if name.endswith((".h", ".cuh")) and "#pragma once" not in tree.text(name):
            yield finding(name, 1, "no #pragma once")


def functions(text):
    """(first line, length in lines) of function bodies, by the indentation that clang-format gives."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if not re.match(r"^(  )?[^\s#/}].*\)( const| override| noexcept)* \{$|^(  )?\s*.*\)( const| override)* \{$", line):
            continue
        indent = len(line) - len(line.lstrip())
        if indent > 2 or re.match(r"\s*(if|for|while|switch|namespace|class|struct|else|do)\b", line):
            continue
        for end in range(index + 1, len(lines)):
            if lines[end].startswith(" " * indent + "}") and len(lines[end]) - len(lines[end].lstrip()) == indent:
                yield index + 1, end - index + 1
                break


def report_lengths(tree):
    """What is longer than it aims to be. A report: long is sometimes right."""
    for name in tree.sources():
        text = tree.text(name)
        count = text.count("\n")
        if count > LONGEST_FILE:
            yield finding(name, 1, f"{count} lines")
        for line, length in functions(text):
            if length > LONGEST_FUNCTION:
                yield finding(name, line, f"function of {length} lines")
        for number, line in tree.lines(name):
            if len(line) > LONGEST_LINE:
                yield finding(name, number, f"line of {len(line)} characters")
