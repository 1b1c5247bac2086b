"""The fenced blocks of the documents and what their markers say.

A block of commands (no language, or `sh`) or of a program (`python`) has one comment line before its fence:

  <!-- run: shell -->             executed by commands_test.py; also `coordinator` (one is running, without workers) and
                                  `cluster` (one with a worker, a model and a trained job)
  <!-- run: cluster; A => B -->   the same, with A replaced by B in the text first: names of the reader's own, sizes
  <!-- run by: tests/a_test.py -->     that test, which ctest runs, runs these commands
  <!-- not run: WHY -->
  <!-- output -->                 what the block before prints; … stands for anything. `<!-- output: numbers vary -->`

`text`, `yaml` and `json` are shown, not run. `<!-- file: NAME -->` before one of them puts it into the sandbox for the
commands behind it.
"""
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHOWN = ("text", "yaml", "json", "proto")
COMMANDS = ("", "sh", "python")
PLACES = ("shell", "coordinator", "cluster")
KINDS = ("run", "run by", "not run", "output", "file")
MARKER = re.compile(r"^\s*<!-- (run by|not run|run|output|file)(?:: (.*?))? -->$")


@dataclasses.dataclass
class Block:
    page: str
    line: int  # of the opening fence
    language: str
    text: str
    kind: str = ""  # of the marker; empty: none
    value: str = ""

    def place(self):
        return self.value.split(";")[0].strip()

    def replaced(self):
        """The text with the marker's replacements."""
        text = self.text
        for rule in self.value.split(";")[1:]:
            old, _, new = (part.strip() for part in rule.partition("=>"))
            text = text.replace(old, new)
        return text

    def __str__(self):
        return f"{self.page}:{self.line}"


def pages(root=ROOT):
    """README.md, all of docs/, and the pages of deploy/."""
    found = [root / "README.md", *root.glob("docs/**/*.md"), *root.glob("deploy/**/*.md")]
    return sorted(str(page.relative_to(root)) for page in found)


def parse(page, text):
    """(blocks, findings) of a page. Findings: what is no block and no marker as described above."""
    blocks, findings, opened, marker = [], [], None, None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            if opened:
                indent = opened["indent"]
                body = "\n".join(kept[indent:] if not kept[:indent].strip() else kept for kept in opened["lines"])
                blocks.append(Block(page, opened["line"], opened["language"], body, *opened["marker"]))
                opened = None
            else:
                opened = {"indent": line.index("```"), "line": number, "language": line.strip().lstrip("`"), "lines": [],
                          "marker": marker or ("", "")}
                marker = None
        elif opened:
            opened["lines"].append(line)
        else:
            if marker:
                findings.append(f"{page}:{number - 1}: a marker without a block behind it")
            match = MARKER.match(line)
            marker = (match[1], match[2] or "") if match else None
            if not match and "<!--" in line and re.search(r"<!-- *(run|not run|output|file)s?\b", line):
                findings.append(f"{page}:{number}: not a marker: {line.strip()}")
    if opened:
        findings.append(f"{page}:{opened['line']}: the block has no end")
    return blocks, findings


def check(blocks):
    """What is wrong with the markers of one page's blocks."""
    before = None
    for block in blocks:
        if block.language not in SHOWN + COMMANDS:
            yield f"{block}: language {block.language!r}; known are {', '.join(filter(None, SHOWN + COMMANDS))}"
        elif block.language in COMMANDS and block.kind not in ("run", "run by", "not run", "output"):
            yield (f"{block}: commands without a marker: run them (<!-- run: shell -->), name the test that does "
                   "(<!-- run by: tests/… -->), or say why not (<!-- not run: … -->); text gets ```text")
        elif block.language in SHOWN and block.kind not in ("", "file", "output"):
            yield f"{block}: {block.language} is not run, so that '{block.kind}' means nothing here"
        if block.kind == "run" and block.place() not in PLACES:
            yield f"{block}: run: expected one of {', '.join(PLACES)}, found {block.place()!r}"
        if block.kind == "run" and any(rule.partition("=>")[0].strip() not in block.text for rule in block.value.split(";")[1:]):
            yield f"{block}: a replacement whose text is not there: {block.value}"
        if block.kind == "not run" and len(block.value) < 10:
            yield f"{block}: not run, without a reason"
        if block.kind == "output" and (before is None or before.kind != "run"):
            yield f"{block}: output of a block that is not run"
        before = block


def differences(expected, printed, numbers_vary):
    """Lines of `expected` that do not follow each other in `printed`. … stands for anything, spaces for any spaces."""
    lines, at = printed.splitlines(), 0
    for line in expected.splitlines():
        if not line.strip(" …"):
            continue
        pattern = r"\s+".join(re.escape(word) for word in line.split()).replace("…", ".*")
        if numbers_vary:
            pattern = re.sub(r"\d+(?:(?:\\\.|,)\d+)*", r"[\\d.,]+", pattern)
        found = next((i for i in range(at, len(lines)) if re.fullmatch(r"\s*" + pattern + r"\s*", lines[i])), None)
        if found is None:
            yield line
        else:
            at = found + 1
