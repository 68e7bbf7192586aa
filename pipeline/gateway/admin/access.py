"""Decides which clients may read the admin paths: those with the master key, and other keys for the metrics only."""

from __future__ import annotations

from typing import NamedTuple

import trio

from pipeline import ClientFault
from pipeline.gateway.client_address import Proxies
from pipeline.gateway.config.keys import ANONYMOUS, KeyStore
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.http.asgi import Scope
from pipeline.gateway.received_head import received_head
from pipeline.gateway.wrong_keys import WrongKeys
from stages.authenticate import identify, key_names
from stages.principal import Principal
from stages.slots import ReceivedHead


class Access(NamedTuple):
    """Decides it.

    Attributes:
        settings: the configuration.
        keys: those that it has.
        proxies: those that are trusted to name the client.
        wrong_keys: counts wrong keys; what it says delays the answers to them.
        is_metrics_address: whether the address is what protects the metrics, so that they need neither a key nor
            ``pipeline_settings.metrics``.
    """

    settings: Settings
    keys: KeyStore
    proxies: Proxies
    wrong_keys: WrongKeys
    is_metrics_address: bool = False

    def identify(self, head: ReceivedHead) -> Principal:
        """Return whose key a request has.

        Raises:
            ClientFault: as `stages.authenticate.identify` does.
        """
        own = self.settings.pipeline
        return identify(head, self.keys, ANONYMOUS if own.allow_anonymous else None, key_names(own.key_header))

    async def check_master(self, scope: Scope) -> None:
        """Return if a request has the master key; the answer to a wrong one may be delayed.

        Raises:
            ClientFault: if the request has another key, or as `identify` does.
        """
        if not (await self._principal(scope)).is_master:
            raise ClientFault(f"only the master key may use {scope['path']}", code="master_key_required")

    def check_exists(self, path: str) -> None:
        """Return if there is a master key, without which nobody could use a path.

        Raises:
            ClientFault: if there is none.
        """
        if self.settings.master_key is None:
            raise ClientFault(
                f"{path} needs a master key, and the configuration has none: set general_settings.master_key, or the "
                "environment variable HEADRACE_MASTER_KEY, and restart",
                code="route_not_found",
            )

    async def check_metrics(self, scope: Scope) -> None:
        """Return if a request may read the metrics; the answer to a wrong key may be delayed.

        Raises:
            ClientFault: if they are switched off, if the key may not read them, or as `identify` does.
        """
        if self.is_metrics_address:
            return
        own = self.settings.pipeline
        if not own.metrics:
            raise ClientFault(
                "the metrics are switched off: set pipeline_settings.metrics to true", code="route_not_found"
            )
        if own.metrics_without_key:
            return
        principal = await self._principal(scope)
        # Without any key the service accepts everybody for everything.
        if len(self.keys) and not (principal.is_master or principal.reads_metrics):
            raise ClientFault(
                "this key may not read the metrics: use the master key, or a key that has metrics: true",
                code="metrics_forbidden",
            )

    async def _principal(self, scope: Scope) -> Principal:
        head = received_head(scope, self.proxies)
        try:
            return self.identify(head)
        except ClientFault as error:
            await trio.sleep(self.wrong_keys.delay_of(error, head.client))
            raise
