#!/usr/bin/env python3
"""Programs one release apart understand each other: what proto/released.txt lists is still in proto/, with its number and type.

  protocol_test.py [--update]   writes what the last commit has, at a release
"""
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASED = ROOT / "proto/released.txt"
HEAD = """# Fields, values and calls of the last release (0.1.0): none may go or change, for coordinators, agents and clients of two
# neighbouring releases run side by side (docs/upgrade.md). Written by tests/deploy/protocol_test.py --update, at a release.
# Commit: {commit}
"""
TOKENS = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:[^\"\\]|\\.)*\"|[\w.]+|[{}<>=;,()\[\]]", re.S)


def statements(text):
    """(enclosing names, words of a statement) of a proto file; a statement ends with ';' or opens a block."""
    scopes, words = [], []
    for token in TOKENS.findall(text):
        if token.startswith(("//", "/*")):
            continue
        if token == "{":
            if words[0] == "rpc":  # its options
                yield scopes, words
            scopes = [*scopes, words[1] if words[0] in ("message", "enum", "service") else ""]
            words = []
        elif token == "}":
            scopes, words = scopes[:-1], []
        elif token == ";":
            yield scopes, words
            words = []
        else:
            words.append(token)


def entries(text):
    """"MESSAGE.FIELD = NUMBER: TYPE" of every field, value of an enum and call of a file."""
    for scopes, words in statements(text):
        where = ".".join(filter(None, scopes))
        if not where or not words or words[0] in ("reserved", "option"):
            continue
        if words[0] == "rpc":
            yield f"{where}.{words[1]}: {' '.join(words[2:])}"
        elif "=" in words:
            at = words.index("=")
            yield f"{where}.{words[at - 1]} = {words[at + 1]}: {' '.join(words[:at - 1]) or 'value'}"


def present():
    return sorted(entry for file in (ROOT / "proto").glob("*.proto") for entry in entries(file.read_text()))


class ProtocolTest(unittest.TestCase):
    def test_what_was_released_still_holds(self):
        released = [line for line in RELEASED.read_text().splitlines() if line and not line.startswith("#")]
        self.assertGreater(len(released), 200)
        gone = sorted(set(released) - set(present()))
        self.assertFalse(gone, "a peer of the last release would not be understood; keep the field and add another:\n" + "\n".join(gone))

    def test_the_reader_sees_what_matters(self):
        text = """
          // a comment; with = signs { }
          message A { optional int64 n = 1; map<string, B> m = 2; oneof kind { string s = 3; } enum E { ZERO = 0; } reserved 4;
            message Inner { repeated A a = 1 [deprecated = true]; } }
          service S { rpc Call(stream A) returns (A); rpc Other(A) returns (A) { option x = 1; } }"""
        self.assertEqual(list(entries(text)), [
            "A.n = 1: optional int64", "A.m = 2: map < string , B >", "A.s = 3: string", "A.E.ZERO = 0: value", "A.Inner.a = 1: repeated A",
            "S.Call: ( stream A ) returns ( A )", "S.Other: ( A ) returns ( A )"])


if __name__ == "__main__":
    if "--update" in sys.argv:
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        RELEASED.write_text(HEAD.format(commit=commit) + "\n".join(present()) + "\n")
    else:
        sys.argv = [argument for argument in sys.argv if not argument.endswith("/bin")]
        unittest.main(verbosity=2)
