"""The Helm chart: Helm accepts it, Kubernetes accepts what it makes, and its parts fit each other and headrace."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.deploy.chart import CHART, NAMESPACE, Manifest, Rendered, check_object, helm, refusal_of, render
from kit.deploy.chart_values import ENV_FILE, LEAST, TREE, VALUES, VARIABLES
from kit.needs import DEPLOY_TOOLS, PROMETHEUS, needs

from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.restarts import OF_A_PROCESS, OF_THE_SERVICE
from pipeline.gateway.routes import ALIVE_PATHS, METRICS_PATH, READY_PATHS
from pipeline.gateway.supervision import KILL_MARGIN_S

pytestmark = [pytest.mark.deploy, needs(DEPLOY_TOOLS), pytest.mark.timeout(300)]

EVERY_VERSION = tuple(f"1.{minor}" for minor in range(27, 38))
SOME_VERSIONS = (EVERY_VERSION[0], EVERY_VERSION[-1])
EVERYTHING = "everything on"
OPTIONAL = ("tls_certfile", "tls_keyfile", "reasoning_store", "reasoning_store_file")
"""What needs files and folders that this machine does not have."""
FEW = settings(max_examples=30)
"""Each example is a run of Helm's, of 30 ms."""


@pytest.fixture(params=VALUES, scope="module")
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """What each set of values makes."""
    return render(VALUES[request.param])


def configured(**pipeline_settings: Any) -> dict[str, Any]:
    """Return values with these ``pipeline_settings``."""
    return {"config": {**TREE, "pipeline_settings": pipeline_settings}, "keys": {"envFile": ENV_FILE}}


def settings_of(rendered: Rendered) -> Any:
    """Return what headrace reads in the rendered configuration."""
    config = rendered.config
    config["pipeline_settings"] = {k: v for k, v in config["pipeline_settings"].items() if k not in OPTIONAL}
    return parse_settings(yaml.safe_dump(config), source="config.yaml", environ=VARIABLES)


def ports_of(rendered: Rendered) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in rendered.container["ports"]}


def services(rendered: Rendered) -> Iterator[Manifest]:
    return (one for one in rendered.objects if one["kind"] == "Service")


# Helm and Kubernetes accept it


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_to_complain_about(name: str) -> None:
    report = helm().lint(str(CHART), dict(VALUES[name]), strict=True)
    assert report["errors"] == []
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


def test_every_value_set_makes_what_kubernetes_allows(rendered: Rendered) -> None:
    for manifest in rendered.objects:
        check_object(manifest, SOME_VERSIONS)


def test_everything_is_allowed_by_every_version_that_the_chart_names() -> None:
    assert helm().Chart.load(CHART).metadata["kubeVersion"] == f">={EVERY_VERSION[0]}.0-0"
    for manifest in render(VALUES[EVERYTHING]).objects:
        check_object(manifest, EVERY_VERSION)


def test_a_field_that_kubernetes_does_not_know_would_be_seen() -> None:
    for kind in ("Deployment", "ServiceMonitor"):
        manifest = render(VALUES[EVERYTHING]).one(kind)
        manifest["spec"]["replicaCount"] = 3
        with pytest.raises(Exception, match="replicaCount"):
            check_object(manifest, SOME_VERSIONS)


def test_what_is_switched_off_is_not_made() -> None:
    assert render(VALUES["everything off"]).kinds == ["ConfigMap", "Deployment", "Service"]
    assert len(set(render(VALUES[EVERYTHING]).kinds)) == 11
    assert "PersistentVolumeClaim" in render(VALUES["a volume"]).kinds
    assert "PersistentVolumeClaim" not in render(VALUES["a volume that exists"]).kinds


@pytest.mark.parametrize("name", ["headrace", "gateway", "a" * 53, f"{'b' * 52}-c"])
def test_every_object_has_a_name_that_kubernetes_allows_and_none_has_that_of_another(name: str) -> None:
    objects = render(VALUES[EVERYTHING], name=name[:53]).objects
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    assert all(len(one) <= 63 and one[-1].isalnum() for _, one in names)
    assert {one["metadata"]["namespace"] for one in objects} == {NAMESPACE}


# What is refused, and how


def test_without_a_model_it_says_what_to_set() -> None:
    assert "--set-file configFile=config.yaml" in refusal_of({})


