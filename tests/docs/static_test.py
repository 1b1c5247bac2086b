#!/usr/bin/env python3
"""Every block of commands in README.md, docs/ and deploy/ is run by a test or says why not, and names only what exists.

  static_test.py BUILD_DIR   (a configured build, whose tests ctest lists)
"""
import json
import pathlib
import re
import subprocess
import sys
import unittest

import blocks
import programs

BUILD = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build").resolve()
ROOT = blocks.ROOT


def registered():
    """{test's name: its command line} as ctest knows them."""
    shown = subprocess.run(["ctest", "--show-only=json-v1"], cwd=BUILD, capture_output=True, text=True, timeout=60, check=True)
    return {test["name"]: " ".join(test.get("command", [])) for test in json.loads(shown.stdout)["tests"]}


def program_words(text):
    """The first words of commands: what a test that runs them must name as well."""
    for line in text.splitlines():
        words = [word for word in line.split("#")[0].split() if "=" not in word]
        if words and re.fullmatch(r"[\w./-]+", words[0]) and words[0] not in ("export", "printf"):
            yield words[0].rpartition("/")[2]


class StaticTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.pages = {page: (ROOT / page).read_text() for page in blocks.pages()}
        cls.blocks, cls.findings = {}, []
        for page, text in cls.pages.items():
            cls.blocks[page], findings = blocks.parse(page, text)
            cls.findings += findings
        cls.sections = programs.help_sections((ROOT / "docs/reference/cli.md").read_text())

    def all(self, kind):
        return [block for page in self.blocks.values() for block in page if block.kind == kind]

    def none(self, findings):
        self.assertFalse(findings, "\n" + "\n".join(findings))

    def test_every_block_says_how_it_is_run(self):
        self.none(self.findings + [finding for page in self.blocks.values() for finding in blocks.check(page)])
        # The check itself sees something.
        self.assertGreater(len(self.all("run")), 5)

    def test_tests_that_run_blocks_are_there_and_registered(self):
        tests, findings = registered(), []
        for block in self.all("run by"):
            for name in block.value.split(", "):
                file = ROOT / name
                if not file.is_file():
                    findings.append(f"{block}: run by {name}: no such file")
                    continue
                if not any(name in command for command in tests.values()) and file.suffix == ".py":
                    findings.append(f"{block}: run by {name}: ctest does not run it")
            folders = {(ROOT / name).parent for name in block.value.split(", ")}
            said = "".join(path.read_text(errors="replace") for folder in folders for path in folder.glob("*.*") if path.is_file())
            findings += [f"{block}: run by {block.value}, which never says {word}"
                         for word in program_words(block.text) if word not in said]
        self.none(findings)

    def test_commands_and_flags_exist(self):
        findings = []
        for page, text in self.pages.items():
            if page.startswith("docs/reference/"):
                continue
            lines = [(block.line + 1 + i, line) for block in self.blocks[page] if block.language in blocks.COMMANDS
                     and block.kind != "output" for i, line in enumerate(block.text.splitlines())]
            for number, line in [*lines, *programs.spans(text)]:
                for call in programs.commands(line):
                    if wrong := programs.wrong(call, self.sections):
                        findings.append(f"{page}:{number}: {wrong}: {line.strip()}")
        self.none(findings)

    def test_files_that_commands_name_exist(self):
        findings = []
        for page in self.blocks.values():
            for block in page:
                if block.language in blocks.COMMANDS and block.kind != "output":
                    findings += [f"{block}: {path}: no such file" for path in
                                 re.findall(r"(?<![\w./-])((?:tests|deploy|docs)/[\w./-]+\.\w+)", block.text)
                                 if not (ROOT / path).exists()]
        self.none(findings)

    def test_tests_that_pages_name_exist(self):
        """`Suite.Test`, `Suite.*`, and `.Test` behind one of them: of GoogleTest, or a class of a Python test."""
        files = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "*.cc", "*.py"], cwd=ROOT, capture_output=True, text=True, timeout=60,
                               check=True).stdout.split()
        tests, classes = set(), set()
        for name in files:
            text = (ROOT / name).read_text(errors="replace")
            if name.endswith(".cc"):
                tests |= {f"{suite}.{test}" for suite, test in re.findall(r"\bTEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", text)}
                tests |= {f"{suite}.{test}" for suite, test in re.findall(r"\bTYPED_TEST(?:_P)?\(\s*(\w+),\s*(\w+)\)", text)}
            elif name.startswith("tests/"):
                classes |= set(re.findall(r"^class (\w+)", text, re.M))
        suites = {test.split(".")[0] for test in tests}
        self.assertGreater(len(tests), 1000)
        findings, seen = [], 0
        for page, text in self.pages.items():
            for number, line in enumerate(text.splitlines(), 1):
                suite = None
                for before, test in re.findall(r"`(\w*)\.(\*|[A-Z]\w+)`", line):
                    if before:
                        known = before in suites or before in classes or before.endswith("Test")
                        suite = before if known else None
                    if suite is None:
                        continue
                    seen += 1
                    if not ((test == "*" and (suite in suites or suite in classes)) or f"{suite}.{test}" in tests):
                        findings.append(f"{page}:{number}: there is no test {suite}.{test}")
                findings += [f"{page}:{number}: there is no test {name}" for name in re.findall(r"`(\w+Test)` of `tests/", line) if name not in classes]
        self.assertGreater(seen, 50)
        self.none(findings)

    def test_messages_of_the_troubleshooting_page_exist(self):
        names = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "*.cc", "*.h"], cwd=ROOT, capture_output=True, text=True, timeout=60,
                               check=True).stdout.split()
        source = "".join((ROOT / name).read_text(errors="replace") for name in names if "_test." not in name and not name.startswith("tests/"))
        source = re.sub(r'"\s*\n\s*"', "", source)  # literals that go on in the next line
        headings = re.findall(r"^### `(.*)`$", self.pages["docs/troubleshooting.md"], flags=re.M)
        self.assertGreater(len(headings), 20)
        self.none([f"docs/troubleshooting.md: no program says {piece.strip()!r}" for heading in headings for piece in heading.split("…")
                   if len(piece.strip()) > 2 and piece.strip() not in source])

    def test_the_checks_find_what_they_are_for(self):
        """Each on a page that is wrong in one way."""
        def findings(text):
            parsed, found = blocks.parse("page.md", text)
            return " ".join([*found, *blocks.check(parsed)])

        fence = "```\nllctl list\n```\n"
        self.assertIn("without a marker", findings(fence))
        self.assertEqual(findings("<!-- run: shell -->\n" + fence), "")
        self.assertIn("expected one of", findings("<!-- run: moon -->\n" + fence))
        self.assertIn("without a reason", findings("<!-- not run: no -->\n" + fence))
        self.assertIn("not a marker", findings("<!-- runs: shell -->\n" + fence))
        self.assertIn("without a block", findings("<!-- run: shell -->\n\n" + fence))
        self.assertIn("has no end", findings("<!-- run: shell -->\n```\nllctl list\n"))
        self.assertIn("text is not there", findings("<!-- run: shell; A => B -->\n" + fence))
        self.assertIn("that is not run", findings("<!-- output -->\n" + fence))
        self.assertEqual(list(blocks.differences("a …\nb 2", "a 1\nx\nb  3", True)), [])
        self.assertEqual(list(blocks.differences("a …\nb 2", "a 1\nx\nb  3", False)), ["b 2"])

        for line, wrong in [("llctl submitt --model 7b", "no command submitt"), ("llctl submit --modell 7b", "no flag --modell"),
                            ("llctl data pak x", "no command pak"), ("build/bin/ll-worker --gpu all", "no flag --gpu"),
                            ("llctl submit --model 7b | grep --color x", ""), ("llctl -o json get JOB", ""),
                            ("llctl submit --ctx 8 -o json", ""), ("echo --x && llctl list --nope", "no flag --nope"),
                            ("study.py --trainer build/bin/ll-trainer --text X", ""), ("llctl plan --ctx 8 --nope", "no flag --nope")]:
            said = " ".join(programs.wrong(call, self.sections) for call in programs.commands(line))
            (self.assertIn if wrong else self.assertEqual)(wrong, said, line)


if __name__ == "__main__":
    unittest.main(verbosity=2)
