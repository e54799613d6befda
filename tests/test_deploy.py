"""The files of deploy/ name what exists in the gateway. Where promtool and systemd are installed, they check them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from docs.generated import commands
from thinktime import __version__
from thinktime.core.errors import InputError
from thinktime.core.usage import Usage
from thinktime.gateway.config import GatewayConfig, digest, read_config
from thinktime.gateway.metrics import COUNTS, Metrics

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CONTAINER = (DEPLOY / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNIT = (DEPLOY / "systemd" / "thinktime.service").read_text()
CHART = DEPLOY / "helm" / "thinktime"
TEMPLATES = "\n".join(path.read_text() for path in sorted((CHART / "templates").glob("*")))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "thinktime.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
EXPRESSIONS = [rule["expr"] for rule in ALERTS]
EXPRESSIONS += [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


# Metrics


def exported() -> dict[str, set[str]]:
    """The samples of /metrics with their labels."""
    metrics = Metrics()
    metrics.answered.labels("/v1/messages", "majority", 200).inc()
    metrics.seconds.labels("/v1/messages", "majority").observe(1.0)
    metrics.charge("ann", Usage(dollars=None))
    text = metrics.text({"ann": Usage()}, reachable=True).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_labels_and_counts_of_the_gateway(expression: str) -> None:
    known, added = exported(), {"job", "instance"}  # Prometheus adds these two
    named = re.findall(r"\b(thinktime_\w+|up)\b(?:\{([^}]*)\})?", re.sub(r'job="thinktime"', "", expression))
    assert named
    offered = set(added)
    for name, matchers in named:
        assert name == "up" or name in known
        offered |= known.get(name, set())
        assert set(re.findall(r"(\w+)\s*[!=]~?=?\"", matchers)) <= known.get(name, set()) | added
        for what in re.findall(r'what="(\w+)"', matchers):
            assert what in COUNTS
    grouped = {
        label for labels in re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", expression) for label in labels.split(", ")
    }
    assert grouped <= offered


def test_requests_of_probes_and_scrapes_do_not_count_in_rates() -> None:
    of_requests = [
        part for each in EXPRESSIONS for part in re.findall(r"thinktime_request\w*_(?:total|bucket)\{[^}]*", each)
    ]
    counted = [part for part in of_requests if re.match(r"thinktime_request(s_total|_seconds)", part)]
    assert counted and all('path=~"/v1/.*"' in part for part in counted)


def test_the_page_about_metrics_has_those_of_the_board_and_the_alerts() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text()
    named = {name for each in EXPRESSIONS for name in re.findall(r"thinktime_\w+", each) if 'job="' not in name}
    plain = {re.sub("_bucket$", "", name) for name in named if name != "thinktime"}
    assert [name for name in sorted(plain) if f"`{name}`" not in page] == []


def test_the_panels_of_the_board_do_not_overlap_and_use_its_data_source() -> None:
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in BOARD["panels"]]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(set(places)) == len(places)
    assert all(panel["datasource"]["uid"] == "${source}" for panel in BOARD["panels"])
    assert [variable["name"] for variable in BOARD["templating"]["list"]] == ["source", "job"]


def test_every_alert_says_how_urgent_it_is_and_what_happens_and_is_tested() -> None:
    tested = (DEPLOY / "prometheus" / "alerts_test.yml").read_text()
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"].endswith(".")
        assert f"alertname: {rule['alert']}" in tested


# Environment


def variables() -> Iterator[tuple[str, str]]:
    """The environment variables that the files set for the gateway, and in which file."""
    yield from (("Containerfile", name) for name in re.findall(r"^(?:ENV|   ) ?([A-Z_]+)=", CONTAINER, re.MULTILINE))
    yield from (("compose.yaml", name) for name in COMPOSE["services"]["gateway"]["environment"])
    yield from (("thinktime.service", name) for name in re.findall(r"^Environment=([A-Z_]+)=", UNIT, re.MULTILINE))
    yield from (("thinktime.service", name) for name in re.findall(r"\b([A-Z_]+)=…", UNIT))
    yield from (("chart", name) for name in re.findall(r"name: ([A-Z_]{4,})\b", TEMPLATES))


def test_every_environment_variable_is_on_the_page_about_them() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    context = dict(commands())["thinktime serve"]
    options = {f"THINKTIME_{name.upper()}" for name in (param.name for param in context.command.params) if name}
    found = set(variables())
    assert {file for file, _ in found} == {"Containerfile", "compose.yaml", "thinktime.service", "chart"}
    assert ("chart", "THINKTIME_UPSTREAM") in found and ("compose.yaml", "PGPASSWORD") in found
    known = options | {"PATH"}
    assert [each for each in sorted(found) if each[1] not in known and f"`{each[1]}`" not in page] == []


def test_the_example_settings_are_known_and_ask_for_keys() -> None:
    file = DEPLOY / "gateway.toml"
    with pytest.raises(InputError, match=r"keys.team.sha256='…': give 64 hexadecimal digits; see --new-key"):
        read_config(file)


def test_with_hashes_of_keys_the_examples_are_settings_of_a_gateway(tmp_path: Path) -> None:
    hashes = (digest(f"key {n} of the test") for n in range(2))
    text = re.sub(r"PUT THE HASH[^\"]*", lambda _: next(hashes), (DEPLOY / "gateway.toml").read_text())
    (tmp_path / "gateway.toml").write_text(text)
    config = GatewayConfig("http://127.0.0.1:8000/v1", host="0.0.0.0", **read_config(tmp_path / "gateway.toml"))
    team, prometheus = config.keys
    assert not team.sees_all and prometheus.sees_all and prometheus.budget.tokens == 1
    (tmp_path / "chart.toml").write_text(re.sub("^# ", "", VALUES["config"], flags=re.MULTILINE).replace("…", "0" * 64))
    (key,) = GatewayConfig("http://vllm:8000/v1", host="0.0.0.0", **read_config(tmp_path / "chart.toml")).keys
    assert key.name == "team"


# Containers and Kubernetes


def test_the_container_is_of_the_light_core_without_rights_and_says_whether_it_is_healthy() -> None:
    assert "ARG EXTRAS=serve,postgres\n" in CONTAINER
    last = CONTAINER.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d+$", last, re.MULTILINE) and "pip install" not in last
    assert "HEALTHCHECK" in last and "/health" in last and 'ENTRYPOINT ["thinktime", "serve"]' in last
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", CONTAINER, re.MULTILINE)[0].split()
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied == ["dist/thinktime-*.whl", "constraints.txt"] and sent == ["dist/*.whl", "constraints.txt"]
    check = json.loads(re.findall(r"^ +CMD (\[.*\])$", last, re.MULTILINE)[0])
    compile(check[2], "healthcheck", "exec")


def test_files_with_secrets_are_never_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"deploy/.env", "deploy/secrets/"} <= set(ignored)


def test_the_compose_file_names_files_and_services_that_exist() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"gateway", "postgres", "prometheus"}
    assert (DEPLOY / services["gateway"]["build"]["context"] / services["gateway"]["build"]["dockerfile"]).exists()
    mounts = [mount for service in services.values() for mount in service["volumes"]]
    for source in (mount.partition(":")[0] for mount in mounts):
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert "@postgres/" in services["gateway"]["environment"]["THINKTIME_BANK"]
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["gateway:9501"] and "THINKTIME_PORT=9501" in CONTAINER
    assert all(services[name]["image"].rpartition(":")[2] != "latest" for name in ("postgres", "prometheus"))


def test_a_process_that_drains_is_given_the_time() -> None:
    service, seconds = COMPOSE["services"]["gateway"], r"(\d+)s"
    drain, grace = (
        re.fullmatch(seconds, text)
        for text in (service["environment"]["THINKTIME_DRAIN"], service["stop_grace_period"])
    )
    assert drain and grace and int(grace[1]) > int(drain[1])
    stops, drains = re.search(r"TimeoutStopSec=(\d+)s", UNIT), re.search(r"THINKTIME_DRAIN=(\d+)s", UNIT)
    assert stops and drains and int(stops[1]) > int(drains[1])
    assert "terminationGracePeriodSeconds: {{ add .Values.drainSeconds 10 }}" in TEMPLATES


def values(tree: Any, above: str = "") -> Iterator[str]:
    """The names of all values that are no tables."""
    if not isinstance(tree, dict) or above == "resources":
        yield above
        return
    for name, part in tree.items():
        yield from values(part, f"{above}.{name}" if above else name)


def test_the_templates_use_all_values_and_no_others() -> None:
    assert set(re.findall(r"\.Values\.([\w.]+)", TEMPLATES)) == set(values(VALUES))


def test_the_version_of_the_chart_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__ and f"thinktime:{__version__}" in CONTAINER


def test_without_its_conditions_the_template_is_yaml_with_a_safe_pod() -> None:
    """A stand-in for Helm, which the tests do not have: conditions hold, and every value is a word."""
    text = re.sub(r"^\s*\{\{-? (if|end)\b.*\}\}\n", "", TEMPLATES, flags=re.MULTILINE)
    text = re.sub(r"\n *\{\{- (.*?) \| nindent \d+ \}\}", " text", text)
    text = re.sub(r"data:\n  gateway.toml: \| text", "data: {gateway.toml: text}", text)
    text = re.sub(r"\{\{.*?\}\}", "x", text)
    kinds = {document["kind"]: document for document in yaml.safe_load_all(text)}
    assert set(kinds) == {"ConfigMap", "Deployment", "Service", "ServiceMonitor"}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and f"USER {pod['securityContext']['runAsUser']}\n" in CONTAINER
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod["enableServiceLinks"] is False
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


# Tools


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")
def test_prometheus_reads_the_rules_and_they_fire_as_they_should() -> None:
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        subprocess.run(["promtool", *command], cwd=DEPLOY / "prometheus", check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "thinktime.service"
    file.write_text(UNIT.replace("/opt/thinktime/bin/thinktime", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_the_gateway_as_a_user_of_its_own() -> None:
    assert "ExecStart=/opt/thinktime/bin/thinktime serve\n" in UNIT
    assert "DynamicUser=yes\n" in UNIT and "ProtectSystem=strict\n" in UNIT and "CapabilityBoundingSet=\n" in UNIT
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["thinktime"]