def test_without_keys_it_says_what_to_set() -> None:
    assert "HEADRACE_MASTER_KEY, but there are no variables: set keys.envFile" in refusal_of({"config": TREE})
    assert "there is no master key" in refusal_of({"config": {**TREE, "general_settings": {}}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicaCout": 3}, "additional properties 'replicaCout' not allowed"),
        ({"autoscaling": {"enable": True}}, "at '/autoscaling': additional properties 'enable' not allowed"),
        ({"livenessProbe": {"timeoutSeconds": 0}}, "at '/livenessProbe/timeoutSeconds': minimum: got 0, want 1"),
        ({"replicaCount": "two"}, "at '/replicaCount': got string, want integer"),
        ({"service": {"type": "External"}}, "at '/service/type': value must be one of 'ClusterIP'"),
        ({"config": TREE}, "both config and configFile are set"),
        ({"configFile": "- a"}, "configFile is not a mapping in YAML"),
        ({"configFile": "include: [more.yaml]\nmodel_list: [a]"}, "put all of it into one file"),
        (
            {"keys": {"envFile": ENV_FILE, "existingSecret": "ours"}},
            "both keys.envFile and keys.existingSecret are set",
        ),
        ({"pipelineSettings": {"host": "127.0.0.1"}}, "pipeline_settings.host is an address that only the pod itself"),
        ({"pipelineSettings": {"metrics_address": "[::1]:9400"}}, "pipeline_settings.metrics_address is an address"),
        ({"pipelineSettings": {"metrics_address": "9400"}}, "must be an address and a port, such as 0.0.0.0:9400"),
        ({"pipelineSettings": {"port": "os.environ/P"}}, "pipeline_settings.port must be a number"),
        ({"pipelineSettings": {"shutdown_delay_s": 6}}, "is 6 s, and pipeline_settings.shutdown_delay_s is 6 s"),
        ({"readinessProbe": {"periodSeconds": 5}}, "is 10 s, and pipeline_settings.shutdown_delay_s is 10 s"),
        ({"persistence": {"enabled": True}}, "persistence is for one pod: set replicaCount to 1"),
        (
            {"serviceMonitor": {"enabled": True}, "pipelineSettings": {"metrics_address": ""}},
            "set pipelineSettings.metrics_address",
        ),
        ({"ingress": {"enabled": True}}, "ingress.host is not set"),
        (
            {"pipelineSettings": {"metrics_address": "0.0.0.0:4000"}},
            "pipeline_settings.metrics_address has the port of the service, 4000: write another one",
        ),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}},
            "autoscaling.minReplicas is 5, and maxReplicas is 2: it must not be less",
        ),
        (
            {"ingress": {"host": "https://a.example.com/"}},
            "at '/ingress/host': 'https://a.example.com/' does not match",
        ),
        ({"ingress": {"path": "/llm"}}, "at '/ingress/path': value must be one of '/', '/cursor'"),
    ],
)
def test_values_that_cannot_work_are_refused_with_what_to_do(values: dict[str, Any], message: str) -> None:
    assert message in refusal_of({**LEAST, **values})


# Its parts fit each other


