"""What ships for Prometheus and Grafana, on the real programs: every alert fires when it should."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import yaml

from planner.adapters.http.server import serve
from planner.adapters.http.site import Site
from planner.adapters.metrics_table import METRICS
from planner.errors import MetricsError
from planner.model import Reason
from planner.record import TickRecord
from tests.builders import Drive, service
from tests.integration.prometheus_server import prometheus, wait_for

FOLDER = Path(__file__).parents[2] / "manifests/monitoring"
RULE = yaml.safe_load((FOLDER / "prometheus_rule.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((FOLDER / "pd-planner.json").read_text(encoding="utf-8"))
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
VARIABLES = {"$namespace": ".*", "$pda": ".*", "$__rate_interval": "1m"}

PDA = 'pda="llama",pda_namespace="chat"'
# What a healthy service shows, a sample a minute.
FINE = {
    'pd_planner_build_info{version="1"}': "1x120",
    f"pd_planner_is_leader{{{PDA}}}": "1x120",
    f"pd_planner_tick_seconds_count{{{PDA}}}": "0+1x120",
    f'pd_planner_holds_total{{{PDA},reason="MetricsUnavailable"}}': "0x120",
    f'pd_planner_holds_total{{{PDA},reason="WarmingUp"}}': "0+1x120",
    f'pd_planner_attainment_ratio{{{PDA},sla="both",bound="upper"}}': "0.999x120",
    f'pd_planner_shortage_gpus{{{PDA},pool="prefill"}}': "0x120",
    f'pd_planner_ready_replicas{{{PDA},pool="prefill",role="prefill"}}': "4x120",
    f'pd_planner_current_replicas{{{PDA},pool="prefill",role="prefill"}}': "4x120",
    f'pd_planner_desired_replicas{{{PDA},pool="prefill",role="prefill"}}': "6x120",
    f'pd_planner_correction_factor{{{PDA},role="prefill"}}': "1.2x120",
}
# Which series has to look how for an alert to fire.
TROUBLE = {
    "PDPlannerAbsent": ("pd_planner_build_info", "_x120"),
    "PDPlannerStandsStill": ("pd_planner_tick_seconds_count", "7x120"),
    "PDPlannerHolds": ("MetricsUnavailable", "0+1x120"),
    "PDPlannerSLAMissed": ("pd_planner_attainment_ratio", "0.97x120"),
    "PDPlannerShortOfGPUs": ("pd_planner_shortage_gpus", "3x120"),
    "PDPlannerReplicasMissing": ("pd_planner_ready_replicas", "3x120"),
    "PDPlannerProfileOff": ("pd_planner_correction_factor", "1.8x120"),
}


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(RULE["spec"]), encoding="utf-8")
    return path


def promtool(binary, *arguments):
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_sound(promtool_binary, rules):
    assert f"{len(TROUBLE)} rules found" in promtool(promtool_binary, "check", "rules", rules)


def test_every_alert_has_a_case():
    assert [rule["alert"] for rule in RULE["spec"]["groups"][0]["rules"]] == list(TROUBLE)


@pytest.mark.parametrize("alert", TROUBLE)
def test_an_alert_fires_when_it_should_and_no_other_does(promtool_binary, rules, alert):
    where, values = TROUBLE[alert]
    series = {name: values if where in name else usual for name, usual in FINE.items()}
    assert series != FINE
    # A service that is fine beside it shows that labels are matched.
    both = series | {
        name.replace("llama", "fine"): v for name, v in FINE.items() if "llama" in name
    }
    test = {
        "rule_files": [rules.name],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": n, "values": v} for n, v in both.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "100m",
                        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}],
                    },
                    {
                        "expr": 'count(ALERTS{alertstate="firing", pda="fine"})',
                        "eval_time": "100m",
                        "exp_samples": [],
                    },
                ],
            }
        ],
    }
    path = rules.with_name("test.yml")
    path.write_text(yaml.safe_dump(test), encoding="utf-8")
    promtool(promtool_binary, "test", "rules", path)


def test_the_dashboard_shows_every_metric_but_current():
    shown = set(re.findall(r"pd_planner_[a-z_]+?(?=_bucket|\{)", " ".join(QUERIES.values())))
    # `current` follows `desired` but for mode Recommend.
    assert {exposed.name for exposed in METRICS} - shown == {"pd_planner_current_replicas"}


@pytest.fixture(scope="module")
def answers(prometheus_binary, tmp_path_factory):
    """Return what a Prometheus that scraped the real server answers to every panel."""
    drive = Drive(service())
    site = Site([drive.service])
    folder = tmp_path_factory.mktemp("dashboard")

    def tick(**over):
        decision = drive.tick(**over)
        site.record(TickRecord(drive.service.key, decision))
        site.took([drive.service.key], 0.02)

    tick()
    capped = Reason("TooManyReplicas", "capped", "prefill")
    with serve("127.0.0.1:0", site) as url:
        config = (
            "scrape_configs:\n- job_name: planner\n  scrape_interval: 1s\n"
            f"  static_configs: [{{targets: ['{url.removeprefix('http://')}']}}]\n"
        )
        with prometheus(prometheus_binary, folder, config=config) as server:

            def ask(query):
                for name, value in VARIABLES.items():
                    query = query.replace(name, value)
                answer = requests.get(
                    f"{server.url}/api/v1/query", params={"query": query}, timeout=30
                ).json()
                assert answer["status"] == "success", answer
                return answer["data"]["result"]

            def scrapes(query, least):
                wait_for(query, lambda: (r := ask(query)) and float(r[0]["value"][1]) >= least)

            scrapes("count_over_time(pd_planner_is_leader[1m])", 1)
            tick(read=MetricsError("away"))
            site.record(TickRecord(drive.service.key, drive.decisions[-1]))
            good = drive.run(2)
            site.record(TickRecord(drive.service.key, good))
            site.record(TickRecord(drive.service.key, replace(good, reasons=(capped,))))
            site.took([drive.service.key], 0.02)
            scrapes("count_over_time(pd_planner_caps_total[1m])", 2)
            return {name: ask(query) for name, query in QUERIES.items()}


@pytest.mark.parametrize("panel", QUERIES)
def test_a_panel_has_something_to_draw(answers, panel):
    assert answers[panel]
    assert all(row["value"][1] != "NaN" for row in answers[panel])


def test_kustomize_builds_it(require):
    kubectl = require("kubectl", "your package manager: kubernetes-client")
    built = subprocess.run(
        [kubectl, "kustomize", FOLDER], capture_output=True, text=True, check=True
    )
    objects = {o["kind"]: o for o in yaml.safe_load_all(built.stdout)}
    assert set(objects) == {"ConfigMap", "PodMonitor", "PrometheusRule"}
    assert {o["metadata"]["namespace"] for o in objects.values()} == {"pd-planner"}
    assert objects["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(objects["ConfigMap"]["data"]["pd-planner.json"]) == DASHBOARD


def test_the_monitor_finds_the_pod_of_the_deployment():
    base = FOLDER.parent / "base/deployment.yaml"
    template = yaml.safe_load(base.read_text(encoding="utf-8"))["spec"]["template"]
    monitor = yaml.safe_load((FOLDER / "pod_monitor.yaml").read_text(encoding="utf-8"))["spec"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = [p["name"] for c in template["spec"]["containers"] for p in c["ports"]]
    assert monitor["podMetricsEndpoints"][0]["port"] in ports
