"""Cases that lead astray: innocent changes, louder neighbours, sources that are away, evidence that contradicts itself,
two things at once."""

from __future__ import annotations

from tests.cases_plain import bank, shop, store_front
from tests.cases_stories import expect_overload, orders_surge
from tests.cases_world import World, climb, silent, times, to


def red_old_change() -> World:
    w = shop(
        World(
            "red-change-40-min-earlier",
            "Too much load; a deployment 40 minutes earlier ran well until then",
            minutes=18,
        )
    )
    w.change("checkout", -52, "deployment", "sha256:a1b2", "checkout 4.11.2: new button colour", "dana")
    orders_surge(w, -13, 2.8, busy=0.95, slower=11, web_slower=8)
    expect_overload(w, ["sha256:a1b2", "(?i)bad (change|deploy)"])
    return w


def red_two_deploys() -> World:
    w = shop(World("red-two-deployments", "web and payments were deployed in the same minute; only payments is broken"))
    w.change("web", -13, "deployment", "sha256:11aa", "web 8.2.0: footer", "eve")
    w.change("payments", -12.8, "deployment", "sha256:22bb", "payments 3.9.0: new card network", "lee")
    for service, level in (("payments", 0.22), ("checkout", 0.2), ("web", 0.18), ("worker", 0.2)):
        w.shape(f"{service}/error_ratio", to(-12.3, level))
    w.log("payments", "card network rejected request {n}: unsupported version 3", -12.3, every_s=1.2, until=0)
    w.expect(
        "cause",
        "bad_change",
        "payments",
        evidence=[{"change": "sha256:22bb"}, {"series": "payments/error_ratio"}],
        forbidden=["sha256:11aa.{0,40}(cause|broke|since)"],
    )
    return w


def red_deploy_elsewhere() -> World:
    w = shop(
        World(
            "red-deploy-of-caller",
            "A payments replica leaks; web was deployed just as it crossed its bound",
            now="2026-10-23T16:48:00Z",
        )
    )
    w.change("web", -9, "deployment", "sha256:33cc", "web 8.2.1: translations", "eve")
    w.shape("payments/memory_ratio/payments-1", climb(-33, 0.017, 0.97))
    w.expect(
        "cause",
        "memory",
        "payments",
        evidence=[{"series": "payments/memory_ratio/payments-1"}],
        forbidden=["sha256:33cc", "(?i)bad (change|deploy)"],
    )
    return w


def red_more_traffic() -> World:
    w = shop(
        World("red-harmless-traffic", "A fifth more traffic than usual while checkout-2 leaks: load is not the cause")
    )
    for service in ("web", "checkout", "payments"):
        w.shape(f"{service}/traffic", times(-22, 1.2, rise=4))
    w.shape("checkout/memory_ratio/checkout-2", climb(-27, 0.023, 0.96))
    w.expect(
        "cause",
        "memory",
        "checkout",
        evidence=[{"series": "checkout/memory_ratio/checkout-2"}],
        forbidden=["(?i)saturat", "(?i)surge"],
    )
    return w


def red_log_spam() -> World:
    w = store_front(World("red-log-spam", "search writes thousands of warnings that mean nothing; catalog leaks"))
    w.log("search", "WARN deprecated field ranking.v1 in query {n}", -20, every_s=0.3, until=0)
    w.shape("catalog/memory_ratio/catalog-1", climb(-24, 0.024, 0.97))
    w.expect(
        "cause",
        "memory",
        "catalog",
        evidence=[{"series": "catalog/memory_ratio/catalog-1"}],
        forbidden=["(?i)deprecated", "search (is|was) the cause"],
    )
    return w


def red_noisy_neighbour() -> World:
    w = store_front(
        World(
            "red-noisy-neighbour",
            "search is a little slow by itself; catalog's new release breaks the rest",
            minutes=26,
        )
    )
    w.shape("search/latency_p99", times(-24, 1.5, rise=2))
    w.change("catalog", -14, "deployment", "sha256:c4c4", "catalog 2.32.0: stock by region", "max")
    w.shape("catalog/error_ratio", to(-13.5, 0.33))
    for above, level in (("web", 0.19), ("mobile", 0.3), ("edge", 0.2)):
        w.shape(f"{above}/error_ratio", to(-13.3, level))
    w.log(
        "catalog", "ERROR stock of region {n} cannot be read: column region does not exist", -13.5, every_s=1, until=0
    )
    w.expect(
        "cause",
        "bad_change",
        "catalog",
        evidence=[{"change": "sha256:c4c4"}, {"series": "catalog/error_ratio"}],
        forbidden=["search (is|was) the cause"],
    )
    return w


