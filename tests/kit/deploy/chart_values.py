"""Sets of values of the chart: from the least that is needed to everything at once."""

from __future__ import annotations

from typing import Any

from kit.deploy.chart import Values

CONFIG = """\
model_list:
  - model_name: my-gpt
    litellm_params: {model: openai/gpt-6.2-sol, api_key: os.environ/OPENAI_API_KEY}
general_settings: {master_key: os.environ/HEADRACE_MASTER_KEY}
"""
VARIABLES = {
    "OPENAI_API_KEY": "sk-upstream-secret-0123456789",
    "HEADRACE_MASTER_KEY": "sk-test-master-key-0123456789",
}
ENV_FILE = "".join(f"{name}={value}\n" for name, value in VARIABLES.items())

LEAST: Values = {"configFile": CONFIG, "keys": {"envFile": ENV_FILE}}
_PARAMS = {"model": "hosted_vllm/qwen3-coder", "api_base": "http://vllm.models:8000/v1"}
TREE: dict[str, Any] = {
    "model_list": [{"model_name": "my-qwen", "litellm_params": _PARAMS}],
    "general_settings": {"master_key": "os.environ/HEADRACE_MASTER_KEY"},
}
_PEERS = [{"podSelector": {"matchLabels": {"app": "proxy"}}}]

VALUES: dict[str, Values] = {
    "least": LEAST,
    "everything on": {
        **LEAST,
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "host": "gateway.example.com", "tlsSecret": "gateway-tls"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "from": _PEERS,
            "egressPorts": [8080],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5432}]}],
        },
        "service": {
            "type": "LoadBalancer",
            "port": 80,
            "annotations": {"example.com/internal": "true"},
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        "serviceAccount": {"annotations": {"example.com/role": "none"}},
        "image": {"digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "gateway", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
                }
            }
        },
        "priorityClassName": "high",
        "podAnnotations": {"example.com/team": "ai"},
        "podLabels": {"team": "ai"},
        "podDisruptionBudget": {"minAvailable": "50%"},
        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "2Gi"}},
    },
    "everything off": {
        "config": {
            **TREE,
            "pipeline_settings": {"allow_anonymous": True, "metrics_address": ""},
            "general_settings": {},
        },
        "serviceAccount": {"create": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "topologySpreadConstraints": [],
    },
    "keys in a Secret that exists": {"config": TREE, "keys": {"existingSecret": "ours", "existingSecretKey": "env"}},
    "four workers and another port": {
        "config": {
            **TREE,
            "pipeline_settings": {
                "workers": "4",
                "port": 8443,
                "metrics_address": "[::]:9999",
                "shutdown_delay_s": 30.5,
                "reasoning_store": "sqlite",
                "reasoning_store_file": "/var/lib/headrace/reasoning.db",
            },
        },
        "keys": {"envFile": ENV_FILE},
        "autoscaling": {"enabled": True, "inFlightPerWorker": 50},
    },
    "TLS of its own": {
        "config": {
            **TREE,
            "pipeline_settings": {"tls_certfile": "/etc/tls/tls.crt", "tls_keyfile": "/etc/tls/tls.key"},
        },
        "keys": {"existingSecret": "ours"},
        "extraVolumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
        "extraVolumeMounts": [{"name": "tls", "mountPath": "/etc/tls", "readOnly": True}],
    },
    "a volume": {**LEAST, "replicaCount": 1, "persistence": {"enabled": True, "storageClass": "fast"}},
    "a volume that exists": {**LEAST, "replicaCount": 1, "persistence": {"enabled": True, "existingClaim": "ours"}},
    "nothing is watched": {**LEAST, "pipelineSettings": {"watch_config": False}},
}
