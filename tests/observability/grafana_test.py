#!/usr/bin/env python3
"""deploy/grafana: the dashboards are what generate.py writes, have what Grafana wants, and lead where their links say.

  grafana_test.py   (needs promtool; PyYAML of the tests' environment). Their queries run in service_test.py.
"""
import re
import subprocess
import sys
import tempfile
import unittest
from urllib.parse import urlsplit

import yaml

from dashboards import COUNTERS, FOLDER, GAUGES, SYNTHETIC, boards, fill_in, panels
from metrics_table import ROOT, families

UNITS = {"short", "percentunit", "s", "bytes", "watt", "joule", "hertz", "celsius", "reqps"}  # ids of Grafana's units
TYPES = {"row", "stat", "timeseries", "table"}
BUILT_IN = {"__url_time_range", "__data.fields.queue", "__data.fields.job_id", "__rate_interval", "datasource:queryparam"}
ALERTMANAGER = FOLDER.parent / "prometheus/alertmanager.yml"


class GrafanaTest(unittest.TestCase):
    maxDiff = None

    def test_the_files_are_what_the_generator_writes(self):
        run = subprocess.run([sys.executable, FOLDER / "generate.py", "--check"], capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_identities_are_unique_and_stable(self):
        self.assertEqual({board["uid"] for board in boards()}, {"ll-cluster", "ll-queue", "ll-job", "ll-rank", "ll-nightly", "ll-service"})
        self.assertEqual(len({board["title"] for board in boards()}), len(boards()))
        for board in boards():
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), board["uid"])
            self.assertIsNone(board.get("id"))  # Grafana's own number: a file that has one overwrites another dashboard

    def test_every_panel_says_what_it_shows(self):
        for board in boards():
            for panel in panels(board):
                with self.subTest(board=board["uid"], panel=panel["title"]):
                    self.assertIn(panel["type"], TYPES)
                    self.assertGreater(len(panel["description"]), 8)
                    self.assertIn(panel["fieldConfig"]["defaults"]["unit"], UNITS)
                    self.assertTrue(panel["targets"])
                    self.assertEqual(len({t["refId"] for t in panel["targets"]}), len(panel["targets"]))
                    for where in (panel, *panel["targets"]):
                        self.assertEqual(where["datasource"], {"type": "prometheus", "uid": "${datasource}"})
                    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
                    self.assertIsNone(steps[0]["value"])
                    limits = [step["value"] for step in steps[1:]]
                    self.assertEqual(limits, sorted(set(limits)))

    def test_panels_lie_beside_each_other(self):
        for board in boards():
            taken = set()
            for panel in board["panels"]:
                p = panel["gridPos"]
                self.assertLessEqual(p["x"] + p["w"], 24)
                cells = {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
                self.assertFalse(cells & taken, (board["uid"], panel["title"]))
                taken |= cells

    def test_variables_are_declared_and_used(self):
        for board in boards():
            declared = {v["name"] for v in board["templating"]["list"]}
            self.assertIn("datasource", declared)
            text = str(board["panels"]) + str(board["annotations"]) + "".join(str(v.get("query")) for v in board["templating"]["list"])
            used = {a or b for a, b in re.findall(r"\$(?:\{([\w.:]+)\}|([a-z_]\w*))", text)}
            self.assertEqual(used - BUILT_IN - declared, set(), board["uid"])
            self.assertEqual(declared - used, set(), board["uid"])

    def test_links_lead_to_dashboards_and_their_variables(self):
        variables = {board["uid"]: {v["name"] for v in board["templating"]["list"]} for board in boards()}
        reached = {"ll-cluster", "ll-nightly", "ll-service"}  # by the menu of dashboards with the tag
        for board in boards():
            self.assertEqual(board["links"][0]["tags"], board["tags"])
            for panel in panels(board):
                for link in panel["fieldConfig"]["defaults"]["links"]:
                    url = urlsplit(link["url"])
                    uid = url.path.removeprefix("/d/")
                    self.assertIn(uid, variables)
                    self.assertLessEqual(set(re.findall(r"var-(\w+)=", url.query)), variables[uid])
                    reached.add(uid)
        self.assertEqual(reached, set(variables))

    def test_queries_name_metrics_that_exist_and_are_promql(self):
        known = set(families()) | {"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped"}
        recorded = {rule["record"] for group in yaml.safe_load((ROOT / "deploy/prometheus/rules/recording.yml").read_text())["groups"]
                    for rule in group["rules"]}
        rules = []
        for board in boards():
            values = {v["name"]: "x" for v in board["templating"]["list"]}
            for panel in panels(board):
                for query in panel["targets"]:
                    expr = fill_in(query["expr"], values)
                    rules.append({"record": "x", "labels": {"n": str(len(rules))}, "expr": expr})
                    bare = re.sub(r'"[^"]*"', "", expr)
                    names = set(re.findall(r"\b(?:(?:cluster|job_id|method|queue):)?(?:ll|process)_\w+(?::\w+)?\b", bare))
                    self.assertEqual({n for n in names if n not in known | recorded}, set(), (board["uid"], panel["title"]))
        self.assertGreater(len(rules), 80)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
            file.flush()
            run = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_what_is_synthetic_exists(self):
        titles = {(board["uid"], panel["title"]) for board in boards() for panel in panels(board)}
        self.assertEqual(set(SYNTHETIC) - titles, set())
        kinds = {**{s.partition("{")[0]: "gauge" for s in GAUGES}, **{s.partition("{")[0]: "counter" for s in COUNTERS}}
        self.assertEqual({name: families()[name].kind for name in kinds}, kinds)

    def test_provisioning(self):
        source = yaml.safe_load((FOLDER / "provisioning/datasources/ll.yml").read_text())["datasources"][0]
        scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
        self.assertEqual((source["type"], source["jsonData"]["timeInterval"]), ("prometheus", scrape))
        provider = yaml.safe_load((FOLDER / "provisioning/dashboards/ll.yml").read_text())["providers"][0]
        self.assertEqual(provider["type"], "file")
        self.assertIn(provider["options"]["path"], (ROOT / "docs/monitoring.md").read_text())

    def test_alerts_are_routed_to_receivers_that_exist(self):
        config = yaml.safe_load(ALERTMANAGER.read_text())
        receivers = {receiver["name"] for receiver in config["receivers"]}
        routes = [config["route"], *config["route"]["routes"]]
        self.assertLessEqual({route["receiver"] for route in routes}, receivers)
        alerts = {rule["alert"] for group in yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text())["groups"]
                  for rule in group["rules"]}
        severities = {m for route in routes for m in re.findall(r'severity="(\w+)"', str(route.get("matchers", "")))}
        self.assertLessEqual(severities, {"critical", "warning", "info"})
        for rule in config["inhibit_rules"]:
            for matcher in rule["source_matchers"] + rule["target_matchers"]:
                operator, pattern = re.fullmatch(r'alertname(=~?)"(.*)"', matcher).groups()
                found = {a for a in alerts if re.fullmatch(pattern, a)} if operator == "=~" else {pattern} & alerts
                self.assertTrue(found, matcher)


if __name__ == "__main__":
    unittest.main(verbosity=2)