def red_scaling() -> World:
    w = shop(World("red-scaled-at-the-time", "payments was scaled as a commit broke it: the scaling is innocent"))
    w.change("payments", -12.5, "scaling", "scale-3", "payments from 2 to 3 replicas", "autoscaler")
    w.change("payments", -12, "configuration", "deadbeef01", "payments: stricter currency check", "lee")
    for service, level in (("payments", 0.4), ("checkout", 0.37), ("web", 0.33), ("worker", 0.38)):
        w.shape(f"{service}/error_ratio", to(-11.6, level))
    w.target("payments", replicas=3, instances=[{"name": f"payments-{at}"} for at in (1, 2, 3)])
    w.expect(
        "cause",
        "bad_change",
        "payments",
        evidence=[{"change": "deadbeef01"}],
        forbidden=["scal(ing|ed) .{0,30}(cause|broke)"],
    )
    return w


def red_callee_slow_too() -> World:
    w = bank(
        World(
            "red-waiting-holds-memory", "Requests wait for a changed ledger and hold memory in the gateway: a symptom"
        )
    )
    w.service("gateway", traffic=70, p99=0.24, tier=1, memory=0.55)
    w.change("ledger", -15, "configuration", "facade99", "ledger: serialise writes", "sam")
    w.shape("ledger/latency_p99", times(-14.6, 14, rise=1))
    for above, factor in (("accounts", 8), ("transfers", 7), ("gateway", 6)):
        w.shape(f"{above}/latency_p99", times(-14.4, factor, rise=1))
    for replica in ("gateway-1", "gateway-2"):
        w.shape(f"gateway/memory_ratio/{replica}", times(-14, 1.45, rise=4))
    w.expect(
        "cause",
        "bad_change",
        "ledger",
        evidence=[{"change": "facade99"}, {"series": "ledger/latency_p99"}],
        forbidden=["(?i)leak"],
    )
    return w


def miss_logs() -> World:
    w = shop(World("miss-logs-and-traces", "A leak while neither logs nor traces can be read"))
    w.down = {"logs": "connection refused by 10.0.4.17:3100", "traces": "no answer in 10 s"}
    w.shape("checkout/memory_ratio/checkout-1", climb(-25, 0.026, 0.97))
    w.expect("cause", "memory", "checkout", evidence=[{"series": "checkout/memory_ratio/checkout-1"}])
    return w


def miss_graph() -> World:
    w = shop(World("miss-graph", "Too much load, and nobody knows who calls whom: nothing may be done by the bot"))
    w.no_graph()
    w.shape("checkout/traffic", times(-13, 3.1, rise=3))
    w.shape("checkout/cpu_ratio", to(-12, 0.96, rise=2))
    w.shape("checkout/latency_p99", times(-11.5, 12, rise=4))
    w.expect(
        "cause",
        "saturation",
        "checkout",
        approve=False,
        evidence=[{"series": "checkout/traffic"}, {"series": "checkout/latency_p99"}],
    )
    return w


def miss_root() -> World:
    w = bank(
        World("miss-metrics-of-root", "The ledger's metrics stop and the services above it get slow: it cannot be seen")
    )
    for series in ("traffic", "latency_p99", "error_ratio", "memory_ratio/ledger-1", "memory_ratio/ledger-2"):
        w.shape(f"ledger/{series}", silent(-14))
    for above, factor in (("accounts", 5), ("transfers", 5), ("gateway", 4)):
        w.shape(f"{above}/latency_p99", times(-13, factor, rise=1.5))
    w.expect(
        "insufficient_evidence",
        service="ledger",
        acceptable={"services": ["accounts", "transfers"]},
        forbidden=["(?i)memory leak", "(?i)bad (change|deploy)"],
    )
    return w


def miss_changes() -> World:
    w = shop(World("miss-changes", "Errors jump while the source of changes is down: a change is likely and not shown"))
    w.no_changes()
    w.down = {"changes": "git fetch: could not resolve host git.internal"}
    for service, level in (("payments", 0.35), ("checkout", 0.32), ("web", 0.3), ("worker", 0.33)):
        w.shape(f"{service}/error_ratio", to(-12, level))
    w.expect("insufficient_evidence", service="payments", acceptable={"categories": ["bad_change"]})
    return w


