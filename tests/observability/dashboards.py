"""deploy/grafana's dashboards as tests see them: their panels, and their queries with the variables filled in."""
import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy/grafana"
# What a CPU cluster without faults and without TLS does not show. These queries run against synthetic().
SYNTHETIC = {
    ("ll-job", "MFU"): "no peak FLOP/s is known of a CPU",
    ("ll-job", "Guards"): "no step of the test's training is caught by a guard",
    ("ll-cluster", "GPU utilization"): "needs a GPU", ("ll-cluster", "GPU power"): "needs a GPU", ("ll-cluster", "GPU energy"): "needs a GPU",
    **{("ll-rank", title): "needs a GPU" for title in
       ("Utilization", "Memory in use", "Power", "Clock", "Temperature", "Throttled", "Memory errors", "Energy")},
    ("ll-cluster", "Alerts"): "nothing is wrong with the test's cluster; the page tells of a GPU that is too hot",
    ("ll-service", "Certificates"): "TLS is off on loopback",
}
GAUGES = {  # values by metric and labels; `worker` comes from the target, as for an agent
    'll_train_mfu_ratio{job_id="job-synthetic"}': 0.41,
    'll_rank_gpu_info{attempt="1",gpu="0",job_id="job-synthetic",rank="0"}': 1,
    'll_gpu_utilization_ratio{gpu="0"}': 0.9, 'll_gpu_memory_used_bytes{gpu="0"}': 6e10, 'll_gpu_memory_size_bytes{gpu="0"}': 8e10,
    'll_gpu_power_watts{gpu="0"}': 500, 'll_gpu_clock_hertz{gpu="0"}': 1.98e9, 'll_gpu_temperature_celsius{gpu="0"}': 61,
    'll_gpu_throttled{gpu="0",reason="power"}': 0, 'll_gpu_throttled{gpu="0",reason="thermal"}': 1,
    'll_certificate_expiry_time_seconds{file="tls_cert"}': 4e9,
}
COUNTERS = {'ll_train_guard_total{action="skip",job_id="job-synthetic",kind="nan"}': 1, 'll_gpu_energy_joules_total{gpu="0"}': 1000,
            'll_gpu_ecc_errors_total{gpu="0"}': 0}


def synthetic():
    """A page of metrics that only GPUs, faults and TLS bring, in Prometheus's text format."""
    lines = []
    for kind, values in (("gauge", GAUGES), ("counter", COUNTERS)):
        for series, value in values.items():
            name = series.partition("{")[0]
            lines += [f"# TYPE {name} {kind}"] * (f"# TYPE {name} {kind}" not in lines) + [f"{series} {value}"]
    return "\n".join(lines) + "\n"


def boards():
    return [json.loads(file.read_text()) for file in sorted((FOLDER / "dashboards").glob("*.json"))]


def panels(board):
    """Those that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def fill_in(query, values):
    """A query with Grafana's variables replaced, as its Prometheus data source does."""
    for name, value in {"__rate_interval": "4m", **values}.items():
        query = re.sub(rf"\$(\{{{name}\}}|{name}\b)", lambda _: value, query)
    assert "$" not in query, query
    return query
