"""Cases in which nothing is wrong, however it looks: no incident, no proposal."""

from __future__ import annotations

from tests.cases_plain import shop, store_front
from tests.cases_world import World, daily, nightly, times, to


def ok_peak() -> World:
    w = World("ok-daily-peak", "The evening peak, as on every day", days=9, now="2026-10-16T19:40:00Z")
    w.service("web", traffic=60, p99=0.15, calls=["search"])
    w.service("search", traffic=40, p99=0.1)
    w.rhythm(daily(0.55, 19.5), "web/traffic", "search/traffic")
    w.rhythm(daily(0.3, 19.5), "web/latency_p99", "search/latency_p99")
    w.expect("healthy")
    return w


def ok_batch() -> World:
    w = World(
        "ok-nightly-batch",
        "The nightly report at 02:00, as every night",
        days=10,
        hours_of_day=(1, 2),
        now="2026-10-16T02:14:00Z",
    )
    w.service("reports", traffic=5, p99=0.4)
    w.service("warehouse", traffic=8, p99=0.2)
    w.rhythm(nightly(2, 20, 6), "reports/traffic", "warehouse/traffic")
    w.rhythm(nightly(2, 20, 3), "warehouse/latency_p99")
    w.expect("healthy")
    return w


def ok_spike() -> World:
    w = shop(
        World("ok-one-sample", "One sample of latency and one of errors are far off, nothing before and after them")
    )
    w.shape("checkout/latency_p99", times(-9, 9, rise=0, end=-8.6, fall=0.01))
    w.shape("payments/error_ratio", to(-6, 0.4, rise=0, end=-5.6, fall=0.01))
    w.expect("healthy")
    return w


def ok_deploy() -> World:
    w = shop(World("ok-deploy-no-effect", "A deployment of checkout after which everything is as before"))
    w.change("checkout", -15, "deployment", "sha256:600d", "checkout 4.14.0: typed settings", "dana")
    w.log("checkout", "starting checkout 4.14.0", -15, on="checkout-1")
    w.log("checkout", "starting checkout 4.14.0", -14.4, on="checkout-2")
    w.expect("healthy")
    return w


def ok_scale_down() -> World:
    w = store_front(
        World(
            "ok-planned-scale-down",
            "search was scaled from six to three for the night; each works a bit harder",
            now="2026-10-16T23:10:00Z",
        )
    )
    w.change("search", -18, "scaling", "scale-41", "search from 6 to 3 replicas", "scheduler")
    w.shape("search/cpu_ratio", times(-17.5, 1.3, rise=2))
    w.shape("search/latency_p99", times(-17.5, 1.08, rise=2))
    w.target("search", replicas=3, replicas_1h_ago=6)
    w.expect("healthy")
    return w


def ok_alert() -> World:
    w = shop(World("ok-alert-without-cause", "A synthetic check paged; every measurement of the service is as usual"))
    w.alert("Synthetic check of /shop/order failed from eu-west-3", "SyntheticCheckFailed")
    w.expect("healthy")
    return w


def ok_recovered() -> World:
    w = shop(
        World("ok-recovered-at-once", "Half a minute of errors as a replica was moved; well again before anybody looks")
    )
    w.shape("checkout/error_ratio", to(-11, 0.3, rise=0, end=-10.4, fall=0.05))
    w.shape("web/error_ratio", to(-11, 0.25, rise=0, end=-10.4, fall=0.05))
    w.log("checkout", "connection to checkout-1 closed while draining", -11, on="checkout-1")
    w.expect("healthy")
    return w


def ok_muted() -> World:
    w = World("ok-maintenance", "A quarter of the requests fail during an announced maintenance")
    w.service("web", traffic=30, p99=0.15, calls=["archive"])
    w.service(
        "archive",
        traffic=9,
        p99=0.3,
        tier=4,
        muted=[{"from": "2026-10-14T10:00:00Z", "to": "2026-10-14T12:00:00Z", "reason": "storage is moved"}],
    )
    w.shape("archive/error_ratio", to(-18, 0.25))
    w.expect("healthy")
    return w


def ok_spam() -> World:
    w = shop(
        World("ok-log-spam", "A debug switch was left on: twenty times the log lines, no request is the worse for it")
    )
    w.log("payments", "DEBUG cache lookup {n} hit", -16, every_s=0.25, until=0)
    w.expect("healthy")
    return w


def ok_full_cache() -> World:
    w = World(
        "ok-memory-always-high", "A cache that fills its memory by design and stands at 88 % at all times", hours=5
    )
    w.service("web", traffic=55, p99=0.14, calls=["cache"])
    w.service("cache", traffic=180, p99=0.004, memory=0.875)
    w.expect("healthy")
    return w


def ok_disk_rotates() -> World:
    w = shop(World("ok-disk-rotates", "A log volume between 70 and 88 % that is rotated every hour", hours=6))
    w.gauge("worker/disk_ratio/worker-1", 0.7, noise=0.002)
    w.shape("worker/disk_ratio/worker-1", lambda minute, value: value + 0.18 * ((minute + 600) % 60) / 60)
    w.expect("healthy")
    return w


def ok_noisy() -> World:
    w = World(
        "ok-noisy-small-service", "A service with two requests a second: its p99 jumps all the time, as it always did"
    )
    w.service("exports", traffic=2.2, p99=0.8, errors=0.01, tier=4, replicas=1)
    w.service("portal", traffic=25, p99=0.2, calls=["exports"])
    w.noise("exports/latency_p99", 0.33)
    w.expect("healthy")
    return w


HEALTHY = (
    ok_peak, ok_batch, ok_spike, ok_deploy, ok_scale_down, ok_alert, ok_recovered, ok_muted, ok_spam, ok_full_cache,
    ok_disk_rotates, ok_noisy,
)  # fmt: skip
