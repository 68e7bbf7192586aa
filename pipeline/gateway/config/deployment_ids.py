"""The id of each deployment, by which logs, metrics and answers name it."""

from __future__ import annotations

from msgspec.structs import replace

from pipeline.gateway.config.limits import strictest
from pipeline.gateway.config.problems import Problems
from pipeline.gateway.config.yaml_tree import Node
from stages.upstreams import Deployment


def with_ids(found: list[tuple[Node, str | None, Deployment]], problems: Problems) -> tuple[Deployment, ...]:
    """Set each deployment's id: the one in the file, or its name, numbered when that is taken.

    What a key may have of a model is the same for all deployments of the group, as in LiteLLM: the least that one says.
    """
    groups: dict[str, list[Deployment]] = {}
    for _, _, deployment in found:
        groups.setdefault(deployment.model_name, []).append(deployment)
    of_keys = {name: strictest(one.key_limits for one in group) for name, group in groups.items()}
    taken: dict[str, Node] = {}
    for node, chosen, _ in found:
        if chosen is not None:
            if chosen in taken:
                problems.error(
                    node.place.of_field("model_info").of_field("id"),
                    f"is also that of the deployment on line {taken[chosen].line}: write another",
                )
            taken[chosen] = node
    named: list[Deployment] = []
    for node, chosen, deployment in found:
        name = chosen
        if name is None:
            name, count = deployment.model_name, 1
            while name in taken:
                count += 1
                name = f"{deployment.model_name}#{count}"
            taken[name] = node
        key_limits = of_keys[deployment.model_name]
        forms = {
            field: replace(form, id=name, key_limits=key_limits)
            for field in ("on_responses", "on_chat")
            if (form := getattr(deployment, field)) is not None
        }
        named.append(replace(deployment, id=name, key_limits=key_limits, **forms))
    return tuple(named)
