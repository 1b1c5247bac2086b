#!/usr/bin/env python3
"""What docs/results/chaos.jsonl holds, as the table of docs/reliability.md.

  tests/chaos/report.py            # prints the table
  tests/chaos/report.py --update   # and puts it into the page
  tests/chaos/report.py --check    # exit code 1 where the page's is another
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDS, PAGE = ROOT / "docs/results/chaos.jsonl", ROOT / "docs/reliability.md"
BEGIN, END = "<!-- measured: tests/chaos/report.py -->\n", "<!-- end -->\n"
SUMS = {"R1": ("acknowledged", "kills", "lost", "doubled", "reused_ids"), "R19": ("operations", "kills", "anomalies"),
        "R12": ("jumps", "expired", "relaunches"), "R10": ("refused_while_full", "kept"),
        "R10a": ("refused_while_broken", "healed", "kept"), "R24": ("jobs",), "R9": ("tests",), "R11": ("cuts",),
        "R13": ("tests",), "R20": ("inputs",)}


def facts(target, notes):
    """Sums over all runs, or the worst of them."""
    if target in SUMS:
        out = [f"{sum(note[key] for note in notes):,} {key.replace('_', ' ')}" for key in SUMS[target]]
    elif target == "R2":
        times = sorted(t for note in notes for t in note["seconds_to_serving"])
        last = notes[-1]
        out = [f"{last['queued']:,} queued and {last['running']:,} running: serving after {times[0]:.2f} to {times[-1]:.2f} s ({len(times)} kills), "
               f"{last['rss_mb']} MB, no rank started or ended; ranks are stand-ins in the test's own process, connections and store are real"]
    elif target == "R4":
        times = sorted(t for note in notes for t in note["seconds"])
        out = [f"{len(times)} kills of a rank: noticed after {1000 * times[len(times) // 2]:.0f} ms p50, "
               f"{1000 * times[min(len(times) - 1, len(times) * 99 // 100)]:.0f} ms p99"]
    elif target == "R4a":
        out = [f"{sum(n['pauses'] for n in notes)} pauses of {notes[-1]['pause_seconds']:.0f} s, with a lease of 1 s and an idle host: "
               f"{sum(n['alarms'] for n in notes)} alarms"]
    elif target == "R6":
        minutes = sum(note["minutes"] for note in notes)
        goodput = sum(note["goodput"] * note["minutes"] for note in notes) / minutes
        out = [f"{minutes:.0f} minutes, 8 ranks, {sum(sum(note['faults'].values()) for note in notes)} faults: goodput {100 * goodput:.1f} %; the newest run, "
               f"{notes[-1]['minutes']:.0f} minutes: {100 * notes[-1]['goodput']:.1f} %"]
    elif target == "R14a":
        last = notes[-1]
        out = [f"{last['readers']} readers behind 64 kbit/s: others' calls (a program each) p99 {last['p99_ms_beside']} ms beside them, {last['p99_ms_alone']} ms alone; "
               f"{sum(n['resets'] for n in notes)} resets, every step told once; a silent reader let go after {last['let_go_after_s']} s"]
    elif target == "R22":
        seen = [json.loads(note["upgrade"]) for note in notes]
        out = ["; ".join(f"{one['store']}: {', '.join(one['seen'])}" for one in seen[-2:])]
    elif target == "R13a":
        out = [f"{sum(n['away_seconds'] for n in notes) / 60:.0f} minutes without a coordinator: {sum(n['stopped_ranks'] for n in notes)} ranks stopped"]
    elif target == "R23":
        last = notes[-1]
        out = [f"{sum(n['fires'] for n in notes)} fires in {sum(n['simulated_hours'] for n in notes):.0f} simulated hours, {sum(n['kills'] for n in notes)} "
               f"kills, {sum(n['missed_or_doubled'] for n in notes)} missed or doubled; coordinator {last['coordinator_grown_mb']:+.1f} MB and "
               f"{last['coordinator_grown_fds']:+d} descriptors, agent {last['agent_grown_mb']:+.1f} MB and {last['agent_grown_fds']:+d}"]
    else:
        last = notes[-1]
        out = [f"{last['readers']} readers: {max(n['grown_mb'] for n in notes):.0f} MB more at most; others' calls p99 {last['p99_ms_alone']:.0f} ms alone, "
               f"{last['p99_ms_beside']:.0f} ms beside them"]
    return ", ".join(out)


def table():
    notes = {}
    for line in RECORDS.read_text().splitlines():
        note = json.loads(line)
        if note["full"]:
            notes.setdefault(note["target"], []).append(note)
    lines = ["| target | runs, passed | hours | commits | newest | measured |", "|---|---|---|---|---|---|"]
    for target in sorted(notes, key=lambda t: (int(re.search(r"\d+", t)[0]), t)):
        of = notes[target]
        hours = sum(note["test_seconds"] for note in of) / 3600
        lines.append(f"| {target} | {len(of)}, {sum(note['passed'] for note in of)} | {hours:.2f} | {len({n['commit'] for n in of})} | {of[-1]['time'][:10]} "
                     f"| {facts(target, of)} |")
    return "\n".join(lines) + "\n"


def main():
    made = table()
    page = PAGE.read_text()
    begin = page.index(BEGIN) + len(BEGIN)
    end = page.index(END, begin)
    if "--check" in sys.argv:
        if page[begin:end] != made:
            print("docs/reliability.md is stale: tests/chaos/report.py --update", file=sys.stderr)
            return 1
        return 0
    if "--update" in sys.argv:
        PAGE.write_text(page[:begin] + made + page[end:])
    print(made, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
