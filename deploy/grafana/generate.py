#!/usr/bin/env python3
"""Writes dashboards/*.json, what Grafana reads, from panels.py. Standard library only.

  generate.py           writes the files
  generate.py --check   exits with 1 where a file is not what it would write
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from panels import DASHBOARDS  # noqa: E402

FOLDER = pathlib.Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
COLORS = {"ok": "green", "warn": "orange", "bad": "red"}


def thresholds(steps):
    """[("ok", None), ("bad", 5)]: green, and red from 5 on."""
    return {"mode": "absolute", "steps": [{"color": COLORS[color], "value": value} for color, value in steps or [("ok", None)]]}


def target(index, query, panel):
    expr, legend = query if isinstance(query, tuple) else (query, "")
    table = panel["type"] == "table"
    instant = table or panel["type"] in ("stat", "gauge")
    return {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend or "__auto",
            "instant": instant, "range": not instant, "format": "table" if table else "time_series"}


def links(panel):
    return [{"title": title, "url": f"/d/{uid}?${{datasource:queryparam}}&{more}&${{__url_time_range}}", "targetBlank": False}
            for title, uid, more in panel.get("links", ())]


def options(panel):
    if panel["type"] in ("stat", "gauge"):
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value", "textMode": "auto"}
    if panel["type"] == "table":
        return {"showHeader": True}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}


def custom(panel):
    if panel["type"] != "timeseries":
        return {}
    stacked = {"mode": "normal", "group": "A"} if panel.get("stack") else {"mode": "none", "group": "A"}
    return {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if panel.get("stack") else 5, "showPoints": "never",
            "spanNulls": False, "stacking": stacked, "thresholdsStyle": {"mode": "line" if panel.get("steps") else "off"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.get("log") else {"type": "linear"}}


def transformations(panel):
    if panel["type"] != "table":
        return []
    hidden = {name: True for name in ("Time", "__name__", "instance", "job", *panel.get("hide", ()))}
    names = {f"Value #{chr(ord('A') + i)}": name for i, name in enumerate(panel["columns"])} | {"Value": panel["columns"][0]}
    merged = [{"id": "merge", "options": {}}] if len(panel["queries"]) > 1 else []
    return merged + [{"id": "organize", "options": {"excludeByName": hidden, "renameByName": names}}]


def json_panel(number, panel, place):
    return {
        "id": number, "type": panel["type"], "title": panel["title"], "description": panel["description"], "gridPos": place,
        "datasource": DATASOURCE, "targets": [target(i, q, panel) for i, q in enumerate(panel["queries"])], "options": options(panel),
        "transformations": transformations(panel),
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": panel.get("min"), "max": panel.get("max"),
                                     "thresholds": thresholds(panel.get("steps")), "custom": custom(panel), "links": links(panel),
                                     "mappings": panel.get("mappings", []), **({"noValue": panel["none"]} if "none" in panel else {})},
                        "overrides": []},
    }


def lay_out(rows):
    """Panels of a row stand side by side, wrapped at the page's width; a row has a heading."""
    out, y, number = [], 0, 1
    for heading, panels in rows:
        out.append({"id": number, "type": "row", "title": heading, "collapsed": False, "panels": [],
                    "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        number, y, x, height = number + 1, y + 1, 0, 0
        for panel in panels:
            width, high = panel.get("width", 8), panel.get("height", 8)
            if x + width > WIDTH:
                x, y, height = 0, y + height, 0
            out.append(json_panel(number, panel, {"x": x, "y": y, "w": width, "h": high}))
            number, x, height = number + 1, x + width, max(height, high)
        y += height
    return out


def variable(name, query, label, many):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "refresh": 2, "sort": 1,
            "query": {"query": query, "refId": name}, "definition": query, "multi": many, "includeAll": many,
            "allValue": ".*" if many else None, "hide": 0}


def dashboard(board):
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0, "refresh": 1}
    return {
        "uid": board["uid"], "title": board["title"], "description": board["description"], "tags": ["ll"], "timezone": "browser",
        "schemaVersion": 39, "version": 1, "editable": False, "refresh": "30s", "graphTooltip": 1,
        "time": {"from": f"now-{board['range']}", "to": "now"}, "timepicker": {},
        "links": [{"type": "dashboards", "title": "ll", "tags": ["ll"], "asDropdown": True, "includeVars": True, "keepTime": True,
                   "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "templating": {"list": [source] + [variable(*v) for v in board["variables"]]},
        "annotations": {"list": [{"name": "Alerts", "enable": True, "iconColor": "red", "datasource": DATASOURCE,
                                  "expr": f'ALERTS{{alertstate="firing", alertname=~"Ll.*"{board.get("alerts", "")}}}',
                                  "titleFormat": "{{alertname}}", "textFormat": "{{severity}}"}]},
        "panels": lay_out(board["rows"]),
    }


def files():
    """{path: text} of every dashboard."""
    return {FOLDER / f"{board['uid']}.json": json.dumps(dashboard(board), indent=1) + "\n" for board in DASHBOARDS}


def main():
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    stale += sorted(set(FOLDER.glob("*.json")) - set(wanted))
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what generate.py writes; run it")
        sys.exit(bool(stale))
    for path in sorted(set(FOLDER.glob("*.json")) - set(wanted)):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
