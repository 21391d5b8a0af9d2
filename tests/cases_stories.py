"""Stories that several recorded cases tell, each with figures of its own."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cases_world import World, times, to


def orders_surge(
    w: World, begin: float, load: float, *, busy: float, slower: float, web_slower: float, rise: float = 4
) -> None:
    """From minute ``begin`` on ``load`` times the orders come in by web; checkout gets ``busy`` and slow, then web."""
    for service in ("web", "checkout"):
        w.shape(f"{service}/traffic", times(begin, load, rise=3))
    w.shape("checkout/cpu_ratio", to(begin + 1, busy, rise=2))
    w.shape("checkout/latency_p99", times(begin + 1.5, slower, rise=rise))
    w.shape("web/latency_p99", times(begin + 2, web_slower, rise=rise))


def expect_overload(w: World, forbidden: Sequence[str]) -> None:
    """Too many orders for checkout; that web passes them on is right as well."""
    w.expect(
        "cause",
        "saturation",
        "checkout",
        acceptable={"services": ["web"]},
        evidence=[{"series": "checkout/traffic"}],
        forbidden=list(forbidden),
    )
