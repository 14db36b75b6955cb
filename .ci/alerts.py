"""What promtool does not look at: see `.ci/alerts`."""

import json
import re
import sys
from pathlib import Path

ALERTS = Path("deploy/prometheus/alerts.yaml")
TESTS = Path("deploy/prometheus/alerts_test.yaml")
DASHBOARD = Path("deploy/grafana/salla-reconciler.json")
RUNBOOK = Path("docs/runbook.md")

# Every replica tells the same of the same database: added up, it would be too much.
OF_THE_DATABASE = {
    "database_up", "runs_active", "runs_queued", "runs_due", "global_pause", "merchants", "merchants_overdue",
    "last_success_timestamp_seconds", "oldest_watermark_timestamp_seconds", "last_sweep_timestamp_seconds",
    "events_pending", "oldest_pending_event_timestamp_seconds", "replication_slot_lag_bytes",
}
PREFIX = "salla_reconciler_"
# Of every process, by the Prometheus client.
OF_THE_PROCESS = {
    "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds",
}

problems = []


def alerts():
    """Name, expression and the rest of each alert, as text: the standard library reads no YAML."""
    text = ALERTS.read_text()
    for rule in text.split("- alert: ")[1:]:
        name = rule.split("\n", 1)[0].strip()
        expression = re.search(r"expr: (?:>-\n)?(.*?)\n +(?:for|labels):", rule, re.S)
        yield name, expression.group(1) if expression else "", rule


def queries():
    """Where each query stands, and the query."""
    for name, expression, _ in alerts():
        yield f"{ALERTS}: {name}", expression
    dashboard = json.loads(DASHBOARD.read_text())
    panels = list(dashboard["panels"])
    for panel in panels:
        panels.extend(panel.get("panels", []))
        if panel["type"] != "row" and not panel.get("description"):
            problems.append(f"{DASHBOARD}: the panel {panel['title']!r} has no description")
        for target in panel.get("targets", []):
            yield f"{DASHBOARD}: {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]
            yield f"{DASHBOARD}: the variable {variable['name']}", query if isinstance(query, str) else query["query"]


def check_query(where, query, existing):
    named = set(re.findall(r"\b(?:salla_reconciler|process)_[a-z_]+\b", query))
    for metric in sorted(named):
        base = re.sub(r"_(bucket|sum|count)$", "", metric)
        if existing is not None and metric not in existing and base not in existing and metric not in OF_THE_PROCESS:
            problems.append(f"{where}: there is no metric {metric}")
    for metric in re.findall(r"\bsum\s*(?:by\s*\([^)]*\)|without\s*\([^)]*\))?\s*\(\s*" + PREFIX + r"([a-z_]+)", query):
        if metric in OF_THE_DATABASE:
            problems.append(f"{where}: adds up {PREFIX}{metric}, which every replica tells alike: take the max")
    if re.search(r"\b(merchant|merchant_id|store)\s*(=|!|,|\))", query):
        problems.append(f"{where}: no metric has a label for a merchant")


def check_alert(name, rule, tests, anchors):
    for field in ("summary", "description", "runbook_url"):
        if not re.search(rf"^\s+{field}: \S", rule, re.M):
            problems.append(f"{ALERTS}: {name} has no {field}")
    if not re.search(r"severity: (page|ticket)\b", rule):
        problems.append(f"{ALERTS}: {name} has neither `severity: page` nor `severity: ticket`")
    url = re.search(r"runbook_url: (\S+)", rule)
    expected = f"{RUNBOOK}#{name.lower()}"
    if url and url.group(1) != expected:
        problems.append(f"{ALERTS}: the runbook_url of {name} is not {expected}")
    if name.lower() not in anchors:
        problems.append(f"{RUNBOOK}: there is no section `{name}`")
    mine = [test for test in re.split(r"\n\s+- (?=\{?expr:)", tests) if f'alertname="{name}"' in test]
    silent = [test for test in mine if "exp_samples: []" in test]
    if not silent:
        problems.append(f"{TESTS}: nothing shows {name} to be silent")
    if len(silent) == len(mine):
        problems.append(f"{TESTS}: nothing shows {name} to fire")


def main():
    existing = None
    if len(sys.argv) > 1:
        existing = set(re.findall(r"^# TYPE (\S+) ", Path(sys.argv[1]).read_text(), re.M))
        if not existing:
            problems.append(f"{sys.argv[1]}: no metric in it")
    tests = TESTS.read_text()
    anchors = {re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
               for line in RUNBOOK.read_text().splitlines() if line.startswith("#")}
    count = 0
    names = set()
    for where, query in queries():
        count += 1
        check_query(where, query, existing)
    for name, _, rule in alerts():
        names.add(name)
        check_alert(name, rule, tests, anchors)
    for section in re.findall(r"^### (SallaReconciler\w+)", RUNBOOK.read_text(), re.M):
        if section not in names:
            problems.append(f"{RUNBOOK}: {section} is no alert")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"{len(names)} alerts with tests and runbook, {count} queries"
          + (", each metric of which exists" if existing else "; whether their metrics exist was not asked"))


main()
