"""Whether a property would notice: run it against a planted bug and see it fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Drawn = TypeVar("Drawn")


def finds_a_counterexample(
    inputs: st.SearchStrategy[Drawn], claim: Callable[[Drawn], None], *, examples: int = 500
) -> bool:
    """Say whether the claim fails for one of the inputs that the property would draw.

    Seeded, so that a planted bug is caught on every run or on none. The failure itself is not
    made small: that it exists is all that is asked.
    """

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def property_(drawn: Drawn) -> None:
        claim(drawn)

    try:
        property_()
    except AssertionError:
        return True
    return False
