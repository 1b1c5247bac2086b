#!/usr/bin/env python3
"""What the service reaches, by one command: durable submits over TLS with tokens and the audit log, what they cost, cold forecasts,
llctl, memory, and the restart with a full queue.

  tests/bench/service.py [--build build] [--seconds 10] [--clients 8] [--dir FOLDER] [--record FILE] [--skip restart,…]

Needs an otherwise idle machine to mean anything. FOLDER (default: the system's temporary one) is on the disk that counts. perf, where
it is there and may count system calls, tells the fsyncs; otherwise they are the store's transactions, one each. All values of what a
p99 is told of go to FILE.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
         "hidden_act": "silu"}
LARGE = {**SMALL, "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
         "num_key_value_heads": 8, "max_position_embeddings": 4096}  # Llama 2 70B
TICKS = os.sysconf("SC_CLK_TCK")
DEADLINE_S = 120


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class Service:
    def __init__(self, a, folder):
        self.bin, self.root, self.bench = a.build / "bin", folder, a.build / "bench/submit_bench"
        pki = self.root / "pki"
        self.run("ll-coordinator", "pki", "init", "--dir", pki)
        self.run("ll-coordinator", "pki", "issue", "--dir", pki, "--server", "localhost,127.0.0.1")
        self.ca, tokens = pki / "ca.crt", self.root / "tokens"
        self.token = self.run("llctl", "token", "create", "--tokens", tokens, "--user", "bench", "--scopes", "read,submit,cancel,admin").strip()
        self.flags = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.root / "data", "--tls-cert", pki / "server.crt",
                      "--tls-key", pki / "server.key", "--tls-client-ca", pki / "ca.crt", "--tokens", tokens]
        (self.root / "data.bin").write_bytes(bytes(65536))
        for name, config in (("small", SMALL), ("large", LARGE)):
            (self.root / name).mkdir()
            (self.root / name / "config.json").write_text(json.dumps(config))
        self.start()
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LLCTL_TOKEN": self.token, "LLCTL_CA": str(self.ca),
                            "LLCTL_COORDINATOR": self.grpc}

    def run(self, program, *arguments, env=None):
        done = subprocess.run([self.bin / program, *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S,
                              env=env or {"PATH": os.environ["PATH"], "HOME": str(self.root)})
        if done.returncode != 0:
            raise SystemExit(f"{program} {arguments}: {done.stdout[-500:]}{done.stderr[-1500:]}")
        return done.stdout

    def start(self):
        self.process = subprocess.Popen([self.bin / "ll-coordinator", *map(str, self.flags)], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        told = dict(part.split("=", 1) for part in line.split() if "=" in part)
        self.grpc, self.http = told["grpc"], told["http"]

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def llctl(self, *arguments):
        return self.run("llctl", *arguments, env=self.environment)

    def timed(self, trials, *arguments):
        """Milliseconds of each whole process."""
        out = []
        for _ in range(trials):
            began = time.monotonic()
            self.llctl(*arguments)
            out.append(1000 * (time.monotonic() - began))
        return out

    def rss_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6

    def metric(self, name):
        page = urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10).read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(re.escape(name) + "[ {]", line)
                   ) if "{" not in name else next((float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name)), 0.0)

    def cpu(self):
        """(user, system) seconds of the coordinator."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) / TICKS, int(fields[12]) / TICKS

    def threads(self):
        """CPU seconds by the name of the thread."""
        out = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                name, fields = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            fields = fields.split()
            out[name] = out.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICKS
        return out

    def clients(self, count, *arguments):
        """Runs so many clients at once; what each of them told."""
        made = [subprocess.Popen([self.bench, "--coordinator", self.grpc, "--ca", self.ca, *map(str, arguments)], env=self.environment,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        for client in made:
            if client.stdout.readline() != "ready\n":
                raise SystemExit("submit_bench did not begin")
        for client in made:
            client.stdin.write("go\n")
            client.stdin.flush()
        told = [json.loads(client.stdout.readline()) for client in made]
        for client in made:
            client.stdin.close()
            if client.wait(DEADLINE_S) != 0:
                raise SystemExit("submit_bench failed")
        return told


class Syncs:
    """Counts a process' fsyncs by perf, where that may be had."""

    def __init__(self, pid):
        self.perf = None
        if shutil.which("perf"):
            self.perf = subprocess.Popen(["perf", "stat", "-x", ",", "-e", "syscalls:sys_enter_fdatasync,syscalls:sys_enter_fsync", "-p", str(pid)],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.5)

    def count(self):
        """None: not known."""
        if self.perf is None or self.perf.poll() is not None:
            return None
        self.perf.send_signal(2)
        counts = [line.split(",")[0] for line in self.perf.communicate(timeout=30)[1].splitlines()]
        numbers = [int(count) for count in counts if count.isdigit()]
        return sum(numbers) if len(numbers) == 2 else None


def cold_forecasts(service, out):
    told = service.clients(1, "--model", service.root / "large", "--data", service.root / "data.bin", "--distinct", "--calls", 200)[0]
    out["cold_forecast"] = {"ms": told["ms"], "p50_ms": quantile(told["ms"], 0.5), "p99_ms": quantile(told["ms"], 0.99), "target_ms": 80,
                            "misses": service.metric('ll_forecast_cache_lookups_total{result="miss"}')}


def throughput(service, a, out):
    hit, miss = 'll_forecast_cache_lookups_total{result="hit"}', 'll_forecast_cache_lookups_total{result="miss"}'
    before = {name: service.metric(name) for name in (hit, miss, "ll_store_commit_seconds_count")}
    cpu, threads, syncs = service.cpu(), service.threads(), Syncs(service.process.pid)
    began = time.monotonic()
    told = service.clients(a.clients, "--model", service.root / "small", "--data", service.root / "data.bin", "--seconds", a.seconds)
    wall = time.monotonic() - began
    synced, after = syncs.count(), {name: service.metric(name) for name in before}
    grown = {name: after[name] - before[name] for name in before}
    used = [now - then for now, then in zip(service.cpu(), cpu)]
    by_thread = {name: round(now - threads.get(name, 0), 2) for name, now in sorted(service.threads().items(), key=lambda item: -item[1])}
    ms = [value for client in told for value in client["ms"]]
    seconds = max(client["seconds"] for client in told)
    lines = [json.loads(line) for line in (service.root / "data/audit.jsonl").read_text().splitlines()]
    audited = sum(line["method"].endswith("/Submit") for line in lines)
    if audited < len(ms):
        raise SystemExit(f"{audited} lines in the audit log of {len(ms)} submits")
    out["submits"] = {
        "clients": a.clients, "seconds": seconds, "calls": len(ms), "per_second": len(ms) / seconds, "target_per_second": 3000,
        "p50_ms": quantile(ms, 0.5), "p99_ms": quantile(ms, 0.99), "target_p99_ms": 10, "max_ms": max(ms), "ms": ms,
        "transactions_per_second": grown["ll_store_commit_seconds_count"] / wall, "fsyncs_per_second": None if synced is None else synced / wall,
        "forecast_cache_hit_ratio": grown[hit] / max(1, grown[hit] + grown[miss]),
        "cpu_seconds": {"coordinator_user": used[0], "coordinator_system": used[1], "clients": sum(client["cpu_seconds"] for client in told),
                        "coordinator_threads": {name: value for name, value in by_thread.items() if value >= 0.05}}}


def command_line(service, out):
    submit = ("submit", "--model", service.root / "small", "--data", service.root / "data.bin", "--ctx", 8192)
    service.timed(5, *submit)
    ms = service.timed(100, *submit)
    out["llctl_submit"] = {"ms": ms, "p50_ms": quantile(ms, 0.5), "p99_ms": quantile(ms, 0.99), "target_ms": 20}


def listing(service, out):
    jobs = int(service.metric("ll_jobs"))
    if jobs < 10_000:
        service.clients(8, "--model", service.root / "small", "--data", service.root / "data.bin", "--calls", (10_000 - jobs) // 8 + 1)
    ms = service.timed(100, "list", "--limit", 10_000)
    rows = len(service.llctl("list", "--limit", 10_000, "-o", "name").split())
    out["llctl_list"] = {"rows": rows, "ms": ms, "p50_ms": quantile(ms, 0.5), "p99_ms": quantile(ms, 0.99), "target_ms": 100}


def restart(a, out):
    environment = dict(os.environ, LL_CHAOS="full")
    done = subprocess.run([a.build / "tests/chaos_test", "--gtest_filter=*ServesSoonAfterAKill*"], env=environment, capture_output=True, text=True,
                          timeout=900)
    notes = [json.loads(line.removeprefix("CHAOS ")) for line in done.stdout.splitlines() if line.startswith("CHAOS ")]
    if not notes:
        raise SystemExit(done.stdout[-3000:])
    seconds = notes[0]["seconds_to_serving"]
    out["restart"] = {"queued": notes[0]["queued"], "running": notes[0]["running"], "seconds": seconds, "p50_s": quantile(seconds, 0.5),
                      "max_s": max(seconds), "target_s": 1, "rss_mb": notes[0]["rss_mb"]}


def show(out):
    rows = []
    if "idle" in out:
        rows.append(("coordinator's memory, idle", f"{out['idle']['rss_mb']:.1f} MB", "<= 50 MB"))
    if "cold_forecast" in out:
        cold = out["cold_forecast"]
        rows.append((f"submit with a cold forecast (70B, {len(cold['ms'])} trials)", f"p50 {cold['p50_ms']:.1f} ms, p99 {cold['p99_ms']:.1f} ms", "<= 80 ms"))
    if "llctl_submit" in out:
        llctl = out["llctl_submit"]
        rows.append((f"llctl submit, whole process ({len(llctl['ms'])} trials)", f"p50 {llctl['p50_ms']:.1f} ms, p99 {llctl['p99_ms']:.1f} ms", "<= 20 ms"))
    if "submits" in out:
        s, cpu = out["submits"], out["submits"]["cpu_seconds"]
        fsyncs = "not counted" if s["fsyncs_per_second"] is None else f"{s['fsyncs_per_second']:.0f}/s"
        rows += [(f"durable submits, TLS, tokens, audit log, {s['clients']} clients", f"{s['per_second']:.0f}/s", ">= 3,000/s"),
                 ("... how long one takes", f"p50 {s['p50_ms']:.2f} ms, p99 {s['p99_ms']:.2f} ms, most {s['max_ms']:.1f} ms", "p99 <= 10 ms"),
                 ("... transactions, fsyncs", f"{s['transactions_per_second']:.0f}/s, {fsyncs}", ""),
                 ("... forecasts that were remembered", f"{100 * s['forecast_cache_hit_ratio']:.2f} %", ""),
                 ("... CPU seconds", f"coordinator {cpu['coordinator_user']:.1f} user + {cpu['coordinator_system']:.1f} system, clients {cpu['clients']:.1f}", ""),
                 ("... coordinator's, by thread", ", ".join(f"{name} {value:.1f}" for name, value in cpu["coordinator_threads"].items()), "")]
    if "llctl_list" in out:
        llctl = out["llctl_list"]
        rows.append((f"llctl list of {llctl['rows']:,} ({len(llctl['ms'])} trials)", f"p50 {llctl['p50_ms']:.1f} ms, p99 {llctl['p99_ms']:.1f} ms", "<= 100 ms"))
    if "restart" in out:
        r = out["restart"]
        rows.append((f"serving after kill -9, {r['queued']:,} queued, {r['running']:,} running ({len(r['seconds'])} trials)",
                     f"p50 {r['p50_s']:.2f} s, most {r['max_s']:.2f} s", "<= 1 s"))
    wide = max(len(row[0]) for row in rows)
    for what, measured, target in rows:
        print(f"{what:{wide}}  {measured}{'   target ' + target if target else ''}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    ap.add_argument("--seconds", type=float, default=10)
    ap.add_argument("--clients", type=int, default=8)
    ap.add_argument("--dir")
    ap.add_argument("--record")
    ap.add_argument("--skip", default="")
    a = ap.parse_args()
    a.build = a.build.resolve()
    skip = set(filter(None, a.skip.split(",")))
    out = {"time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "cpus": os.cpu_count(),
           "load_before": os.getloadavg()[0],
           "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()}
    with tempfile.TemporaryDirectory(prefix="ll-service-bench-", dir=a.dir) as folder:
        service = Service(a, pathlib.Path(folder))
        try:
            service.llctl("list")
            time.sleep(3)
            out["idle"] = {"rss_mb": service.rss_mb(), "target_mb": 50}
            for name, step in (("cold", lambda: cold_forecasts(service, out)), ("llctl", lambda: command_line(service, out)),
                               ("list", lambda: listing(service, out)), ("submits", lambda: throughput(service, a, out))):
                if name not in skip:
                    step()
        finally:
            service.stop()
    if "restart" not in skip:
        restart(a, out)
    show(out)
    if a.record:
        with open(a.record, "a") as f:
            f.write(json.dumps(out) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
