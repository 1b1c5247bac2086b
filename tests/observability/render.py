"""Draws rows of deploy/grafana's dashboards as SVG, from their JSON and a Prometheus's answers, where Grafana itself is not to be had.

Layout, titles, units, thresholds, legends, stacks and tables follow the panels' JSON; fonts and colours are near Grafana's, not the same. Time series are asked as
range queries, stats and tables as instant ones, with the queries as they stand (a caller may change them: `expression`).
"""
import datetime
import html
import math
import re

COLUMN, ROW, GAP, FONT = 50, 34, 6, "font-family='DejaVu Sans, sans-serif'"  # pixels of a column and a row of Grafana's grid
PALETTE = ["#56a64b", "#e0b400", "#1f78c1", "#e24d42", "#8e44ad", "#0a9ea4", "#c15c17", "#6d6d6d"]
THRESHOLD = {"green": "#37872d", "orange": "#e07b00", "red": "#c4162a", "blue": "#1f60c4"}
SI = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]


def text(x, y, words, size=12, color="#24292e", anchor="start", weight="normal"):
    return f"<text x='{x:g}' y='{y:g}' {FONT} font-size='{size}' fill='{color}' text-anchor='{anchor}' font-weight='{weight}'>{html.escape(str(words))}</text>"


def short(value, digits=3):
    return f"{value:.{digits}g}" if abs(value) < 1e5 else f"{value:.0f}"


def tick_texts(values, unit):
    """With as many digits as tell them apart."""
    for digits in range(3, 9):
        texts = [number(value, unit, digits) for value in values]
        if len(set(texts)) == len(texts):
            break
    return texts


def number(value, unit, digits=3):
    """As Grafana writes a value of the unit."""
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf"
    if unit == "percentunit":
        return f"{short(value * 100, digits)} %"
    if unit == "bytes":
        power = min(4, max(0, int(math.log(abs(value), 1024)))) if value else 0
        return f"{short(value / 1024 ** power, digits)} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{short(value / size, digits)} {name}"
        return "0 s"
    suffix = {"watt": " W", "joule": " J", "hertz": " Hz", "celsius": " °C", "reqps": " req/s"}.get(unit, "")
    for size, name in SI:
        if abs(value) >= size:
            return f"{short(value / size, digits)} {name}{suffix}"
    return short(value, digits) + suffix


def color_at(value, panel):
    color = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return THRESHOLD[color]


def legend(target, labels):
    if target["legendFormat"] == "__auto":
        return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), target["legendFormat"])


def nice_ticks(low, high, count=4):
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(int((high - low) / step + 1e-6) + 1) if (first + i) * step <= high + step * 1e-6]


