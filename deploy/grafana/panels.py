"""What the dashboards show, as data: generate.py makes Grafana's JSON of it.

A panel: title, description, unit (Grafana's name), queries as "EXPR" or ("EXPR", "LEGEND"). Metrics: docs/monitoring.md.
"""
GOOD_HIGH = lambda warn, ok: [("bad", None), ("warn", warn), ("ok", ok)]
GOOD_LOW = lambda warn, bad: [("ok", None), ("warn", warn), ("bad", bad)]
TO_QUEUE = ("Queue ${__data.fields.queue}", "ll-queue", "var-queue=${__data.fields.queue}")
TO_JOB = ("Job ${__data.fields.job_id}", "ll-job", "var-job_id=${__data.fields.job_id}")
TO_RANKS = ("Ranks and GPUs of the job", "ll-rank", "var-job_id=${job_id}")
VERDICTS = [{"type": "value", "options": {"0": {"text": "regressed or failed", "color": "red"}, "1": {"text": "same", "color": "green"},
                                          "2": {"text": "better", "color": "blue"}}}]


def panel(kind, title, description, unit, *queries, **more):
    return {"type": kind, "title": title, "description": description, "unit": unit, "queries": queries, **more}


def stat(*args, **more):
    return panel("stat", *args, **{"width": 4, "height": 4, **more})


def graph(*args, **more):
    return panel("timeseries", *args, **more)


def table(*args, **more):
    return panel("table", *args, **{"width": 24, "height": 9, **more})


def of_gpus(expr):
    """The series of the GPUs on which the chosen ranks run, with job_id and rank."""
    return f'{expr} * on (worker, gpu) group_left (job_id, rank) ll_rank_gpu_info{{job_id="$job_id", rank=~"$rank"}}'


JOB_TABLE = table(
    "Jobs that hold slots", "One line a job, with what its newest step told. The link leads to the job.", "short",
    'max by (job_id, name, kind, model, method, queue, attempt) (ll_job_info{queue=~"$queue"})',
    'max by (job_id) (ll_train_step) and on (job_id) ll_job_info{queue=~"$queue"}',
    'max by (job_id) (ll_train_loss) and on (job_id) ll_job_info{queue=~"$queue"}',
    'max by (job_id) (ll_train_tokens_per_second) and on (job_id) ll_job_info{queue=~"$queue"}',
    'max by (job_id) (ll_job_goodput_ratio) and on (job_id) ll_job_info{queue=~"$queue"}',
    columns=["running", "step", "loss", "tokens/s", "goodput"], links=[TO_JOB])

