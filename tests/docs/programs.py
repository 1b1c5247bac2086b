"""Commands that documents name, whether run or not, against the programs' own help (docs/reference/cli.md, which is generated)."""
import re
import shlex

PROGRAMS = ("llctl", "ll-coordinator", "ll-worker", "ll-trainer", "ll-data", "ll-scaler")
# Flags of tools behind a pipe and the like are not ours.
ENDS = {"|", "&&", "||", ";", "&", ">", ">>", "2>", "<", "#", "&>"}
# What may stand in front of a program's name, beside variables.
BEFORE = {"until", "while", "if", "then", "do", "exec", "sudo", "env", "!"}
# Flags with a value that may stand in front of a subcommand.
WITH_VALUE = {"-o", "--output", "--coordinator", "--timeout", "--token-file", "--ca", "--data-dir", "--config"}
# Commands that take the flags of a job's keys; the reference shows them once.
TAKES_SPEC = ("llctl plan", "llctl schedule create")


def help_sections(reference):
    """{"llctl submit": text of its help} of the reference page."""
    sections = re.split(r"^#{2,4} `([^`]+)`$", reference, flags=re.M)
    return dict(zip(sections[1::2], sections[2::2]))


def commands(line):
    """The words of each of our programs' calls in a line of shell."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
    except ValueError:  # a quote that closes on another line
        words = line.split()
    call, first = None, True
    for word in words:
        if first and word.rpartition("/")[2] in PROGRAMS:
            call, first = [word.rpartition("/")[2]], False
        elif word in ENDS or set(word) <= set("|&;<>()"):
            if call:
                yield call
            call, first = None, True
        elif call is not None:
            call.append(word)
        else:
            first = first and (word in BEFORE or re.fullmatch(r"\w+=.*", word) is not None) or word == "--"
    if call:
        yield call


def spans(text):
    """(line number, code) of a page's code spans that are calls of our programs; spans may not cross lines."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if not fenced:
            for code in re.findall(r"`([^`]+)`", line):
                if code.split()[0].rpartition("/")[2] in PROGRAMS if code.split() else False:
                    yield number, code


def subcommand(words):
    """The first word that is neither a flag nor its value; None where an unknown flag comes first, which may have one."""
    skip = False
    for word in words:
        if skip or word in WITH_VALUE:
            skip = not skip
        elif word.startswith("-"):
            return None
        else:
            return word
    return None


def wrong(call, sections):
    """What of a call does not exist; empty: all does."""
    name, rest = call[0], call[1:]
    flags = set()
    while True:
        flags |= set(re.findall(r"--[a-z][a-z0-9-]*", sections[name]))
        word = subcommand(rest)
        deeper = f"{name} {word}"
        if deeper not in sections:
            # A word in place of a subcommand: a placeholder, or a typing error.
            has_children = any(other.startswith(name + " ") for other in sections)
            if has_children and word is not None and re.fullmatch(r"[a-z-]+", word):
                return f"{name} has no command {word}"
            break
        rest = rest[rest.index(word) + 1:]
        name = deeper
    if name in TAKES_SPEC:
        flags |= set(re.findall(r"--[a-z][a-z0-9-]*", sections["llctl submit"]))
    # Global flags may stand behind a subcommand too.
    flags |= set(re.findall(r"--[a-z][a-z0-9-]*", sections[call[0]]))
    for word in rest:
        flag = re.match(r"--[a-z][a-z0-9-]*", word)
        if flag and flag[0] not in flags:
            return f"{name} has no flag {flag[0]}"
    return ""
