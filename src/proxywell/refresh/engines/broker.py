"""Celery's way to the queue, for messages that may be lost: what guards messages is left out.

* A message that cannot be read is ignored, where kombu would end the worker's main.
* Nothing is noted of what was fetched (``ack_emulation``). With it a doorbell that is begun while
  Redis is away cannot be struck off, counts as in hand for ever, and the main, with all its
  children idle, never fetches again; nothing says so.
* What was fetched and not begun is not put back when a connection is lost: kombu 5.7 does so by a
  connection that is gone by then, which ends the main (docs/adr/0001-ledger-not-chord.md).
* A lost connection is tried again every two seconds at the latest, not every thirty.
"""

from __future__ import annotations

from typing import Any, Final

from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport.redis import Channel, Transport

from proxywell.telemetry.events import emit
from proxywell.telemetry.work import DoorbellIgnored

TRANSPORT_OPTIONS: Final[dict[str, Any]] = {"ack_emulation": False}
_AGAIN: Final = {"interval_start": 0.25, "interval_step": 0.25, "interval_max": 2.0}
_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError)


class _DoorbellChannel(Channel):
    do_restore = False

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call] # kombu's own
        except _UNREADABLE as error:
            emit(DoorbellIgnored(reason=f"it cannot be read ({type(error).__name__})"))
            return True


class _DoorbellTransport(Transport):
    Channel = _DoorbellChannel


class _DoorbellConnection(Connection):
    def get_transport_cls(self) -> type[Transport]:
        return _DoorbellTransport

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(*args, **(_AGAIN | kwargs))  # type: ignore[no-untyped-call] # kombu's own


class DoorbellAMQP(AMQP):  # type: ignore[misc] # Celery has no types
    """What a Celery app of ours sends and hears with."""

    Connection = _DoorbellConnection