CLUSTER = {
    "uid": "ll-cluster", "title": "ll / Cluster", "range": "6h", "variables": [("queue", "label_values(ll_queue_weight, queue)", "Queue", True)],
    "description": "Is the cluster well, is it busy, who waits? From here to a queue, a job, its ranks.",
    "rows": [
        ("Now", [
            stat("Alerts that fire", "Alerts of this service; the annotations name them.", "short",
                 'count(ALERTS{alertstate="firing", alertname=~"Ll.*"}) or vector(0)', steps=GOOD_LOW(1, 3)),
            stat("Running", "Jobs whose ranks all train.", "short", 'sum(ll_jobs{state="RUNNING"})'),
            stat("Waiting", "Jobs that wait for slots.", "short", 'sum(ll_jobs{state="QUEUED"})'),
            stat("Slots in use", "Share of the slots in contact that a rank holds.", "percentunit",
                 'sum(ll_slots{state="busy"}) / (sum(ll_slots{state!="lost"}) > 0)', max=1, min=0),
            stat("Goodput", "Share of the held slot time of the last hour that went into steps done for the first time.", "percentunit",
                 "cluster:ll_slots_trained:ratio1h", steps=GOOD_HIGH(0.6, 0.85), max=1, min=0),
            stat("Workers in contact", "Share of the registered workers that the coordinator hears.", "percentunit", "avg(ll_worker_up)",
                 steps=GOOD_HIGH(0.5, 0.99), max=1, min=0),
        ]),
        ("Alerts", [
            table("Alerts", "What fires, and for which job, queue, worker or process. Empty: nothing does. What to do: docs/runbooks.md.", "short",
                  'max by (alertname, severity, job_id, queue, worker, schedule, instance) (ALERTS{alertstate="firing", alertname=~"Ll.*"})',
                  columns=["firing"], hide=["Value"], height=6, links=[TO_JOB]),
        ]),
        ("Work", [
            graph("Jobs by state", "Jobs that have not ended.", "short", ('sum by (state) (ll_queue_jobs{queue=~"$queue"})', "{{state}}"), stack=True),
            graph("Slots by state", "lost: the worker is out of contact; cordoned: it takes no new gang.", "short",
                  ("sum by (state) (ll_slots)", "{{state}}"), stack=True),
            graph("Throughput", "Tokens trained per second by all jobs.", "short", ("cluster:ll_train_tokens:rate5m", "tokens/s")),
            graph("Goodput", "Slot time that went into new steps, into repeated steps, and all that was held, as slots.", "short",
                  ("sum(rate(ll_slots_held_seconds_total[$__rate_interval]))", "held"),
                  ("sum(rate(ll_slots_trained_seconds_total[$__rate_interval]))", "new steps"),
                  ("sum(rate(ll_slots_repeated_seconds_total[$__rate_interval]))", "repeated steps")),
            graph("Attempts", "Attempts started, and attempts that were given up by reason, per hour.", "short",
                  ("sum(rate(ll_job_attempts_total[1h])) * 3600", "started"),
                  ("sum by (reason) (rate(ll_job_restarts_total[1h])) * 3600", "given up: {{reason}}")),
            graph("Ends", "Jobs that ended, by state and class of failure, per hour.", "short",
                  ("sum by (state, failure_class) (rate(ll_jobs_ended_total[1h])) * 3600", "{{state}} {{failure_class}}")),
        ]),
        ("Queues and jobs", [
            table("Queues", "What each queue holds and waits for. The link leads to the queue.", "short",
                  'max by (queue) (ll_queue_held_gpus{queue=~"$queue"})', 'max by (queue) (ll_queue_pending_gpus{queue=~"$queue"})',
                  'max by (queue) (ll_queue_oldest_wait_seconds{queue=~"$queue"})', 'max by (queue) (ll_queue_fair_share_ratio{queue=~"$queue"})',
                  columns=["GPUs held", "GPUs waited for", "oldest wait (s)", "share"], links=[TO_QUEUE], height=6),
            JOB_TABLE,
        ]),
        ("GPUs", [
            graph("GPU utilization", "Mean over the GPUs of each worker.", "percentunit",
                  ("avg by (worker) (ll_gpu_utilization_ratio)", "{{worker}}"), max=1, min=0),
            graph("GPU power", "Of all GPUs.", "watt", ("sum(ll_gpu_power_watts)", "power")),
            graph("GPU energy", "Used within the last hour.", "joule", ("sum(increase(ll_gpu_energy_joules_total[1h]))", "energy")),
        ]),
    ],
}