def miss_target() -> World:
    w = shop(World("miss-target", "A leak, and the cluster's API does not answer: there is nothing to act on"))
    w.target("checkout", unreadable="the API server at 10.0.0.1:6443 does not answer")
    w.shape("checkout/memory_ratio/checkout-2", climb(-26, 0.025, 0.97))
    w.expect("cause", "memory", "checkout", approve=False, evidence=[{"series": "checkout/memory_ratio/checkout-2"}])
    return w


def conflict_slow() -> World:
    w = shop(
        World(
            "conflict-slow-for-no-reason",
            "payments is four times slower; load, memory, errors and changes are as usual",
        )
    )
    w.shape("payments/latency_p99", times(-12, 4.5, rise=2))
    w.shape("checkout/latency_p99", times(-11.5, 2.6, rise=2))
    w.shape("web/latency_p99", times(-11.5, 2.1, rise=2))
    w.expect(
        "insufficient_evidence",
        service="payments",
        forbidden=["(?i)memory leak", "(?i)bad (change|deploy)", "(?i)saturat"],
    )
    return w


def conflict_change_after() -> World:
    w = shop(
        World(
            "conflict-change-came-after",
            "Errors began eight minutes before the deployment that is near them",
            minutes=23,
        )
    )
    for service, level in (("payments", 0.25), ("checkout", 0.23), ("web", 0.21), ("worker", 0.24)):
        w.shape(f"{service}/error_ratio", to(-19, level))
    w.change("payments", -11, "deployment", "sha256:9e9e", "payments 3.9.1: log more about failures", "lee")
    w.expect(
        "insufficient_evidence",
        service="payments",
        forbidden=["sha256:9e9e.{0,60}(cause|broke)", "since.{0,20}sha256:9e9e"],
    )
    return w


def conflict_drop() -> World:
    w = store_front(
        World("conflict-traffic-drops", "Four fifths of the traffic are gone at the edge, nothing is broken here")
    )
    for service in ("edge", "web", "mobile", "search", "catalog", "index"):
        w.shape(f"{service}/traffic", times(-13, 0.2, rise=1))
    w.expect("insufficient_evidence", service="edge", forbidden=["(?i)memory leak", "(?i)bad (change|deploy)"])
    return w


def two_unrelated() -> World:
    w = shop(
        World("two-memory-and-disk", "A leak in checkout and a full disk of the worker, at the same time", minutes=22)
    )
    w.gauge("worker/disk_ratio/worker-1", 0.52, noise=0.002)
    w.shape("worker/disk_ratio/worker-1", climb(-24, 0.024, 0.975))
    w.log("worker", "DEBUG row {n} of settlement written", -24, every_s=0.5, until=0)
    w.shape("checkout/memory_ratio/checkout-1", climb(-27, 0.022, 0.97))
    w.expect(
        "cause",
        "memory",
        "checkout",
        also=[{"service": "worker", "category": "disk"}],
        evidence=[{"series": "checkout/memory_ratio/checkout-1"}, {"series": "worker/disk_ratio/worker-1"}],
    )
    return w


def two_branches() -> World:
    w = store_front(
        World("two-change-and-leak", "search's release fails; catalog leaks; neither comes of the other", minutes=20)
    )
    w.change("search", -13, "deployment", "sha256:5ea2", "search 7.7.0: typo tolerance", "ivo")
    w.shape("search/error_ratio", to(-12.5, 0.28))
    w.shape("web/error_ratio", to(-12.4, 0.14))
    w.shape("edge/error_ratio", to(-12.4, 0.08))
    w.log("search", "ERROR query {n} failed: edit distance is negative", -12.5, every_s=1.5, until=0)
    w.shape("catalog/memory_ratio/catalog-2", climb(-25, 0.023, 0.96))
    w.expect(
        "cause",
        "bad_change",
        "search",
        also=[{"service": "catalog", "category": "memory"}],
        evidence=[{"change": "sha256:5ea2"}, {"series": "catalog/memory_ratio/catalog-2"}],
    )
    return w


MISLEADING = (
    red_old_change, red_two_deploys, red_deploy_elsewhere, red_more_traffic, red_log_spam, red_noisy_neighbour,
    red_scaling, red_callee_slow_too,
    miss_logs, miss_graph, miss_root, miss_changes, miss_target,
    conflict_slow, conflict_change_after, conflict_drop,
    two_unrelated, two_branches,
)  # fmt: skip
