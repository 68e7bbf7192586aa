"""A reload: read the configuration again, and have a new generation serve it; or say why not, and change nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from pipeline.errors import places_of
from pipeline.gateway.config.problems import ConfigError, Problem, listed, safe_name
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.generations import Generations, ReloadRefusedError
from pipeline.gateway.logs import Log, set_level
from pipeline.gateway.restarts import OF_A_PROCESS, OF_THE_SERVICE, needed_restart
from pipeline.registry import PluginError, Plugins
from stages.reasoning.store import StoreError

Reread = Callable[[], tuple[Settings, Plugins]]
"""Reads the configuration as at the start, with the same command line, and finds the plugins that are installed now."""

log = logging.getLogger("headrace")


class Reloader:
    """Reloads when it is called. It logs what came of it, and never raises.

    Args:
        generations: what serves.
        reread: reads the configuration; it is called in a thread.
        log: where requests are logged, for ``log_level``.
        is_worker: whether a supervisor has read what the service as a whole needs, and says itself if that has changed:
            it may have started before this process, with other settings.
    """

    def __init__(self, generations: Generations, reread: Reread, log: Log, *, is_worker: bool = False) -> None:
        self._generations = generations
        self._reread = reread
        self._log = log
        self._started = generations.current.settings.pipeline
        self._fixed = [OF_A_PROCESS] if is_worker else [OF_THE_SERVICE, OF_A_PROCESS]

    async def __call__(self) -> None:
        """Reload. Call it again only when it has returned, as the server does (`http.coalesced`)."""
        before = self._generations.current
        try:
            settings, plugins = await trio.to_thread.run_sync(self._reread)
            await self._generations.reload(settings, plugins)
        except ConfigError as error:
            self._log_failure("; ".join(error.problems))
        except PluginError as error:
            self._log_failure("; ".join(error.problems) or str(error))
        except (StoreError, OSError, ReloadRefusedError) as error:
            self._log_failure(str(error))
        except Exception as error:  # a plugin's, or a bug: its text may be anything
            self._log_failure(places_of(error))
        else:
            set_level(self._log, settings.pipeline.log_level)
            for warning in new_warnings(before.settings.found_warnings, settings.found_warnings):
                log.warning(warning)
            if lost := _names(before.settings) - _names(settings):
                log.warning("no longer served: %s", listed(safe_name(name) for name in sorted(lost)))
            if self._generations.current.reasoning is not before.reasoning and before.reasoning is not None:
                log.warning("%s", _changed_store(settings.pipeline))
            for fixed in self._fixed:
                if remark := needed_restart(fixed, self._started, settings.pipeline):
                    log.warning(remark)

    def _log_failure(self, reason: str) -> None:
        number = self._generations.current.number
        log.error("configuration not reloaded, generation %d goes on: %s", number, reason)


def new_warnings(before: Iterable[Problem], now: Iterable[Problem]) -> list[Problem]:
    """Return the warnings that the configuration before did not cause; a line that has only moved causes no new one."""
    known = {(warning.file, warning.path, warning.message) for warning in before}
    return [warning for warning in now if (warning.file, warning.path, warning.message) not in known]


def _names(settings: Settings) -> set[str]:
    return {deployment.model_name for deployment in settings.deployments}


def _changed_store(own: PipelineSettings) -> str:
    if not own.restore_reasoning:
        return "restore_reasoning is off now: what was remembered of the models' reasoning is forgotten"
    if own.reasoning_store == "memory":
        return (
            "the settings of the reasoning store have changed: it is a new one, and running conversations go on "
            "without the reasoning of their earlier turns"
        )
    return "the settings of the reasoning store have changed: it was opened anew"
