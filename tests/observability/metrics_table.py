#!/usr/bin/env python3
"""The metrics by their help texts, as the sources give them, and the tables of docs/monitoring.md made of them.

  metrics_table.py            exits with 1 where docs/monitoring.md is stale
  metrics_table.py --update   writes its tables anew

Names and help texts are literals at the calls that make the families (rpc/metric_families.h, rpc/daemon_metrics.cc,
worker/agent/gpu_metrics.cc); service_test.py compares them with what real processes show.
"""
import pathlib
import re
import sys
import typing

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/monitoring.md"
SOURCES = {  # file -> who shows it
    "coordinator/runtime/metrics.cc": "coordinator", "coordinator/runtime/cluster_metrics.cc": "coordinator",
    "coordinator/runtime/job_metrics.cc": "coordinator", "worker/agent/agent_metrics.cc": "agent", "worker/agent/gpu_metrics.cc": "agent",
    "rpc/daemon_metrics.cc": "both", "coordinator/coordinator.cc": "coordinator", "coordinator/backup_metrics.h": "coordinator",
    "coordinator/webhooks/notifier.cc": "coordinator", "coordinator/api/plan_cache.cc": "coordinator",
    "scaler/scaler.cc": "scaler",
}
STRING = r'"(?:[^"\\]|\\.)*"'
FAMILY = re.compile(rf'(\w+)\s*[({{]\s*(?:[\w*]+\s*,\s*)?"((?:ll|process)_\w+)",\s*({STRING}(?:\s*{STRING})*)')


class Metric(typing.NamedTuple):
    kind: str
    help: str
    who: str


def kind_of(maker, name):
    if "Histogram" in maker:
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"


def families():
    """{name: Metric}, each name once."""
    found = {}
    for file, who in SOURCES.items():
        for maker, name, text in FAMILY.findall((ROOT / file).read_text()):
            assert name not in found, f"{name} is made twice"
            found[name] = Metric(kind_of(maker, name), "".join(re.findall(rf'"((?:[^"\\]|\\.)*)"', text)), who)
    return found


def metric_table(who):
    lines = ["| metric | type | meaning |", "|---|---|---|"]
    return lines + [f"| `{name}` | {m.kind} | {m.help} |" for name, m in sorted(families().items()) if m.who == who]


def alert_table():
    lines = ["| alert | severity | when |", "|---|---|---|"]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            summary = re.sub(r"\{\{[^}]*\}\}", "…", rule["annotations"]["summary"])
            lines.append(f"| [{rule['alert']}](runbooks.md#{rule['alert'].lower()}) | {rule['labels']['severity']} | {summary} |")
    return lines


def updated(page):
    """The page with what stands between `<!-- table: NAME -->` and `<!-- end -->` made anew."""
    tables = {"coordinator": metric_table("coordinator"), "agent": metric_table("agent"), "both": metric_table("both"),
              "scaler": metric_table("scaler"),
              "alerts": alert_table()}
    for name, lines in tables.items():
        block = f"<!-- table: {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"
        page, count = re.subn(rf"<!-- table: {name} -->\n.*?<!-- end -->", lambda _: block, page, flags=re.S)
        assert count == 1, f"docs/monitoring.md has no table {name}"
    return page


def main():
    page = PAGE.read_text()
    fresh = updated(page)
    if "--update" in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif fresh != page:
        sys.exit(f"{PAGE.relative_to(ROOT)} is stale: run tests/observability/metrics_table.py --update")


if __name__ == "__main__":
    main()
