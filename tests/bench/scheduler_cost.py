#!/usr/bin/env python3
"""How the scheduler's cost grows with the cluster: runs build/bench/core_bench at rising sizes, prints a table and draws it.

  tests/bench/scheduler_cost.py [--sizes 1000,2000,5000,10000] [--svg docs/results/scheduler-cost.svg]

Sizes are workers of 8 slots, with ten queued jobs each. The dashed line grows with the size itself.
"""
import argparse
import math
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINE = re.compile(r"(\d+) jobs, (\d+) workers: (\d+) decisions, p50 ([\d.]+) ms, p99 ([\d.]+) ms, max ([\d.]+) ms; (\d+) placements "
                  r"in ([\d.]+) s, (\d+) a second; peak memory (\d+) MB")
COLOURS = ("#1f77b4", "#d62728", "#2ca02c")


def measure(bench, workers):
    out = subprocess.run([bench, str(10 * workers), str(workers)], stdout=subprocess.PIPE, text=True, check=True, timeout=1200).stdout
    jobs, _, decisions, p50, p99, largest, _, _, rate, memory = map(float, LINE.search(out).groups())
    return {"workers": workers, "jobs": jobs, "decisions": decisions, "p50": p50, "p99": p99, "max": largest, "rate": rate,
            "per placement": 1000 / rate, "memory": memory}


def draw(path, rows):
    width, height, left, top, bottom = 640, 380, 70, 34, 46
    series = {"ms a placement": "per placement", "p99 of a decision, ms": "p99"}
    xs = [r["workers"] for r in rows]
    ys = [r[k] for k in series.values() for r in rows]
    x0, x1 = math.log10(min(xs)) - 0.05, math.log10(max(xs)) + 0.05
    y0, y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    px = lambda x: left + (math.log10(x) - x0) / (x1 - x0) * (width - left - 20)
    py = lambda y: height - bottom - (math.log10(y) - y0) / (y1 - y0) * (height - bottom - top)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="20" font-size="14">The scheduler\'s cost, ten queued jobs a worker of 8 slots</text>']
    for power in range(y0, y1 + 1):
        out.append(f'<line x1="{left}" x2="{width - 20}" y1="{py(10 ** power):.1f}" y2="{py(10 ** power):.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{py(10 ** power) + 4:.1f}" text-anchor="end">{10 ** power:g} ms</text>')
    for x in xs:
        out.append(f'<text x="{px(x):.1f}" y="{height - bottom + 16}" text-anchor="middle">{x:,}</text>')
    out.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 10}" text-anchor="middle">workers</text>')
    first = rows[0]["per placement"]
    linear = " ".join(f"{px(x):.1f},{py(first * x / xs[0]):.1f}" for x in (xs[0], xs[-1]))
    out.append(f'<polyline points="{linear}" fill="none" stroke="#888" stroke-dasharray="5 4"/>')
    for i, ((name, key), colour) in enumerate(zip(series.items(), COLOURS)):
        points = " ".join(f"{px(r['workers']):.1f},{py(r[key]):.1f}" for r in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                   f'<rect x="{left + 20}" y="{top + 8 + 18 * i}" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{left + 38}" y="{top + 18 + 18 * i}">{name}</text>')
    out.append("</svg>\n")
    with open(path, "w") as f:
        f.write("\n".join(out))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--sizes", default="1000,2000,5000,10000")
    ap.add_argument("--bench", default=os.path.join(ROOT, "build", "bench", "core_bench"))
    ap.add_argument("--svg")
    a = ap.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f}", file=sys.stderr)
    rows = [measure(a.bench, int(size)) for size in a.sizes.split(",")]
    print("| queued × workers | decisions | p50, ms | p99, ms | max, ms | placements a second | peak MB |\n|---|---|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['jobs']:,.0f} × {r['workers']:,} | {r['decisions']:,.0f} | {r['p50']:.3f} | {r['p99']:.2f} | {r['max']:.1f} | "
              f"{r['rate']:,.0f} | {r['memory']:.0f} |")
    if a.svg:
        draw(a.svg, rows)


if __name__ == "__main__":
    main()
