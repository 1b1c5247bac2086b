#!/usr/bin/env python3
"""deploy/grafana's dashboards are what Grafana's own types (the Python package of its Foundation SDK, for Grafana 11.6) know and allow.

  grafana_types_test.py   (the package comes from tests/deploy/requirements.lock)
"""
import copy
import enum
import json
import pathlib
import sys
import types
import typing
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
from packages import import_packages  # noqa: E402

import_packages()
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from grafana_foundation_sdk.models import dashboard, prometheus, stat, table, timeseries  # noqa: E402

from dashboards import boards  # noqa: E402

# Keys that Grafana reads although its types do not have them.
BESIDE = {"/templating/list/definition", "/annotations/list/titleFormat", "/annotations/list/textFormat"}
OF_PANELS = {"stat": (stat.Options, None), "timeseries": (timeseries.Options, timeseries.FieldConfig), "table": (table.Options, None)}


def lost(given, kept, path=""):
    """Keys with a value that did not come through the types."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from lost(value, kept[key], f"{path}/{key}")
            elif value is not None:
                yield f"{path}/{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for one, other in zip(given, kept):
            yield from lost(one, other, path)
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


def misfits(value, kind, path=""):
    """Where a value is not of the declared type: a word that is not one of an enumeration's, a text for a number."""
    origin = typing.get_origin(kind)
    if kind in (typing.Any, object) or isinstance(kind, typing.TypeVar):
        return
    if origin in (typing.Union, types.UnionType):
        found = [list(misfits(value, one, path)) for one in typing.get_args(kind)]
        inside = [some for some in found if not some or not some[0].startswith(f"{path}:")]  # of the right kind, with a fault within
        yield from min(inside, key=len) if inside else [f"{path}: {value!r} is not {kind}"]
    elif origin is typing.Literal:
        if value not in typing.get_args(kind):
            yield f"{path}: {value!r} is not {kind}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for one in value:
            yield from misfits(one, typing.get_args(kind)[0], path)
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no mapping"
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value not in [member.value for member in kind] and value not in list(kind):
            yield f"{path}: {value!r} is none of {[member.value for member in kind]}"
    elif kind is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield f"{path}: {value!r} is no number"
    elif kind in (str, int, bool, type(None)):
        if type(value) is not kind and not (kind is str and isinstance(value, enum.Enum)):
            yield f"{path}: {value!r} is not {kind.__name__}"
    elif isinstance(kind, type) and kind.__module__.startswith("grafana_foundation_sdk"):
        if isinstance(value, dict):  # some lists are kept as they came
            value = kind.from_json(value)
        if not isinstance(value, kind):
            yield f"{path}: {value!r} is not {kind.__name__}"
            return
        yield from fields(value, path)


def fields(thing, path=""):
    for name, kind in typing.get_type_hints(type(thing)).items():
        if (value := getattr(thing, name, None)) is not None:
            yield from misfits(value, kind, f"{path}/{name}")


def findings(kind, given):
    """Of a JSON object that is to be of a type of Grafana's."""
    thing = kind.from_json(copy.deepcopy(given))
    return sorted(set(fields(thing)) | set(lost(given, json.loads(JSONEncoder().encode(thing)))))


def all_findings(board):
    yield from (finding for finding in findings(dashboard.Dashboard, board) if finding not in BESIDE)
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        options, custom = OF_PANELS[panel["type"]]
        yield from (f"{panel['title']}: options{finding}" for finding in findings(options, panel["options"]))
        if custom is not None:
            yield from (f"{panel['title']}: custom{finding}" for finding in findings(custom, panel["fieldConfig"]["defaults"]["custom"]))
        for target in panel["targets"]:
            yield from (f"{panel['title']}: target{finding}" for finding in findings(prometheus.Dataquery, target))


class GrafanaTypesTest(unittest.TestCase):
    maxDiff = None

    def test_every_dashboard(self):
        self.assertGreaterEqual(len(boards()), 6)
        for board in boards():
            with self.subTest(board["uid"]):
                self.assertEqual(list(all_findings(board)), [])

    def test_faults_are_seen(self):
        graph = lambda board: next(panel for panel in board["panels"] if panel["type"] == "timeseries")
        for what, spoil in (("drawStyle", lambda b: graph(b)["fieldConfig"]["defaults"]["custom"].update(drawStyle="lines")),
                            ("placement", lambda b: graph(b)["options"]["legend"].update(placement="under")),
                            ("legends", lambda b: graph(b)["options"].update(legends={})),
                            ("expression", lambda b: graph(b)["targets"][0].update(expression="up")),
                            ("gridPos", lambda b: graph(b)["gridPos"].update(w="8")),
                            ("refreshh", lambda b: b.update(refreshh="30s")),
                            ("thresholds", lambda b: graph(b)["fieldConfig"]["defaults"]["thresholds"].update(mode="relative"))):
            board = next(board for board in boards() if board["uid"] == "ll-job")
            spoil(board)
            self.assertTrue(any(what.lower() in finding.replace("_", "").lower() for finding in all_findings(board)), (what, list(all_findings(board))))


if __name__ == "__main__":
    unittest.main(verbosity=2)
