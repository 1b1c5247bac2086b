"""Makes the page of a study: docs/results/paper-in-small.md and its plots, from results.json.

  python3 tests/paper/report.py DIR/results.json docs/results/

Every number on the page is computed here from the measured ones. A difference between two variants is paired by seed (the same base
model, the same order of rows); its interval is Student's t at 95 %. Where an expected order is not shown, the page says so.
"""
import collections
import json
import math
import os
import statistics
import sys

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
LORA = "LoRA r=8"
BOTH = "LoRA r=8 + norm + embed"
# (worse, better): what the paper's tables show, in its order.
ORDERS = [
    ("untuned", "full / short", "no tuning ≫ short"),
    ("full / short", "full / s2", "short > S²"),
    (LORA, "LoRA r=8 + norm", "LoRA > + norm"),
    ("LoRA r=8 + norm", "LoRA r=8 + embed", "+ norm > + embed"),
    ("LoRA r=8 + embed", BOTH, "+ embed > + norm + embed"),
]
CLOSE = [
    ("full / s2", "full / full attention", "S² ≈ full attention"),
    (BOTH, "full / s2", "LoRA + norm + embed ≈ full fine-tuning"),
    ("LoRA r=64", LORA, "rank 64 ≈ rank 8"),
    ("full / s2, G = N/2", "full / s2", "G = N/2 ≈ N/4"),
    ("full / s2, G = N/8", "full / s2", "G = N/8 against N/4"),
    (BOTH + ", full attention in the last 20 %", BOTH, "full attention in the last 20 % of the steps"),
]
COLOURS = ["#1b6ca8", "#c44536", "#3a7d44", "#8e5ea2", "#e0a030", "#555555"]