class Renderer:
    """Asks `prometheus` (tests/observability/prometheus.py); `expression(text)` gives what is asked for a panel's query."""

    def __init__(self, prometheus, begin, end, expression):
        self.prometheus, self.begin, self.end, self.expression = prometheus, begin, end, expression
        self.step = max(1, round((end - begin) / 120))

    def series(self, target):
        if target["instant"]:
            return [(row["metric"], float(row["value"][1])) for row in self.prometheus.get(
                "/api/v1/query", query=self.expression(target["expr"]), time=self.end)["result"]]
        found = self.prometheus.get("/api/v1/query_range", query=self.expression(target["expr"]), start=self.begin, end=self.end, step=self.step)
        return [(row["metric"], [(float(t), float(v)) for t, v in row["values"]]) for row in found["result"]]

    # ---- panels, each in a box

    def panel(self, panel, x, y, width, height):
        out = [f"<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='#fff' stroke='#d0d7de'/>", text(x + 8, y + 17, panel["title"], 12, weight="bold")]
        draw = {"stat": self.stat, "timeseries": self.timeseries, "table": self.table}[panel["type"]]
        return out + draw(panel, x + 8, y + 26, width - 16, height - 32)

    def stat(self, panel, x, y, width, height):
        unit, mappings = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"]["mappings"]
        found = [(legend(target, labels), value) for target in panel["targets"] for labels, value in self.series(target)]
        if not found:
            nothing = panel["fieldConfig"]["defaults"].get("noValue", "No data")
            return [text(x + width / 2, y + height / 2 + 6, nothing, 14, "#8a8f98", "middle")]
        out, each = [], width / len(found)
        for i, (name, value) in enumerate(found):
            said, color = number(value, unit), color_at(value, panel)
            for mapping in mappings:
                said = mapping["options"].get(f"{value:g}", {}).get("text", said)
            out.append(text(x + each * (i + 0.5), y + height / 2 + 10, said, 26, color, "middle", "bold"))
            if len(found) > 1:
                out.append(text(x + each * (i + 0.5), y + height - 2, name, 11, "#57606a", "middle"))
        return out

    def table(self, panel, x, y, width, height):
        rows, columns = self.table_rows(panel)
        if not rows:
            return [text(x + width / 2, y + height / 2, "No data", 14, "#8a8f98", "middle")]
        widths = [max(len(column), *(len(row.get(column, "")) for row in rows)) + 2 for column in columns]
        scale, out, at = width / sum(widths), [], x
        for column, size in zip(columns, widths):
            out.append(text(at, y + 12, column, 11, "#57606a", weight="bold"))
            out += [text(at, y + 32 + 19 * i, row.get(column, ""), 11) for i, row in enumerate(rows) if 36 + 19 * i < height]
            at += size * scale
        return out

    def table_rows(self, panel):
        """Rows of a table as its transformations make them: queries merged by their labels, columns renamed."""
        names = next(t["options"]["renameByName"] for t in panel["transformations"] if t["id"] == "organize")
        hidden = next(t["options"]["excludeByName"] for t in panel["transformations"] if t["id"] == "organize")
        merged, unit = [], panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            field = f"Value #{target['refId']}" if len(panel["targets"]) > 1 else "Value"
            for labels, value in self.series(target):
                row = next((r for r in merged if all(r.get(k, v) == v for k, v in labels.items())), None)
                if row is None:
                    merged.append(row := {})
                row.update(labels)
                if not hidden.get(field):
                    row[names.get(field, field)] = number(value, unit)
        columns = []
        for row in merged:
            columns += [key for key in row if key not in columns and not hidden.get(key)]
        return merged, columns

    def timeseries(self, panel, x, y, width, height):
        defaults = panel["fieldConfig"]["defaults"]
        lines = [(legend(target, labels), points) for target in panel["targets"] for labels, points in self.series(target)]
        lines = [(name, [(t, v) for t, v in points if math.isfinite(v)]) for name, points in lines]
        lines = sorted((name, points) for name, points in lines if points)
        if not lines:
            return [text(x + width / 2, y + height / 2, "No data", 14, "#8a8f98", "middle")]
        if defaults["custom"]["stacking"]["mode"] == "normal":
            lines = self.stack(lines)
        log = defaults["custom"]["scaleDistribution"]["type"] == "log"
        values = [v for _, points in lines for _, v in points if not log or v > 0]
        low = min(values) if defaults["min"] is None else defaults["min"]
        high = max(values) if defaults["max"] is None else max(defaults["max"], *values)
        if defaults["custom"]["stacking"]["mode"] == "normal":
            low = min(0, low)
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-9 * max(1, abs(high)):
            low, high = (0, 2 * high or 1) if high >= 0 else (low - 1, high + 1)
        pad = (high - low) * 0.06
        low, high = (low if low == 0 or defaults["min"] is not None else low - pad), high + pad
        rows = math.ceil(len(lines) / 2)
        left, bottom = x + 52, y + height - 18 - 14 * min(rows, 3)
        at_x = lambda t: left + (t - self.begin) / (self.end - self.begin) * (width - 56)
        at_y = lambda v: bottom - ((math.log10(v) if log else v) - low) / (high - low) * (bottom - y - 4)
        out = []
        values = [10 ** tick if log else tick for tick in nice_ticks(low, high)]
        for value, said in zip(values, tick_texts(values, defaults["unit"])):
            out.append(f"<path d='M{left} {at_y(value):.1f}h{width - 56}' stroke='#e5e8eb'/>")
            out.append(text(left - 5, at_y(value) + 4, said, 10, "#57606a", "end"))
        out += self.time_axis(at_x, bottom)
        if defaults["custom"]["thresholdsStyle"]["mode"] == "line":
            for step in defaults["thresholds"]["steps"]:
                if step["value"] is not None and low <= step["value"] <= high:
                    out.append(f"<path d='M{left} {at_y(step['value']):.1f}h{width - 56}' stroke='{THRESHOLD[step['color']]}' stroke-dasharray='6 4'/>")
        for moment in self.alerts_began():
            out.append(f"<path d='M{at_x(moment):.1f} {y}V{bottom}' stroke='#c4162a' stroke-dasharray='3 3'/>")
        return out + self.curves(lines, at_x, at_y, x, bottom, width)

    def curves(self, lines, at_x, at_y, x, bottom, width):
        out = []
        for i, (name, points) in enumerate(lines):
            color, path, before = PALETTE[i % len(PALETTE)], "", None
            for t, v in points:
                path += f"{'M' if before is None or t - before > 2.5 * self.step else 'L'}{at_x(t):.1f} {at_y(v):.1f}"
                before = t
            out.append(f"<path d='{path}' fill='none' stroke='{color}' stroke-width='1.6'/>")
            if len(points) == 1:
                out.append(f"<circle cx='{at_x(points[0][0]):.1f}' cy='{at_y(points[0][1]):.1f}' r='2' fill='{color}'/>")
            if i < 6:
                lx, ly = x + 4 + (i % 2) * width / 2, bottom + 30 + 14 * (i // 2)
                out += [f"<path d='M{lx:g} {ly - 4:g}h12' stroke='{color}' stroke-width='3'/>", text(lx + 17, ly, name, 10)]
        return out

    @staticmethod
    def stack(lines):
        under, out = {}, []
        for name, points in lines:
            under = {**under, **{t: under.get(t, 0) + v for t, v in points}}
            out.append((name, [(t, under[t]) for t, _ in points]))
        return out

    def time_axis(self, at_x, bottom):
        out, every = [], next(s for s in (10, 15, 30, 60, 120, 300, 600, 1800, 3600) if (self.end - self.begin) / s <= 6)
        moment = math.ceil(self.begin / every) * every
        while moment <= self.end:
            clock = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%H:%M:%S")
            if at_x(moment) <= at_x(self.end) - 16:  # else it would stand out of the panel
                out.append(text(at_x(moment), bottom + 14, clock, 10, "#57606a", "middle"))
            moment += every
        return out

    def alerts_began(self):
        """When an alert began to fire within the picture: the dashboards' annotations."""
        if not hasattr(self, "began"):
            found = self.prometheus.get("/api/v1/query_range", query='ALERTS{alertstate="firing", alertname=~"Ll.*"}', start=self.begin, end=self.end,
                                        step=self.step)["result"]
            first = [float(row["values"][0][0]) for row in found]
            self.began = sorted({moment for moment in first if moment > self.begin + self.step})  # others fired before
        return self.began

    # ---- a page

    def page(self, title, parts):
        """SVG of rows: `parts` is a list of (dashboard, headings of the rows to draw)."""
        out, y = [], 46
        for board, headings in parts:
            out += [text(10, y, " · ".join(filter(None, (board["title"], board["variables_said"]))), 15, weight="bold")]
            y += 10
            row, base, bottom = None, None, y
            for panel in board["panels"]:
                if panel["type"] == "row":
                    row, base = panel["title"], None
                    if row in headings:
                        y = bottom + 4
                    continue
                if row not in headings:
                    continue
                place = panel["gridPos"]
                base = place["y"] if base is None else base
                top = y + (place["y"] - base) * ROW
                out += self.panel(panel, 10 + place["x"] * COLUMN, top, place["w"] * COLUMN - GAP, place["h"] * ROW - GAP)
                bottom = max(bottom, top + place["h"] * ROW)
            y = bottom + 22
        width = 24 * COLUMN + 20
        head = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {y}' width='{width}' height='{y}'>",
                f"<rect width='{width}' height='{y}' fill='#f6f8fa'/>", text(10, 20, title, 12, "#57606a")]
        return "\n".join(head + out + ["</svg>"]) + "\n"
