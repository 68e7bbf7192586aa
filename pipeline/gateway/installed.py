"""The stages that can be configured: what is installed, and those for experiments."""

from __future__ import annotations

from msgspec.structs import replace

from pipeline.gateway.config.settings import Settings
from pipeline.registry import Plugins, discover
from stages.chaos import CHAOS


def known_plugins() -> Plugins:
    """Return what is installed, and the stages for experiments, unless something installed has their names."""
    plugins = discover()
    for plugin in CHAOS:
        if plugin.name not in plugins.broken:
            plugins.setdefault(plugin.name, plugin)
    return plugins


def check_stages(settings: Settings) -> Plugins:
    """Check that the configured stages fit; return what is installed.

    Raises:
        PluginError: if one does not.
    """
    from pipeline.gateway.generation import Generation

    plugins = known_plugins()
    Generation(settings, plugins=plugins, on_end=lambda record: None)
    return plugins


def with_warnings(settings: Settings, plugins: Plugins) -> Settings:
    """Return the settings with the warnings about stages."""
    from pipeline.gateway.insertions import unmatched_models

    names = [deployment.model_name for deployment in settings.deployments]
    more = (*unmatched_models(settings.pipeline.stages, names), *plugins.warnings)
    return replace(settings, warnings=(*settings.warnings, *more))
