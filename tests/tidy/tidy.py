#!/usr/bin/env python3
"""Checks the repository's own rules. Standard library only.

  tidy.py CHECK [--build DIR] [--fix]

CHECK is one of the names below or `all`; the findings are printed one a line and make the exit status 1. `lengths`
only reports. `format --fix` formats instead of checking; `headers` needs a configured build folder.
"""
import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import builds  # noqa: E402
import layers  # noqa: E402
import provided  # noqa: E402
import texts   # noqa: E402
from tree import Tree  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKS = {
    "includes": lambda tree, args: layers.check_includes(tree),
    "link_graph": lambda tree, args: layers.check_links(tree),
    "core": lambda tree, args: layers.check_core(tree),
    "waits": lambda tree, args: layers.check_waits(tree),
    "temp_dirs": lambda tree, args: layers.check_temp_dirs(tree),
    "leftovers": lambda tree, args: texts.check_leftovers(tree),
    "markdown_links": lambda tree, args: texts.check_links(tree),
    "licence": lambda tree, args: texts.check_licence(tree),
    "include_guards": lambda tree, args: texts.check_headers_once(tree),
    "provided": lambda tree, args: provided.check_provided(tree),
    "registered": lambda tree, args: builds.check_registered(tree),
    "format": lambda tree, args: builds.check_format(tree, args.fix),
    "headers": lambda tree, args: builds.check_headers(tree, args.build),
    "lengths": lambda tree, args: texts.report_lengths(tree),
}
REPORTS = {"lengths"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=[*CHECKS, "all"])
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--fix", action="store_true")
    args = parser.parse_args()
    tree = Tree(ROOT)
    failed = False
    for name in CHECKS if args.check == "all" else [args.check]:
        findings = list(CHECKS[name](tree, args))
        for line in findings:
            print(line)
        print(f"tidy {name}: {len(findings)} findings in {len(tree.names)} files")
        failed |= bool(findings) and name not in REPORTS
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