def interval(values):
    """Mean and half-width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


class Results:
    def __init__(self, path):
        self.raw = json.load(open(path))
        self.seeds = sorted(int(k.split("/")[1]) for k in self.raw if k.startswith("base/") and k != "base/100")
        runs = [k.split("/", 2) for k in self.raw if k.startswith("run/")]
        counts = collections.Counter(v for _, _, v in runs)
        # Only what every seed has.
        self.variants = [v for v in dict.fromkeys(v for _, _, v in runs) if counts[v] == len(self.seeds)]

    def values(self, variant, what="at 1024"):
        if variant == "untuned":
            key = {"at 1024": "untuned at 1024", "at 256": "untuned at 256, scaled to 1024"}[what]
            return [self.raw[f"base/{s}"][key] for s in self.seeds]
        return [self.raw[f"run/{s}/{variant}"][what] for s in self.seeds]

    def curve(self, variant):
        curves = [self.raw[f"run/{s}/{variant}"]["curve"] for s in self.seeds]
        return [(points[0][0], statistics.mean(p[1] for p in points)) for points in zip(*curves)]


def plot(path, title, x_label, y_label, lines):
    """One SVG of polylines: {name: [(x, y)]}."""
    width, height, left, bottom, top, right = 720, 400, 64, 46, 34, 16
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    y0, y1 = y0 - 0.05 * (y1 - y0), y1 + 0.05 * (y1 - y0)
    px = lambda x: left + (x - x0) / (x1 - x0) * (width - left - right)
    py = lambda y: height - bottom - (y - y0) / (y1 - y0) * (height - bottom - top)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="20" font-size="14">{title}</text>']
    for i in range(6):
        y, x = y0 + (y1 - y0) * i / 5, x0 + (x1 - x0) * i / 5
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{py(y):.1f}" y2="{py(y):.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{y:.1f}</text>'
                   f'<text x="{px(x):.1f}" y="{height - bottom + 16}" text-anchor="middle">{x:.0f}</text>')
    out.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">{x_label}</text>'
               f'<text x="14" y="{height / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {height / 2:.0f})">{y_label}</text>')
    for (name, points), colour in zip(lines.items(), COLOURS):
        row = list(lines).index(name)
        path_points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{path_points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                   f'<rect x="{width - 250}" y="{top + 4 + 18 * row}" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{width - 232}" y="{top + 14 + 18 * row}">{name.replace("&", "&amp;").replace("<", "&lt;")}</text>')
    out.append("</svg>\n")
    open(path, "w").write("\n".join(out))


def table(results):
    rows = ["| variant | perplexity at 1,024 | at 256 |", "|---|---|---|"]
    for variant in ["untuned", *results.variants]:
        cells = []
        for what in ("at 1024", "at 256"):
            mean, half = interval(results.values(variant, what))
            cells.append(f"{mean:.2f} ± {half:.2f}")
        rows.append(f"| {'no tuning (Position Interpolation alone)' if variant == 'untuned' else variant} | {cells[0]} | {cells[1]} |")
    return rows


def verdicts(results):
    rows = ["| the paper | difference here | shown? |", "|---|---|---|"]
    known = {"untuned", *results.variants}
    for worse, better, words in ORDERS:
        if not {worse, better} <= known:
            continue
        mean, half = interval([a - b for a, b in zip(results.values(worse), results.values(better))])
        shown = "yes" if mean - half > 0 else "the other way round" if mean + half < 0 else "no: the interval holds zero"
        rows.append(f"| {words} | {mean:+.3f} ± {half:.3f} | {shown} |")
    return rows


def differences(results):
    rows = ["| pair | difference (first − second) | relative |", "|---|---|---|"]
    known = {"untuned", *results.variants}
    for first, second, words in CLOSE:
        if not {first, second} <= known:
            continue
        a, b = results.values(first), results.values(second)
        mean, half = interval([x - y for x, y in zip(a, b)])
        rows.append(f"| {words} | {mean:+.3f} ± {half:.3f} | {100 * mean / statistics.mean(b):+.2f} % |")
    return rows


def main():
    results = Results(sys.argv[1])
    folder = sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    plot(os.path.join(folder, "paper-in-small-steps.svg"), "Perplexity at 1,024 tokens while tuning (held-out text, full attention)", "step", "perplexity",
         {name: results.curve(name) for name in ("full / full attention", "full / s2", "full / short", BOTH, LORA) if name in results.variants})
    base, base_half = interval([results.raw[f"base/{s}"]["at 256"] for s in results.seeds])
    sweep = [
        (*k.split("/", 1)[1].rsplit("/", 1), v["at 1024"]) for k, v in results.raw.items() if k.startswith("sweep/")]
    page = [
        "# LongLoRA's tables in small",
        "<!-- made by tests/paper/report.py from measured results; do not edit -->",
        "```",
        "build/venv/bin/python tests/paper/study.py --trainer build/bin/ll-trainer --text BIBLE.txt --out DIR && python3 tests/paper/report.py DIR/results.json docs/results/",
        "```",
        "A Llama of 2.2 million parameters (4 layers, 192 wide, 6 query and 2 key/value heads, untied head, 1,024 pieces of vocabulary) is pre-trained",
        "at 256 tokens for 1,200 steps of 4,096 tokens on the King James Bible, then extended to 1,024 by Position Interpolation in 200 steps",
        f"of 8,192 tokens. Perplexity is measured with full attention on the last twentieth of the text, which no run sees. {len(results.seeds)} seeds, each with",
        "a base model of its own; ± is the 95 % interval of the mean (Student's t). The paper's models have 7 billion parameters: what is compared is the",
        "order of the rows, not their size.",
        "",
        f"The base at its own 256 tokens: {base:.2f} ± {base_half:.2f}.",
        "",
        "## Every way to extend it",
        *table(results),
        "",
        "## The paper's orders",
        "Differences are paired by seed; positive: the first is worse, as in the paper.",
        "",
        *verdicts(results),
        "",
        "## What is close",
        *differences(results),
        "",
        "![perplexity by step](paper-in-small-steps.svg)",
        "",
    ]
    if sweep:
        page += ["## Learning rates", "Chosen on seed 100, which is no seed of the study, by perplexity at 1,024:", "", "| method | learning rate | perplexity |", "|---|---|---|"]
        page += [f"| {variant} | {lr} | {value:.2f} |" for variant, lr, value in sorted(sweep, key=lambda s: (s[0], float(s[1])))]
        page.append("")
    page += ["Not measured: attention patterns across layers and single patterns (the trainer has none), models of the paper's size."]
    open(os.path.join(folder, "paper-in-small.md"), "w").write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
