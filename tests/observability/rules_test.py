#!/usr/bin/env python3
"""deploy/prometheus is what Prometheus accepts, and every alert fires when it should, only then, and ends by itself.

  rules_test.py   (needs promtool; PyYAML of the tests' environment)
"""
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = yaml.safe_load((pathlib.Path(__file__).parent / "alerts.yml").read_text())
SEVERITIES = {"critical", "warning", "info"}


def rules(kind):
    return [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def unit_test(name):
    """The case of an alert as promtool's unit test."""
    case, rule = CASES[name], ALERTS[name]
    annotations = {"summary": case["summary"], "description": case["description"], "runbook_url": rule["annotations"]["runbook_url"]}
    firing = [{"exp_labels": {**case["labels"], **rule["labels"]}, "exp_annotations": annotations}]
    every = case.get("every", "1m")
    return {
        "rule_files": [str(file) for file in RULES], "evaluation_interval": every,
        "tests": [{
            "interval": every,
            "input_series": [{"series": series, "values": values} for series, values in case["input"].items()],
            "alert_rule_test": [{"alertname": name, "eval_time": case[when], "exp_alerts": firing if when == "fires" else []}
                                for when in ("quiet", "fires", "resolved")],
        }],
    }


class RulesTest(unittest.TestCase):
    maxDiff = None

    def test_promtool_accepts_rules_and_configuration(self):
        for arguments in (["check", "rules", *RULES], ["check", "config", PROMETHEUS / "prometheus.yml"]):
            run = promtool(*arguments)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
            self.assertNotRegex(run.stdout + run.stderr, r"(?i)warning|duplicate|error")

    def test_every_alert_has_a_case_and_no_case_is_left_over(self):
        self.assertEqual(sorted(ALERTS), sorted(CASES))

    def test_every_alert_says_how_grave_it_is_and_what_to_do(self):
        headings = re.findall(r"^#+ (.*)", (ROOT / "docs/runbooks.md").read_text(), re.M)
        for name, rule in ALERTS.items():
            with self.subTest(name):
                self.assertRegex(name, r"^Ll[A-Z]\w+$")
                self.assertIn(rule["labels"]["severity"], SEVERITIES)
                self.assertEqual(sorted(rule["annotations"]), ["description", "runbook_url", "summary"])
                self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbooks.md#{name.lower()}")
                self.assertIn(name, headings)

    def test_recorded_names_tell_level_metric_and_operation(self):
        for rule in rules("record"):
            self.assertRegex(rule["record"], r"^(cluster|job_id|method|queue):ll_\w+:[a-z]+\d*(_?\d+[smh])?$")

    def test_alerts_fire_and_end(self):
        for name in sorted(set(ALERTS) & set(CASES)):
            with self.subTest(name), tempfile.TemporaryDirectory(prefix="ll-rules-") as folder:
                file = pathlib.Path(folder) / "test.yml"
                file.write_text(yaml.safe_dump(unit_test(name)))
                run = promtool("test", "rules", file)
                self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
