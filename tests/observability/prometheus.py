"""A real Prometheus for tests: deploy/prometheus with its targets replaced and its time compressed."""
import json
import pathlib
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from waiting import free_port  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy/prometheus"
SPEED = 60  # an hour of the rules is a minute of the test; scraped every second instead of every 15
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = r"(\d+)([smhd])"


def faster(text):
    """A PromQL expression with every range and offset divided by SPEED."""
    shrink = lambda m: f"{m[1]}{max(1000, int(m[2]) * SECONDS[m[3]] * 1000 // SPEED)}ms"
    return re.sub(r"(\[|offset )" + DURATION, shrink, text)


def faster_rules(file):
    rules = yaml.safe_load(file.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = faster(rule["expr"])
            if "for" in rule:
                number, unit = re.fullmatch(DURATION, rule["for"]).groups()
                rule["for"] = f"{int(number) * SECONDS[unit] * 1000 // SPEED}ms"
    return yaml.safe_dump(rules)


class Prometheus:
    """Scrapes what targets() is told and what a coordinator's /sd/workers tells. As deploy/prometheus/prometheus.yml says, but faster, and without an Alertmanager."""

    def __init__(self, folder, coordinator_http):
        self.folder = pathlib.Path(folder)
        (self.folder / "targets").mkdir(parents=True)
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        del config["alerting"]
        for job in config["scrape_configs"]:
            for sd in job.get("http_sd_configs", []):
                sd.update(refresh_interval="1s", url=sd["url"].replace("127.0.0.1:7071", coordinator_http))
        self.config = config
        (self.folder / "rules").mkdir()
        for file in sorted((DEPLOY / "rules").glob("*.yml")):
            (self.folder / "rules" / file.name).write_text(faster_rules(file))
        self.process = None

    def targets(self, kind, groups):
        """Writes targets/KIND.yml; Prometheus follows its changes."""
        file = self.folder / "targets" / f"{kind}.yml"
        file.with_suffix(".new").write_text(yaml.safe_dump(groups))
        file.with_suffix(".new").rename(file)

    def start(self):
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(self.config))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={self.folder / 'prometheus.yml'}", f"--storage.tsdb.path={self.folder / 'tsdb'}",
             f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.folder)
        self.wait(lambda: self.get("/-/ready", raw=True), "Prometheus serves", 30)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.log.close()

    def get(self, path, raw=False, **parameters):
        url = self.url + path + ("?" + urllib.parse.urlencode(parameters) if parameters else "")
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read()
        except OSError as error:
            if raw:
                return None
            raise AssertionError(f"{url}: {error} {getattr(error, 'read', bytes)()}") from error
        return text if raw else json.loads(text)["data"]

    def query(self, expression):
        """[(labels, value)] of an instant query."""
        result = self.get("/api/v1/query", query=expression)
        if result["resultType"] == "scalar":
            return [({}, float(result["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in result["result"]]

    def value(self, expression):
        rows = self.query(expression)
        return rows[0][1] if rows else None

    def firing(self, alert, **labels):
        return [a for a in self.get("/api/v1/alerts")["alerts"] if a["state"] == "firing" and a["labels"]["alertname"] == alert
                and labels.items() <= a["labels"].items()]

    def names(self):
        """Every name that was ever scraped or recorded."""
        return set(self.get("/api/v1/label/__name__/values"))

    @staticmethod
    def wait(condition, what, seconds):
        """What condition() gives, once that is true. `what`: a text or a function that makes it."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
            time.sleep(0.3)
        return found
