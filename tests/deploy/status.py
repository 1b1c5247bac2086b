"""deploy/STATUS.md: what of deploy/ has been seen to work, and how. The tests write its rows."""
import datetime
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "deploy/STATUS.md"
HEAD = """# What of this folder has been run
Made by the tests that the rows name (with `LL_RECORD=1`); do not edit. *Run for real*: the thing itself. *Emulated*: against
a stand-in that is named. *Rendered only*: made and checked as text, never started. *Not run*: for want of the machines.

| artefact | how | when | by | what was seen |
|---|---|---|---|---|
"""
HOW = ("run for real", "emulated", "rendered only", "not run")


def record(artefact, how, what):
    """Notes a result. Writes only with LL_RECORD=1, so that ordinary test runs leave the tree as it is."""
    assert how in HOW and "|" not in artefact + what
    print(f"{artefact}: {how}: {what}")
    if os.environ.get("LL_RECORD") != "1":
        return
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    rows = dict(read())
    test = pathlib.Path(sys.argv[0]).resolve().relative_to(ROOT)
    rows[artefact] = f"| {artefact} | {how} | {today} | `{test}` | {what} |"
    PAGE.write_text(HEAD + "\n".join(row for _, row in sorted(rows.items())) + "\n")


def read():
    """(artefact, row) of the page as it is."""
    for line in PAGE.read_text().splitlines() if PAGE.exists() else ():
        if line.startswith("| ") and not line.startswith("| artefact"):
            yield line.split("|")[1].strip(), line
