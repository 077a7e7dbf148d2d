"""``python -m tests.services.matrix.worker``: ``proxywell worker`` but for the checker.

What it is to do is JSON in the environment (``PROXYWELL_MATRIX``): see ``Orders``.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from functools import partial

import proxywell.worker
from proxywell.config.schema import RedisSettings, Settings
from proxywell.config.secret import Secret
from proxywell.errors import ProxywellError
from proxywell.refresh.ledgers.redis import RedisLedger, rule_book
from proxywell.refresh.ports import CandidateChecker
from proxywell.telemetry.remarks import listen
from tests.services.matrix.orders import Orders
from tests.services.matrix.scripted import scripted_checker


def main() -> int:
    orders = Orders.told()
    listen(form="text", level="debug")
    settings = Settings(
        redis=RedisSettings(url=Secret(orders.url), answer_s=orders.answer_s),
        refresh=orders.refresh,
    )
    if orders.defect:
        defective = partial(RedisLedger, rules=rule_book(orders.defect))
        vars(proxywell.worker)["RedisLedger"] = defective
    script = orders.script

    def checker_of(_: Settings) -> AbstractAsyncContextManager[CandidateChecker]:
        return scripted_checker(script)

    try:
        return proxywell.worker.run_worker(settings, workers=orders.children, checker_of=checker_of)
    except ProxywellError as error:
        sys.stderr.write(f"proxywell: {error}\n")
        return error.exit_status


if __name__ == "__main__":
    raise SystemExit(main())