QUEUE = {
    "uid": "ll-queue", "title": "ll / Queue", "range": "24h", "variables": [("queue", "label_values(ll_queue_weight, queue)", "Queue", False)],
    "description": "What a queue holds, waits for and is owed. `llctl why JOB` says why one job waits.",
    "rows": [
        ("Now", [
            stat("GPUs held", "GPUs (on CPU workers: slots) of the queue's gangs.", "short", 'max(ll_queue_held_gpus{queue="$queue"})', width=3),
            stat("GPUs waited for", "What its QUEUED jobs ask for.", "short", 'max(ll_queue_pending_gpus{queue="$queue"})', width=3),
            stat("Free slots", "Of the whole cluster. A gang starts whole: where fewer are free than it asks for, they wait for it.", "short",
                 'sum(ll_slots{state="free"})', width=3),
            stat("Oldest wait", "Of its QUEUED jobs.", "s", 'max(ll_queue_oldest_wait_seconds{queue="$queue"})', steps=GOOD_LOW(4 * 3600, 12 * 3600), width=3),
            stat("Quota", "Beyond it the queue borrows.", "short", 'max(ll_queue_quota_gpus{queue="$queue"})', none="none", width=3),
            stat("Limit", "Never more.", "short", 'max(ll_queue_max_gpus{queue="$queue"})', none="none", width=3),
            stat("Weight", "Of two busy queues the one of weight 2 gets twice as much.", "short", 'max(ll_queue_weight{queue="$queue"})', width=3),
            table("Waits longest", "The queue's oldest QUEUED job and the GPUs it asks for, all at once; `llctl why JOB` says what it waits for. Empty: none waits.", "s",
                  'max by (job_id, gpus) (ll_queue_oldest_job_info{queue="$queue"}) * scalar(max(ll_queue_oldest_wait_seconds{queue="$queue"}))',
                  columns=["has waited"], height=4),
        ]),
        ("Over time", [
            graph("Jobs by state", "Of this queue.", "short", ('sum by (state) (ll_queue_jobs{queue="$queue"})', "{{state}}"), stack=True),
            graph("GPUs", "Held beside waited for.", "short", ('max(ll_queue_held_gpus{queue="$queue"})', "held"),
                  ('max(ll_queue_pending_gpus{queue="$queue"})', "waited for")),
            graph("Fair share", "Of every queue: held and lately used over its weight. The lowest with work is next.", "percentunit",
                  ("max by (queue) (ll_queue_fair_share_ratio)", "{{queue}}"), min=0),
            graph("Oldest wait", "How long the oldest QUEUED job has waited.", "s", ('max(ll_queue_oldest_wait_seconds{queue="$queue"})', "oldest"),
                  steps=GOOD_LOW(4 * 3600, 12 * 3600)),
            graph("Wait until the first start", "Nine in ten jobs of the cluster that started within the hour waited less.", "s",
                  ("cluster:ll_job_wait_seconds:p90_1h", "p90")),
        ]),
        ("Jobs", [JOB_TABLE]),
    ],
}

JOB = {
    "uid": "ll-job", "title": "ll / Job", "range": "6h", "variables": [("job_id", "label_values(ll_job_info, job_id)", "Job", False)],
    "description": "Does it learn, how fast, and will it survive a failure?", "alerts": ', job_id=~"$job_id|"',
    "rows": [
        ("Now", [
            stat("Step", "Newest optimizer step.", "short", 'max(ll_train_step{job_id="$job_id"})', links=[TO_RANKS]),
            stat("Loss", "Of the newest step.", "short", 'max(ll_train_loss{job_id="$job_id"})'),
            stat("Tokens per second", "All ranks.", "short", 'max(ll_train_tokens_per_second{job_id="$job_id"})'),
            stat("Goodput", "Share of its time with slots that went into new steps.", "percentunit", 'max(ll_job_goodput_ratio{job_id="$job_id"})',
                 steps=GOOD_HIGH(0.6, 0.85), max=1, min=0),
            stat("Unsaved", "Time since its newest checkpoint: what a failure would cost now.", "s",
                 'max(ll_job_checkpoint_age_seconds{job_id="$job_id"})', steps=GOOD_LOW(3600, 7200)),
            stat("Slowest rank", "Its compute time over the ranks' median. No data: one rank only.", "short",
                 'max(ll_train_straggler_score{job_id="$job_id"})', steps=GOOD_LOW(1.2, 1.5)),
            table("Who", "Name, model, method, queue and attempt.", "short",
                  'max by (job_id, name, kind, model, method, queue, attempt) (ll_job_info{job_id="$job_id"})', columns=["running"], height=4,
                  links=[TO_QUEUE]),
        ]),
        ("Learning", [
            graph("Loss", "Of each step, and its mean of five minutes.", "short", ('max(ll_train_loss{job_id="$job_id"})', "loss"),
                  ('max(job_id:ll_train_loss:avg5m{job_id="$job_id"})', "mean")),
            graph("Perplexity", "Of its evaluations.", "short", ('max(ll_eval_perplexity{job_id="$job_id"})', "perplexity")),
            graph("Effective context", "Longest prompt up to which the newest pass-key evaluation found its key, of each job.", "short",
                  ("max by (job_id) (ll_eval_effective_context_length)", "{{job_id}}")),
            graph("Gradient norm", "Before clipping.", "short", ('max(ll_train_grad_norm{job_id="$job_id"})', "norm"), log=True),
            graph("Learning rate", "Of the newest step.", "short", ('max(ll_train_learning_rate{job_id="$job_id"})', "rate")),
            graph("Guards", "Steps that a guard caught: no number, or a jump of the loss.", "short",
                  ('sum by (kind, action) (ll_train_guard_total{job_id="$job_id"})', "{{kind}}: {{action}}")),
        ]),
        ("Speed and memory", [
            graph("Throughput", "As the job tells it, beside its own median of six hours.", "short",
                  ('max(ll_train_tokens_per_second{job_id="$job_id"})', "tokens/s"),
                  ('max(job_id:ll_train_tokens_per_second:median6h{job_id="$job_id"})', "its median")),
            graph("MFU", "Share of the devices' peak FLOP/s that was used.", "percentunit", ('max(ll_train_mfu_ratio{job_id="$job_id"})', "MFU"),
                  max=1, min=0),
            graph("Phases of a step", "Rank 0; exchange is part of forward and backward.", "s",
                  ('max by (phase) (ll_rank_phase_seconds{job_id="$job_id", rank="0"})', "{{phase}}"), stack=True),
            graph("Memory", "Peak of rank 0 beside the forecast of its admission.", "bytes",
                  ('max(ll_train_peak_memory_bytes{job_id="$job_id"})', "peak"), ('max(ll_job_memory_forecast_bytes{job_id="$job_id"})', "forecast")),
            graph("Goodput", "Share of its time with slots that went into new steps.", "percentunit",
                  ('max(ll_job_goodput_ratio{job_id="$job_id"})', "goodput"), max=1, min=0),
            graph("Unsaved work", "Time since its newest checkpoint.", "s", ('max(ll_job_checkpoint_age_seconds{job_id="$job_id"})', "age"),
                  steps=GOOD_LOW(3600, 7200)),
        ]),
    ],
}

