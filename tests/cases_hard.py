"""Cases whose cause is not where it hurts, or not what it looks like."""

from __future__ import annotations

from tests.cases_plain import shop, store_front
from tests.cases_stories import expect_overload, orders_surge
from tests.cases_world import World, climb, saw, times, to

DAY_S = 86_400.0


def hard_more_calls() -> World:
    w = shop(
        World(
            "hard-caller-asks-more", "A release of checkout asks payments three times for each order; payments is full"
        )
    )
    w.change("checkout", -14, "deployment", "sha256:3ca1", "checkout 4.15.0: ask all card networks at once", "dana")
    w.gauge("payments/cpu_ratio", 0.4, noise=0.05)
    w.shape("payments/traffic", times(-13.5, 3.0, rise=1))
    w.shape("payments/cpu_ratio", to(-13, 0.97, rise=1.5))
    w.shape("payments/latency_p99", times(-12.5, 12, rise=2))
    for above, factor in (("checkout", 7), ("web", 5), ("worker", 8)):
        w.shape(f"{above}/latency_p99", times(-12.4, factor, rise=2))
    w.expect(
        "cause",
        "bad_change",
        "checkout",
        acceptable={"categories": ["saturation"]},
        approve="either",
        evidence=[{"change": "sha256:3ca1"}, {"series": "payments/traffic"}],
        forbidden=["(?i)memory leak"],
    )
    return w


def hard_quota() -> World:
    w = World(
        "hard-quota", "A function is at its concurrency quota: calls above it are throttled", now="2026-11-12T15:31:00Z"
    )
    w.service("api", traffic=40, p99=0.3, tier=1, calls=["thumbnails"])
    w.service("thumbnails", traffic=25, p99=0.4, platform=None)
    w.chatter("api", "thumbnails")
    w.gauge("thumbnails/quota_ratio", 0.55, noise=0.03)
    w.shape("thumbnails/traffic", times(-14, 1.9, rise=3))
    w.shape("thumbnails/quota_ratio", to(-13, 1.0, rise=2))
    w.shape("thumbnails/error_ratio", to(-12, 0.23, rise=1))
    w.shape("api/error_ratio", to(-12, 0.15, rise=1))
    w.log(
        "thumbnails", "Rate exceeded: concurrency limit of 100 reached, call {n} throttled", -12, every_s=1.3, until=0
    )
    w.expect(
        "cause",
        "saturation",
        "thumbnails",
        approve=False,
        evidence=[{"series": "thumbnails/quota_ratio"}],
        forbidden=["(?i)bad (change|deploy)"],
    )
    return w


def hard_half_certificate() -> World:
    w = World(
        "hard-one-certificate-ended",
        "One of two auth servers has an ended certificate: every other log-in fails",
        now="2026-11-20T12:09:00Z",
    )
    w.service("portal", traffic=30, p99=0.22, tier=1, calls=["auth"])
    w.service("auth", traffic=28, p99=0.03, tier=1)
    w.chatter("portal", "auth")
    w.gauge("auth/cert_remaining/auth-1", 80 * DAY_S, drift=-60)
    w.gauge("auth/cert_remaining/auth-2", -540, drift=-60)
    w.shape("auth/error_ratio", to(-9, 0.5, rise=0.1))
    w.shape("portal/error_ratio", to(-9, 0.46, rise=0.1))
    w.log(
        "portal",
        "auth-2: tls: failed to verify certificate: x509: certificate has expired, request {n}",
        -9,
        every_s=1,
        until=0,
    )
    w.expect(
        "cause",
        "certificate",
        "auth",
        evidence=[{"series": "auth/cert_remaining/auth-2"}],
        forbidden=["(?i)bad (change|deploy)", "auth-1 .{0,30}(ended|expired)"],
    )
    return w


def hard_memory_of_load() -> World:
    w = shop(
        World("hard-memory-of-load", "Memory of every replica rises with three times the orders: load, not a leak")
    )
    orders_surge(w, -16, 3.1, busy=0.96, slower=13, web_slower=9, rise=3)
    for replica in ("checkout-1", "checkout-2"):
        w.shape(f"checkout/memory_ratio/{replica}", times(-15.5, 1.83, rise=3))
    expect_overload(w, ["(?i)probably a leak", "(?i)memory leak"])
    return w


