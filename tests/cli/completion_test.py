#!/usr/bin/env python3
"""llctl's completion in the real shells, and its manual pages in the real formatter.

  completion_test.py BIN_DIR   (with llctl)

zsh, fish and groff are used where they are installed (deploy/bootstrap.sh --tests installs the shells).
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
# In front of the real one in PATH: answers what a coordinator would have to.
STAND_IN = """#!/bin/sh
case "$*" in
  "list -o name"*) echo job-00000000000a; echo job-00000000000b ;;
  "workers list -o name"*) echo gpu-7 ;;
  "schedule list -o name"*) echo nightly ;;
  *) exec "$LL_REAL" "$@" ;;
esac
"""
BASH = """
source <(llctl completion bash)
complete -p llctl > /dev/null || exit 3
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_llctl
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -U compinit && compinit -D -u
source <(llctl completion zsh)
[[ ${_comps[llctl]} == _llctl ]] || exit 3
compadd() { [[ $1 == -- ]] && shift; print -l -- "$@" }
_files() { : }
words=("$@"); CURRENT=$#
_llctl
"""
# As a file of $fpath, the way a package installs it.
ZSH_AUTOLOAD = """
fpath=($LL_FPATH $fpath)
autoload -U compinit && compinit -D -u
[[ ${_comps[llctl]} == _llctl ]] || exit 3
compadd() { [[ $1 == -- ]] && shift; print -l -- "$@" }
_files() { : }
words=(llctl pa); CURRENT=2
_llctl
"""
FISH = "source (llctl completion fish | psub); complete -C \"$argv\""


class CompletionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        stand_in = pathlib.Path(cls.folder.name) / "llctl"
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        cls.env = {"PATH": f"{cls.folder.name}:/usr/bin:/bin", "HOME": cls.folder.name, "LL_REAL": str(BIN / "llctl"), "LANG": "C.UTF-8", "TERM": "dumb"}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_shell(self, *command, env=None):
        done = subprocess.run(command, env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.split("\n")

    def check(self, complete):
        top = complete("llctl", "")
        for word in ("submit", "top", "describe", "plot", "workers"):
            self.assertIn(word, top)
        self.assertIn("drain", complete("llctl", "workers", ""))
        self.assertNotIn("submit", complete("llctl", "workers", ""))
        self.assertIn("--from-step", complete("llctl", "watch", "--"))
        for command in ("get", "describe", "watch", "plot", "cancel"):
            self.assertIn("job-00000000000b", complete("llctl", command, ""), command)
        self.assertIn("job-00000000000a", complete("llctl", "--timeout=3", "get", "job-00000000000b", ""))
        self.assertIn("gpu-7", complete("llctl", "workers", "drain", ""))
        self.assertIn("nightly", complete("llctl", "schedule", "show", ""))
        self.assertIn("job-00000000000a", complete("llctl", "eval", "passkey", "--job", ""))
        self.assertNotIn("job-00000000000a", complete("llctl", "list", ""))
        methods = complete("llctl", "submit", "--method", "")  # fish adds files
        self.assertLessEqual({"full", "lora", "longlora", "qlora", "longqlora"}, set(methods))
        self.assertNotIn("--ctx", methods)
        self.assertIn("ntk", complete("llctl", "submit", "--rope", "n"))
        self.assertIn("blank-line", complete("llctl", "data", "pack", "--documents", ""))
        for flag in ("-o", "--output"):
            self.assertLessEqual({"table", "json", "yaml", "name"}, set(complete("llctl", "schedule", "list", flag, "")), flag)

    def test_bash(self):
        self.check(lambda *words: self.run_shell("bash", "--norc", "--noprofile", "-c", BASH, "bash", *words))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh(self):
        self.check(lambda *words: self.run_shell("zsh", "-f", "-c", ZSH, "zsh", *words))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_as_a_file(self):
        folder = pathlib.Path(self.folder.name) / "functions"
        folder.mkdir()
        script = subprocess.run([BIN / "llctl", "completion", "zsh"], capture_output=True, text=True, check=True, timeout=60).stdout
        (folder / "_llctl").write_text(script)
        self.assertIn("pause", self.run_shell("zsh", "-f", "-c", ZSH_AUTOLOAD, env={"LL_FPATH": str(folder)}))

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_fish(self):
        self.check(lambda *words: [line.split("\t")[0] for line in self.run_shell("fish", "-N", "-c", FISH, " ".join(words))])

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_manual_pages(self):
        folder = pathlib.Path(self.folder.name) / "man1"
        subprocess.run([BIN / "llctl", "man", "--dir", folder], check=True, timeout=60, stdout=subprocess.DEVNULL)
        pages = sorted(folder.iterdir())
        self.assertGreater(len(pages), 50)
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", *pages], env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("llctl submit --model 7b --ctx 32768", done.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