RANK = {
    "uid": "ll-rank", "title": "ll / Ranks and GPUs", "range": "3h",
    "variables": [("job_id", "label_values(ll_rank_step, job_id)", "Job", False),
                  ("rank", 'label_values(ll_rank_step{job_id="$job_id"}, rank)', "Rank", True)],
    "description": "Which rank, on which worker and GPU, is slow, full, hot or broken?", "alerts": ', job_id=~"$job_id|"',
    "rows": [
        ("Ranks", [
            graph("Straggler score", "Compute time over the ranks' median. No data: one rank only.", "short",
                  ('max by (rank, worker) (ll_rank_straggler_score{job_id="$job_id", rank=~"$rank"})', "{{rank}} on {{worker}}"), steps=GOOD_LOW(1.2, 1.5)),
            graph("Newest step", "A rank that falls behind or stands still.", "short",
                  ('max by (rank, worker) (ll_rank_step{job_id="$job_id", rank=~"$rank"})', "{{rank}} on {{worker}}")),
            graph("Events", "What the agent hears of each rank, per second; a rank that hangs says nothing.", "short",
                  ('sum by (rank, worker) (rate(ll_rank_events_total{job_id="$job_id", rank=~"$rank"}[$__rate_interval]))', "{{rank}} on {{worker}}")),
            graph("Time of a step", "As each rank tells it.", "s",
                  ('max by (rank, worker) (ll_rank_step_seconds{job_id="$job_id", rank=~"$rank"})', "{{rank}} on {{worker}}")),
            graph("Waiting for others", "High for all but one rank: that one is slow.", "s",
                  ('max by (rank, worker) (ll_rank_phase_seconds{job_id="$job_id", rank=~"$rank", phase="wait"})', "{{rank}} on {{worker}}")),
            graph("Computing", "Forward and backward.", "s",
                  ('sum by (rank, worker) (ll_rank_phase_seconds{job_id="$job_id", rank=~"$rank", phase=~"forward|backward"})', "{{rank}} on {{worker}}")),
            graph("Peak memory", "Of each rank.", "bytes",
                  ('max by (rank, worker) (ll_rank_peak_memory_bytes{job_id="$job_id", rank=~"$rank"})', "{{rank}} on {{worker}}")),
        ]),
        ("GPUs of these ranks", [
            graph("Utilization", "Share of the time in which a kernel ran.", "percentunit",
                  (of_gpus("ll_gpu_utilization_ratio"), "{{rank}}: {{worker}} GPU {{gpu}}"), max=1, min=0),
            graph("Memory in use", "The driver's own included.", "percentunit",
                  (of_gpus("(ll_gpu_memory_used_bytes / ll_gpu_memory_size_bytes)"), "{{rank}}: {{worker}} GPU {{gpu}}"), max=1, min=0, steps=GOOD_LOW(0.9, 0.97)),
            graph("Power", "What each GPU draws.", "watt", (of_gpus("ll_gpu_power_watts"), "{{rank}}: {{worker}} GPU {{gpu}}")),
            graph("Clock", "Of the streaming multiprocessors.", "hertz", (of_gpus("ll_gpu_clock_hertz"), "{{rank}}: {{worker}} GPU {{gpu}}")),
            graph("Temperature", "Of each GPU.", "celsius", (of_gpus("ll_gpu_temperature_celsius"), "{{rank}}: {{worker}} GPU {{gpu}}"),
                  steps=GOOD_LOW(80, 87)),
            graph("Throttled", "1 while the driver lowers the clocks.", "short",
                  (of_gpus("ll_gpu_throttled"), "{{reason}}: {{worker}} GPU {{gpu}}"), max=1, min=0),
            graph("Memory errors", "Uncorrected, since the driver was loaded.", "short",
                  (of_gpus("ll_gpu_ecc_errors_total"), "{{worker}} GPU {{gpu}}"), steps=[("ok", None), ("bad", 1)]),
            graph("Energy", "Of each GPU within the last hour.", "joule",
                  (of_gpus("increase(ll_gpu_energy_joules_total[1h])"), "{{rank}}: {{worker}} GPU {{gpu}}")),
        ]),
    ],
}