def hard_reverted() -> World:
    w = shop(
        World(
            "hard-reverted-already", "A commit broke payments, and was reverted by hand six minutes later", minutes=24
        )
    )
    w.change("payments", -20, "configuration", "badc0de1", "payments: new fraud rules", "lee")
    w.change("payments", -13, "configuration", "badc0de2", 'Revert "payments: new fraud rules"', "sam")
    for service, level in (("payments", 0.38), ("checkout", 0.35), ("web", 0.3), ("worker", 0.36)):
        w.shape(f"{service}/error_ratio", to(-19.6, level, end=-12.8))
    w.expect(
        "cause", "bad_change", "payments", evidence=[{"change": "badc0de1"}], forbidden=["badc0de2.{0,40}(cause|broke)"]
    )
    return w


def hard_outside() -> World:
    w = World("hard-outside-provider", "A mail provider that nobody measures is slow; only what calls it can be seen")
    w.service("shop", traffic=35, p99=0.2, calls=["mailer"])
    w.service("mailer", traffic=6, p99=0.25, cpu=0.2, memory=0.4)
    w.chatter("shop", "mailer")
    w.shape("mailer/latency_p99", times(-13, 20, rise=1))
    w.log("mailer", "smtp.provider.example answered after 4900 ms, message {n}", -13, every_s=2, until=0)
    w.expect(
        "insufficient_evidence",
        service="mailer",
        forbidden=["(?i)memory leak", "(?i)bad (change|deploy)", "(?i)saturat"],
    )
    return w


def hard_two_leaks() -> World:
    w = store_front(
        World("hard-leak-and-surge", "catalog leaks; minutes later an advert doubles the traffic of search", minutes=18)
    )
    w.shape("catalog/memory_ratio/catalog-1", climb(-26, 0.024, 0.97))
    w.shape("search/traffic", times(-12, 2.4, rise=2))
    w.shape("search/cpu_ratio", to(-11.5, 0.97, rise=2))
    w.shape("search/latency_p99", times(-11, 9, rise=2))
    for above, factor in (("web", 3), ("edge", 2.4)):
        w.shape(f"{above}/latency_p99", times(-10.8, factor, rise=2))
    w.expect(
        "cause",
        "saturation",
        "search",
        also=[{"service": "catalog", "category": "memory"}],
        evidence=[{"series": "search/traffic"}, {"series": "catalog/memory_ratio/catalog-1"}],
    )
    return w


def ok_faster() -> World:
    w = shop(
        World(
            "ok-release-is-faster", "A release makes checkout twice as fast: a change, and nobody is the worse for it"
        )
    )
    w.change("checkout", -15, "deployment", "sha256:fa57", "checkout 4.16.0: prices are cached", "dana")
    w.shape("checkout/latency_p99", times(-14.5, 0.5, rise=1))
    w.shape("web/latency_p99", times(-14.5, 0.7, rise=1))
    w.expect("healthy")
    return w


def ok_renewed() -> World:
    w = shop(World("ok-certificate-renewed", "A certificate with eight days left is renewed for ninety"))
    w.gauge("web/cert_remaining/web-1", 8 * DAY_S, drift=-60)
    w.shape("web/cert_remaining/web-1", to(-12, 90 * DAY_S, rise=0))
    w.expect("healthy")
    return w


def ok_saw() -> World:
    w = World("ok-memory-collected", "Memory climbs to 82 % and is collected, every forty minutes for hours", hours=5)
    w.service("web", traffic=40, p99=0.15, calls=["feed"])
    w.service("feed", traffic=30, p99=0.09, memory=0.5)
    w.shape("feed/memory_ratio/feed-1", saw(-400, 40, 0.45, 0.82))
    w.shape("feed/memory_ratio/feed-2", saw(-380, 40, 0.45, 0.82))
    w.expect("healthy")
    return w


HARD = (
    hard_more_calls, hard_quota, hard_half_certificate, hard_memory_of_load, hard_reverted, hard_outside,
    hard_two_leaks,
    ok_faster, ok_renewed, ok_saw,
)  # fmt: skip