def test_selectors_match_the_pods(rendered: Rendered) -> None:
    labels = rendered.pod["metadata"]["labels"].items()
    selectors = [rendered.one("Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in services(rendered)]
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        if (found := rendered.maybe_one(kind)) is not None:
            selectors.append(found["spec"].get("selector", found["spec"].get("podSelector"))["matchLabels"])
    for constraint in rendered.pod["spec"].get("topologySpreadConstraints", ()):
        selectors.append(constraint["labelSelector"]["matchLabels"])
    assert len(selectors) >= 2
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


def test_the_service_monitor_selects_the_service_with_the_metrics_and_no_other() -> None:
    rendered = render(VALUES[EVERYTHING])
    spec = rendered.one("ServiceMonitor")["spec"]
    selector = spec["selector"]["matchLabels"].items()
    (selected,) = (one for one in services(rendered) if selector <= one["metadata"]["labels"].items())
    (port,) = selected["spec"]["ports"]
    (endpoint,) = spec["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], METRICS_PATH)
    assert (selected["spec"]["clusterIP"], selected["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert spec["namespaceSelector"]["matchNames"] == [NAMESPACE]
    assert spec["jobLabel"] in selected["metadata"]["labels"]


def test_ports_are_those_that_headrace_listens_on(rendered: Rendered) -> None:
    own = rendered.config["pipeline_settings"]
    ports = ports_of(rendered)
    scheme = "https" if "tls_certfile" in own else "http"
    assert ports.pop(scheme) == settings_of(rendered).pipeline.port
    address = settings_of(rendered).pipeline.metrics_address
    assert ports == ({} if address is None else {"metrics": int(address.rpartition(":")[2])})
    for service in services(rendered):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports_of(rendered)
    if (ingress := rendered.maybe_one("Ingress")) is not None:
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        ports_there = rendered.one("Service", backend["name"])["spec"]["ports"]
        assert backend["port"]["name"] in [port["name"] for port in ports_there]


def test_values_that_are_kubernetes_own_arrive_where_they_belong() -> None:
    given = VALUES[EVERYTHING]
    rendered = render(given)
    spec, container = rendered.pod["spec"], rendered.container
    pod = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets")
    assert {name: spec[name] for name in pod} == {name: given[name] for name in pod}
    assert (container["env"], container["envFrom"]) == (given["extraEnv"], given["extraEnvFrom"])
    assert container["resources"] == given["resources"]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert rendered.one("Deployment")["spec"]["strategy"] == rolling
    metadata = rendered.pod["metadata"]
    assert given["podLabels"].items() <= metadata["labels"].items()
    assert given["podAnnotations"].items() <= metadata["annotations"].items()
    service, wanted = rendered.one("Service", "headrace"), given["service"]
    assert service["metadata"]["annotations"] == wanted["annotations"]
    assert service["spec"]["ports"][0]["port"] == wanted["port"]
    assert {name: service["spec"][name] for name in ("type", "loadBalancerSourceRanges")}.items() <= wanted.items()
    assert rendered.one("ServiceAccount")["metadata"]["annotations"] == given["serviceAccount"]["annotations"]
    assert rendered.one("NetworkPolicy")["spec"]["egress"][-1:] == given["networkPolicy"]["extraEgress"]
    for kind, name in (("ServiceMonitor", "serviceMonitor"), ("PrometheusRule", "prometheusRule")):
        assert given[name]["labels"].items() <= rendered.one(kind)["metadata"]["labels"].items()
    budget = rendered.one("PodDisruptionBudget")["spec"]
    assert (budget["minAvailable"], budget["unhealthyPodEvictionPolicy"]) == ("50%", "AlwaysAllow")
    assert rendered.one("Ingress")["spec"]["ingressClassName"] == "nginx"


def test_the_image_is_that_of_the_charts_version_unless_a_tag_or_a_digest_is_given() -> None:
    repository = "ghcr.io/headrace/headrace"
    digest = f"sha256:{'0' * 64}"
    version = helm().Chart.load(CHART).metadata["appVersion"]
    for image, expected in (
        ({}, f"{repository}:{version}"),
        ({"tag": "next"}, f"{repository}:next"),
        ({"tag": "next", "digest": digest}, f"{repository}@{digest}"),
    ):
        assert render({**LEAST, "image": image}).container["image"] == expected
    assert render({**LEAST, "image": {"pullPolicy": "Never"}}).container["imagePullPolicy"] == "Never"


def test_probes_ask_for_paths_that_exist_and_do_not_end_a_busy_pod(rendered: Rendered) -> None:
    container = rendered.container
    for probe, paths in (
        ("startupProbe", ALIVE_PATHS),
        ("livenessProbe", ALIVE_PATHS),
        ("readinessProbe", READY_PATHS),
    ):
        ask = container[probe]["httpGet"]
        assert ask["path"] in paths
        assert ask["port"] in ports_of(rendered)
        assert ask["scheme"].lower() == ask["port"]
    liveness, readiness = container["livenessProbe"], container["readinessProbe"]
    assert liveness["timeoutSeconds"] >= 1
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60
    delay = settings_of(rendered).pipeline.shutdown_delay_s
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < delay


WEEK_S = 604_800  # no delay may be longer
DELAYS = st.one_of(
    st.integers(7, WEEK_S),
    st.floats(6.001, WEEK_S),
    st.integers(7, WEEK_S).map(str),
    st.decimals(7, 3600, places=2).map(str),
)


@FEW
@given(delay=DELAYS, timeout=DELAYS | st.just(0))
def test_the_pod_has_longer_to_end_than_headrace_needs(delay: Any, timeout: Any) -> None:
    rendered = render(configured(shutdown_delay_s=delay, graceful_timeout_s=timeout))
    own = settings_of(rendered).pipeline
    needed = own.shutdown_delay_s + own.graceful_timeout_s + KILL_MARGIN_S
    assert needed <= rendered.pod["spec"]["terminationGracePeriodSeconds"] < needed + 1


def test_the_pod_is_as_restricted_as_the_strictest_standard_demands(rendered: Rendered) -> None:
    """Pod Security Standards, profile restricted; and more than that."""
    spec, container = rendered.pod["spec"], rendered.container
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    account = rendered.maybe_one("ServiceAccount")
    assert spec["serviceAccountName"] == ("default" if account is None else account["metadata"]["name"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_the_pod_gets_no_variables_for_services(rendered: Rendered) -> None:
    """Those of a Service named headrace would be read as settings: HEADRACE_PORT=tcp://10.96.0.7:4000."""
    assert rendered.pod["spec"]["enableServiceLinks"] is False


def test_every_mount_has_its_volume_and_no_file_is_mounted_alone(rendered: Rendered) -> None:
    mounts = rendered.container["volumeMounts"]
    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in rendered.pod["spec"]["volumes"]}
    assert not [mount for mount in mounts if "subPath" in mount]
    assert [mount["mountPath"] for mount in mounts][:3] == ["/etc/headrace", "/var/lib/headrace", "/tmp"]


def test_a_release_with_a_volume_can_be_scaled_to_no_pod() -> None:
    none = render({**VALUES["a volume"], "replicaCount": 0})
    assert none.one("Deployment")["spec"]["replicas"] == 0


def test_a_volume_is_never_mounted_by_two_pods() -> None:
    for name in ("a volume", "a volume that exists"):
        rendered = render(VALUES[name])
        spec = rendered.one("Deployment")["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        made = rendered.maybe_one("PersistentVolumeClaim")
        (claim,) = (one["persistentVolumeClaim"] for one in rendered.pod["spec"]["volumes"] if one["name"] == "state")
        assert claim["claimName"] == ("ours" if made is None else made["metadata"]["name"])
        assert made is None or made["spec"]["storageClassName"] == "fast"


def test_the_network_policy_lets_in_what_it_should_and_no_more() -> None:
    rendered = render(VALUES["four workers and another port"])
    ports = ports_of(rendered)
    service, metrics = rendered.one("NetworkPolicy")["spec"]["ingress"]
    assert (service["ports"], service.get("from")) == ([{"port": ports["http"], "protocol": "TCP"}], None)
    assert metrics["ports"] == [{"port": ports["metrics"], "protocol": "TCP"}]
    (peer,) = metrics["from"]
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}

    narrow = render(VALUES[EVERYTHING]).one("NetworkPolicy")["spec"]
    assert narrow["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app": "proxy"}}}]
    assert sorted(narrow["policyTypes"]) == ["Egress", "Ingress"]
    nobody = render({**LEAST, "networkPolicy": {"metricsFrom": []}}).one("NetworkPolicy")["spec"]
    assert [rule["ports"][0]["port"] for rule in nobody["ingress"]] == [4000]


def test_the_network_policy_lets_out_what_the_configuration_names() -> None:
    addresses = ("https://a.example", "http://b", "http://u:p@c:81/v1", "https://[fd00::1]:82/", "os.environ/X", None)
    models = [{"model_name": f"m{at}", "litellm_params": {"api_base": one}} for at, one in enumerate(addresses)]
    models += [{"model_name": "base", "litellm_params": {"base_url": "http://d:83"}}, {"model_name": "empty"}]
    config = {
        "model_list": models,
        "pipeline_settings": {"proxy": "http://proxy:3128", "otlp_endpoint": "http://collector:4318"},
    }
    values = {"config": config, "keys": {"envFile": ENV_FILE}, "networkPolicy": {"egressPorts": [5432]}}
    names, upstreams = render(values).one("NetworkPolicy")["spec"]["egress"]
    assert [(port["port"], port["protocol"]) for port in names["ports"]] == [(53, "UDP"), (53, "TCP")]
    assert sorted(port["port"] for port in upstreams["ports"]) == [80, 81, 82, 83, 443, 3128, 4318, 5432]


def test_autoscaling_counts_for_each_worker_and_leaves_the_number_of_pods_alone() -> None:
    rendered = render(VALUES["four workers and another port"])
    assert "replicas" not in rendered.one("Deployment")["spec"]
    spec = rendered.one("HorizontalPodAutoscaler")["spec"]
    in_flight, lag = (metric["pods"] for metric in spec["metrics"])
    assert (in_flight["metric"]["name"], in_flight["target"]["averageValue"]) == ("headrace_in_flight", "200")
    assert (lag["metric"]["name"], lag["target"]["averageValue"]) == ("headrace_loop_lag_seconds", "20m")
    assert spec["scaleTargetRef"]["name"] == rendered.one("Deployment")["metadata"]["name"]
    down, up = spec["behavior"]["scaleDown"], spec["behavior"]["scaleUp"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 180}]
    assert down["stabilizationWindowSeconds"] > up["stabilizationWindowSeconds"]


def test_resources_grow_with_the_workers_and_processors_have_no_limit() -> None:
    for workers, cpu, request, limit in ((1, "500m", "256Mi", "1024Mi"), (4, "2000m", "640Mi", "2560Mi")):
        resources = render(configured(workers=workers)).container["resources"]
        assert resources == {"requests": {"cpu": cpu, "memory": request}, "limits": {"memory": limit}}


def test_the_ingress_keeps_streams_unbuffered_and_takes_what_headrace_takes() -> None:
    rendered = render(VALUES[EVERYTHING])
    ingress = rendered.one("Ingress")
    own = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert (own["proxy-buffering"], own["proxy-request-buffering"]) == ("off", "off")
    assert own["proxy-body-size"] == f"{settings_of(rendered).pipeline.max_body_bytes // 2**20}m"
    assert int(own["proxy-read-timeout"]) >= 600
    assert ingress["spec"]["tls"] == [{"hosts": ["gateway.example.com"], "secretName": "gateway-tls"}]


# What it makes is what headrace reads


def test_headrace_accepts_every_configuration_that_it_makes(rendered: Rendered) -> None:
    settings = settings_of(rendered)
    assert settings.deployments
    assert settings.pipeline.host == "0.0.0.0"
    assert rendered.container["args"] == ["serve", "--config", "/etc/headrace/config.yaml"]


WORDS = (
    "on",
    "no",
    "~",
    "null",
    "1e3",
    "0x1F",
    "0o17",
    "017",
    "1_000",
    "12:30:45",
    "2026-01-01",
    "-",
    "#",
    "a: b",
    "{}",
)
LETTERS = st.characters(categories=("L", "N", "P", "S", "Zs"))
# Helm writes these two, which mean something to PyYAML only, without quotes.
TEXTS = (st.text(LETTERS, max_size=20) | st.sampled_from(WORDS)).filter(lambda text: text not in ("<<", "="))
NUMBERS = st.integers(-(2**53), 2**53) | st.decimals(-1000, 1000, places=3).map(float)
SCALARS = TEXTS | st.booleans() | st.none() | NUMBERS
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@FEW
@given(params=st.dictionaries(TEXTS, TREES, max_size=4))
def test_what_is_configured_arrives_as_it_was_written(params: dict[str, Any]) -> None:
    models = [{"model_name": "a", "litellm_params": {"tpm": 2_000_000, "own": params}}]
    values = {"config": {**TREE, "model_list": models}, "keys": {"envFile": ENV_FILE}}
    assert render(values).config["model_list"] == models


def test_a_file_arrives_as_headrace_itself_would_read_it() -> None:
    example = (CHART.parents[2] / "config.example.yaml").read_text()
    made = render({"configFile": example, "keys": {"envFile": ENV_FILE}}).config
    own = yaml.safe_load(example)
    made["pipeline_settings"] = own.get("pipeline_settings")
    assert made == {"pipeline_settings": None, **own}


def test_what_the_configuration_says_takes_precedence_even_if_it_is_false_or_0() -> None:
    own = {"watch_config": False, "graceful_timeout_s": 0, "metrics_address": "", "workers": 3}
    made = render(configured(**own, host=None)).config["pipeline_settings"]
    assert made == {"host": "0.0.0.0", "port": 4000, "shutdown_delay_s": 10, **own}


def needs_restart(values: dict[str, Any]) -> str:
    return str(render(values).pod["metadata"]["annotations"]["headrace/needs-restart"])


def test_pods_are_replaced_for_what_a_reload_does_not_change_and_for_nothing_else() -> None:
    before = needs_restart(configured())
    values: dict[str, Any] = {"host": "::", "watch_config": False, "metrics_address": "0.0.0.0:9401"}
    for name in (*OF_A_PROCESS, *OF_THE_SERVICE):
        assert needs_restart(configured(**{name: values.get(name, 77)})) != before, name
    more = {
        **TREE,
        "model_list": [*TREE["model_list"], {"model_name": "more"}],
        "pipeline_settings": {"max_body_mb": 9},
    }
    assert needs_restart({"config": more, "keys": {"envFile": "HEADRACE_MASTER_KEY=sk-other"}}) == before


def test_pods_are_replaced_for_everything_if_nothing_is_watched() -> None:
    unwatched = VALUES["nothing is watched"]
    changed = {**unwatched, "keys": {"envFile": f"{ENV_FILE}MORE=1\n"}}
    assert needs_restart(dict(changed)) != needs_restart(dict(unwatched))


# What the user reads


def test_the_notes_warn_of_what_a_user_may_not_expect() -> None:
    assert "as soon as its pods are ready" in render(LEAST).notes
    assert "WARNING" not in render(LEAST).notes
    published = {"enabled": True, "host": "gateway.example.com", "path": "/cursor", "tlsSecret": "gateway-tls"}
    for values in (VALUES[EVERYTHING], {**LEAST, "ingress": published}):
        rendered = render(values)
        assert "base URL: https://gateway.example.com/cursor\n" in rendered.notes
        (rule,) = rendered.one("Ingress")["spec"]["rules"]
        assert rule["http"]["paths"][0]["path"] == values["ingress"].get("path", "/")
    assert "kubectl rollout restart" in render(VALUES["nothing is watched"]).notes
    limited = {"model_list": [{"model_name": "a", "litellm_params": {"model": "openai/a", "tpm": 5}}]}
    assert "Each pod counts limits for itself" in render({**configured(), "config": limited}).notes


def test_the_notes_name_the_variables_that_headrace_env_does_not_set() -> None:
    names = ("SET", "EXPORTED", "EMPTY", "MISSING")
    params = [{"model": "openai/a", "api_key": f"os.environ/{name}"} for name in names]
    config = {"model_list": [{"model_name": f"m{at}", "litellm_params": one} for at, one in enumerate(params)]}
    values = {"config": config, "keys": {"envFile": f"{ENV_FILE}SET=1\nexport EXPORTED=1\nEMPTY=\n#MISSING=1\n"}}
    warning = "WARNING: headrace.env (keys.envFile) does not set EMPTY, MISSING: what needs it is left out."
    assert warning in render(values).notes
    elsewhere = {"extraEnvFrom": [{"secretRef": {"name": "others"}}]}
    assert "WARNING" not in render({**values, **elsewhere}).notes


def test_the_notes_name_each_key_that_is_in_the_configuration_but_do_not_show_it() -> None:
    def key(name: str, text: str) -> dict[str, str]:
        return {"name": name, "key": text}

    clear = "sk-secret-0123456789"
    params: tuple[dict[str, str], ...] = ({"api_key": clear}, {"api_key": "os.environ/A_KEY"}, {})
    config = {
        "model_list": [{"model_name": f"m{at}", "litellm_params": one} for at, one in enumerate(params)],
        "general_settings": {"master_key": clear},
        "pipeline_settings": {
            "keys": [key("ann", clear), key("bob", "os.environ/BOB"), key("eve", f"sha256:{'0' * 64}")]
        },
    }
    notes = render({"config": config, "keys": {"envFile": ENV_FILE}}).notes
    warned = re.findall(r"WARNING: (.*) is in the ConfigMap", notes)
    assert warned == ["general_settings.master_key", "a key of m0", "pipeline_settings.keys: that of ann"]
    assert clear not in notes


# What Prometheus reads


def test_the_rules_are_those_of_the_repository_in_a_package_too(tmp_path: Path) -> None:
    rules = (CHART.parents[1] / "prometheus" / "headrace.rules.yml").read_text()
    assert render(VALUES[EVERYTHING]).one("PrometheusRule")["spec"] == yaml.safe_load(rules)
    packed = helm().package(str(CHART), destination=str(tmp_path))
    files = {one["name"]: one["data"] for one in helm().Chart.load(packed).files}
    assert files["files/headrace.rules.yml"] == rules


@needs(PROMETHEUS)
def test_promtool_accepts_the_rendered_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(render(VALUES[EVERYTHING]).one("PrometheusRule")["spec"]))
    ran = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert "SUCCESS" in ran.stdout, ran.stdout + ran.stderr