NIGHTLY = {
    "uid": "ll-nightly", "title": "ll / Nightly trends", "range": "30d",
    "variables": [("schedule", "label_values(ll_schedule_last_verdict, schedule)", "Schedule", True)],
    "description": "What the runs of schedules gave, night by night, and whether it is worse than it was.",
    "rows": [
        ("Newest runs", [
            stat("Verdict", "Of the newest judged run.", "short", ('max by (schedule) (ll_schedule_last_verdict{schedule=~"$schedule"})', "{{schedule}}"),
                 width=12, steps=[("bad", None), ("ok", 1)], mappings=VERDICTS),
            stat("Since the last good run", "A nightly's should stay below a day and a half.", "s",
                 ('max by (schedule) (time() - ll_schedule_last_success_time_seconds{schedule=~"$schedule"})', "{{schedule}}"), width=12,
                 steps=GOOD_LOW(30 * 3600, 36 * 3600)),
        ]),
        ("Trends", [
            graph("Final loss", "Of each judged run.", "short",
                  ('max by (schedule) (ll_schedule_last_final_loss{schedule=~"$schedule"})', "{{schedule}}"), width=12),
            graph("Perplexity", "Of each judged run.", "short",
                  ('max by (schedule) (ll_schedule_last_perplexity{schedule=~"$schedule"})', "{{schedule}}"), width=12),
            graph("Throughput", "Tokens per second of each judged run.", "short",
                  ('max by (schedule) (ll_schedule_last_tokens_per_second{schedule=~"$schedule"})', "{{schedule}}"), width=12),
            graph("Verdicts", "0 regressed or failed, 1 the same, 2 better.", "short",
                  ('max by (schedule) (ll_schedule_last_verdict{schedule=~"$schedule"})', "{{schedule}}"), width=12, max=2, min=0),
        ]),
    ],
}

SERVICE = {
    "uid": "ll-service", "title": "ll / Service", "range": "6h", "variables": [("worker", "label_values(ll_worker_build_info, worker)", "Worker", True)],
    "description": "The coordinator and the agents themselves: calls, decisions, the store, contact, processes, disks, certificates.",
    "rows": [
        ("Calls", [
            graph("Calls", "Finished calls per second by method.", "reqps", ("method:ll_rpc_requests:rate5m", "{{method}}")),
            graph("Errors", "Share that ended with a fault of the service.", "percentunit", ("method:ll_rpc_requests_failed:ratio5m", "{{method}}"),
                  max=1, min=0, steps=GOOD_LOW(0.01, 0.05)),
            graph("Duration", "Ninety-nine in a hundred calls were faster. Streams are left out.", "s", ("method:ll_rpc_seconds:p99_5m", "{{method}}"),
                  steps=GOOD_LOW(0.3, 1)),
        ]),
        ("Decisions and the store", [
            graph("Decisions", "Ninety-nine in a hundred took less.", "s", ("cluster:ll_scheduler_pass_seconds:p99_5m", "p99"), steps=GOOD_LOW(0.03, 0.1)),
            graph("Commits", "Ninety-nine in a hundred transactions were on the disk sooner.", "s", ("cluster:ll_store_commit_seconds:p99_5m", "p99"),
                  steps=GOOD_LOW(0.1, 0.25)),
            graph("Store", "1 while it can be used; transactions that failed.", "short", ("min(ll_coordinator_serving)", "serving"),
                  ("sum(increase(ll_store_commits_failed_total[$__rate_interval]))", "failed"), min=0),
        ]),
        ("Workers", [
            graph("In contact", "As the coordinator sees it.", "short", ('min by (worker) (ll_worker_up{worker=~"$worker"})', "{{worker}}"), max=1, min=0),
            graph("Headless", "1: the agent's lease has run out; its ranks train on.", "short",
                  ('max by (worker) (ll_worker_headless{worker=~"$worker"})', "{{worker}}"), max=1, min=0, steps=[("ok", None), ("bad", 1)]),
            graph("Reports that wait", "Facts that the coordinator has not made durable yet.", "short",
                  ('max by (worker) (ll_worker_unacknowledged_reports{worker=~"$worker"})', "{{worker}}"), min=0),
            graph("Checkpoints", "Per hour, by what became of them.", "short",
                  ('sum by (result) (rate(ll_worker_checkpoints_total{worker=~"$worker"}[1h])) * 3600', "{{result}}"), min=0),
            graph("Event lines lost", "Lines that were no events or found no space.", "short",
                  ('sum by (worker) (increase(ll_worker_dropped_event_lines_total{worker=~"$worker"}[1h]))', "{{worker}}"), min=0),
            table("Versions", "Of every process.", "short", "max by (instance, version) (ll_coordinator_build_info)",
                  "max by (instance, worker, version) (ll_worker_build_info)", columns=["coordinator", "agent"], width=8, height=8),
        ]),
        ("Processes", [
            graph("CPU", "Of each daemon, in cores.", "short", ('max by (instance) (rate(process_cpu_seconds_total{job=~"ll-.*"}[$__rate_interval]))', "{{instance}}"), min=0),
            graph("Memory", "Resident.", "bytes", ('max by (instance) (process_resident_memory_bytes{job=~"ll-.*"})', "{{instance}}"), min=0),
            graph("File descriptors", "Share of what the process may open.", "percentunit",
                  ('max by (instance) (process_open_fds{job=~"ll-.*"} / process_max_fds{job=~"ll-.*"})', "{{instance}}"), min=0, max=1,
                  steps=GOOD_LOW(0.7, 0.9)),
            graph("Uptime", "Since the process began.", "s", ('max by (instance) (time() - process_start_time_seconds{job=~"ll-.*"})', "{{instance}}"), min=0),
            graph("Free disk", "Of what each daemon writes to.", "percentunit",
                  ("min by (instance, disk) (ll_disk_free_bytes / ll_disk_size_bytes)", "{{disk}} of {{instance}}"), min=0, max=1,
                  steps=GOOD_HIGH(0.05, 0.15)),
            graph("Certificates", "Time until they end. No data: TLS is not in use.", "s",
                  ("min by (instance, file) (ll_certificate_expiry_time_seconds - time())", "{{file}} of {{instance}}"),
                  steps=GOOD_HIGH(14 * 86400, 30 * 86400)),
            graph("Scrapes", "Time that Prometheus needs to read a page.", "s", ('max by (instance) (scrape_duration_seconds{job=~"ll-.*"})', "{{instance}}"), min=0),
            graph("Series", "On each page.", "short", ('max by (instance) (scrape_samples_scraped{job=~"ll-.*"})', "{{instance}}"), min=0),
        ]),
    ],
}

DASHBOARDS = [CLUSTER, QUEUE, JOB, RANK, NIGHTLY, SERVICE]
