"""Cases of one service that runs out of something: memory, or capacity under load."""

from __future__ import annotations

from tests.cases_stories import orders_surge
from tests.cases_world import World, bursts, climb, saw, times, to


def shop(world: World, *, platform: str | None = "kubernetes", load: float = 1.0) -> World:
    """web → checkout → payments, and a worker that settles with payments: the demo's services."""
    world.service("web", traffic=24 * load, p99=0.13, replicas=1, tier=2, platform=platform, calls=["checkout"])
    world.service(
        "checkout", traffic=14 * load, p99=0.095, cpu=0.38, memory=0.5, tier=1, platform=platform, calls=["payments"]
    )
    world.service("payments", traffic=15 * load, p99=0.042, memory=0.42, tier=1, platform=platform)
    world.service("worker", traffic=1.0, p99=0.07, replicas=1, tier=3, platform=platform, calls=["payments"])
    world.chatter("web", "checkout", "payments", "worker")
    return world


def store_front(world: World, *, load: float = 1.0) -> World:
    """edge → web → search, catalog → index; mobile → catalog: a wider graph with two ways in."""
    world.service("edge", traffic=160 * load, p99=0.21, tier=1, calls=["web", "mobile"])
    world.service("web", traffic=90 * load, p99=0.18, replicas=3, calls=["search", "catalog"])
    world.service("mobile", traffic=60 * load, p99=0.16, calls=["catalog"])
    world.service("search", traffic=45 * load, p99=0.11, cpu=0.45, replicas=3, calls=["index"])
    world.service("catalog", traffic=110 * load, p99=0.06, cpu=0.3, memory=0.55, calls=["index"])
    world.service("index", traffic=120 * load, p99=0.025, cpu=0.5, tier=1)
    world.chatter("search", "catalog", "index")
    return world


def bank(world: World) -> World:
    """gateway → accounts, transfers → ledger → ledger-db: a chain of five with a database at its end."""
    world.service("gateway", traffic=70, p99=0.24, tier=1, calls=["accounts", "transfers"])
    world.service("accounts", traffic=44, p99=0.12, calls=["ledger"])
    world.service("transfers", traffic=26, p99=0.17, tier=1, calls=["ledger"])
    world.service("ledger", traffic=70, p99=0.08, memory=0.58, tier=1, calls=["ledger-db"])
    world.service("ledger-db", traffic=75, p99=0.021, tier=1, replicas=1, platform=None)
    world.chatter("gateway", "ledger", "ledger-db")
    return world


def mem_gradual() -> World:
    w = shop(World("mem-gradual-leak", "One checkout replica leaks slowly until it is near its limit", hours=4))
    w.shape("checkout/memory_ratio/checkout-1", climb(-95, 0.0047, 0.95))
    w.shape("checkout/latency_p99", times(-14, 1.15, rise=10))
    w.expect(
        "cause",
        "memory",
        "checkout",
        evidence=[{"series": "checkout/memory_ratio/checkout-1"}],
        forbidden=["(?i)roll ?back", "certificate", "disk"],
    )
    return w


def mem_fast() -> World:
    w = shop(
        World(
            "mem-fast-leak",
            "A payments replica eats half of its memory in a quarter of an hour",
            now="2026-10-20T03:17:00Z",
        ),
        platform="local_process",
    )
    w.shape("payments/memory_ratio/payments-2", climb(-20, 0.036, 0.96))
    w.log("payments", "cache grew to {n} entries, eviction is off", -19, every_s=4, until=0, on="payments-2")
    w.expect(
        "cause",
        "memory",
        "payments",
        evidence=[{"series": "payments/memory_ratio/payments-2"}],
        forbidden=["(?i)traffic (surge|rose)", "certificate"],
    )
    return w


def mem_oom_loop() -> World:
    w = shop(
        World(
            "mem-oom-loop",
            "checkout-2 is killed at its limit again and again; every kill costs requests",
            minutes=34,
            notes="Memory never stays high: between kills it is low. The kills show in logs.",
        )
    )
    w.shape("checkout/memory_ratio/checkout-2", saw(-52, 9, 0.42, 0.99))
    w.shape("checkout/error_ratio", bursts(-25, 9, 2.5, 0.17))
    w.shape("web/error_ratio", bursts(-25, 9, 2.5, 0.15))
    w.shape("checkout/latency_p99", bursts(-25, 9, 2.5, 0.31))
    for kill in (-25, -16, -7):
        w.log(
            "checkout", "container checkout-2 terminated: OOMKilled, exit code 137, restart {n}", kill, on="checkout-2"
        )
        w.log("checkout", "java.lang.OutOfMemoryError: Java heap space", kill - 0.1, on="checkout-2")
        w.kernel("checkout", kill, "process", "checkout-2: out-of-memory kill of pid 41, restarted", 1.0, "checkout-2")
    w.target("checkout", instances=[{"name": "checkout-1"}, {"name": "checkout-2", "ready": False}])
    w.expect("cause", "memory", "checkout", evidence=[{"log": "OOMKilled"}], forbidden=["(?i)bad (change|deploy)"])
    return w


def mem_all_replicas_after_image() -> World:
    w = shop(
        World("mem-leak-since-image", "Every checkout replica leaks since the image of 40 minutes ago", minutes=44)
    )
    w.change("checkout", -40, "deployment", "sha256:77aa01c2", "checkout 4.12.0: keep sessions in memory", "dana")
    for replica in ("checkout-1", "checkout-2"):
        w.shape(f"checkout/memory_ratio/{replica}", climb(-39, 0.0118, 0.97))
    w.expect(
        "cause",
        "memory",
        "checkout",
        acceptable={"categories": ["bad_change"]},
        approve="either",
        evidence=[{"series": "checkout/memory_ratio"}, {"change": "sha256:77aa01c2"}],
    )
    return w


def mem_hurts_callers() -> World:
    w = store_front(
        World("mem-leak-slows-callers", "A leak in catalog makes its garbage collector slow web and mobile")
    )
    w.shape("catalog/memory_ratio/catalog-2", climb(-28, 0.021, 0.97))
    w.shape("catalog/cpu_ratio", times(-13, 1.9, rise=5))
    w.shape("catalog/latency_p99", times(-11, 7, rise=4))
    for above, factor in (("web", 3.1), ("mobile", 3.4), ("edge", 2.6)):
        w.shape(f"{above}/latency_p99", times(-10.5, factor, rise=4))
    w.trace(
        -5, ("edge", "GET /", 0.61, False), ("mobile", "GET /home", 0.55, False), ("catalog", "GET /items", 0.47, False)
    )
    w.trace(
        -3, ("edge", "GET /", 0.58, False), ("web", "GET /list", 0.52, False), ("catalog", "GET /items", 0.46, False)
    )
    w.log(
        "catalog",
        "GC pause {n}: full collection took 1840 ms, heap 97 % after",
        -12,
        every_s=9,
        until=0,
        on="catalog-2",
    )
    w.expect(
        "cause",
        "memory",
        "catalog",
        evidence=[{"series": "catalog/memory_ratio/catalog-2"}],
        forbidden=["index is the cause"],
    )
    return w


def mem_new_service() -> World:
    w = shop(
        World(
            "mem-no-baseline",
            "A service that is half an hour old leaks; nothing is known of what is usual for it",
            now="2026-10-21T13:05:00Z",
        )
    )
    w.service("gift-cards", traffic=6, p99=0.08, tier=3, memory=0.55, born=-31, calls=["payments"])
    w.change("gift-cards", -31, "deployment", "sha256:5e11", "gift-cards 0.1.0: first release", "kim")
    w.shape("gift-cards/memory_ratio/gift-cards-1", climb(-24, 0.027, 0.96))
    w.expect("cause", "memory", "gift-cards", evidence=[{"series": "gift-cards/memory_ratio/gift-cards-1"}])
    return w


def sat_surge() -> World:
    w = shop(
        World("sat-surge", "Three times the orders: two checkout replicas cannot keep up"), platform="local_process"
    )
    orders_surge(w, -14, 3.0, busy=0.94, slower=14, web_slower=10)
    w.shape("payments/traffic", times(-14, 1.5, rise=3))
    w.expect(
        "cause",
        "saturation",
        "checkout",
        acceptable={"services": ["web"]},
        evidence=[{"series": "checkout/traffic"}, {"series": "checkout/latency_p99"}],
        forbidden=["(?i)memory leak", "(?i)bad (change|deploy)"],
    )
    return w


def sat_cpu() -> World:
    w = World(
        "sat-cpu-bound",
        "A campaign doubles the searches; search runs out of CPU, its callers wait",
        now="2026-11-06T18:30:00Z",
    )
    w.service("web", traffic=80, p99=0.2, calls=["search"])
    w.service("search", traffic=40, p99=0.12, replicas=4, cpu=0.52, calls=["index"])
    w.service("index", traffic=42, p99=0.02, memory=0.5)
    w.chatter("web", "search", "index")
    w.shape("search/traffic", times(-13, 2.2, rise=4))
    w.shape("search/cpu_ratio", to(-12, 0.985, rise=3))
    w.shape("search/latency_p99", times(-11, 8, rise=4))
    w.shape("web/latency_p99", times(-10.5, 4.5, rise=4))
    w.shape("index/traffic", times(-13, 2.1, rise=4))
    w.log("search", "request queue full, {n} requests wait", -10, every_s=3, until=0)
    w.expect("cause", "saturation", "search", evidence=[{"series": "search/cpu_ratio"}, {"series": "search/traffic"}])
    return w


def sat_partner() -> World:
    w = store_front(
        World("sat-one-caller", "Only the partner feed asks three times as much; everybody on search waits")
    )
    w.service("partner-feed", traffic=22, p99=0.3, tier=4, calls=["search"])
    w.shape("partner-feed/traffic", times(-15, 4.2, rise=2))
    w.shape("search/traffic", times(-15, 2.5, rise=2))
    w.shape("search/cpu_ratio", to(-14, 0.96, rise=3))
    w.shape("search/latency_p99", times(-13, 9, rise=4))
    for caller, factor in (("partner-feed", 3.5), ("web", 3.2), ("edge", 2.7)):
        w.shape(f"{caller}/latency_p99", times(-12.5, factor, rise=4))
    w.expect(
        "cause",
        "saturation",
        "partner-feed",
        acceptable={"services": ["search"]},
        evidence=[{"series": "partner-feed/traffic"}, {"series": "search/latency_p99"}],
        approve="either",
    )
    return w


def sat_two_tiers() -> World:
    w = store_front(
        World(
            "sat-flash-sale", "A flash sale: load runs from the edge through six services", now="2026-11-27T10:12:00Z"
        )
    )
    for service in ("edge", "web", "mobile", "search", "catalog", "index"):
        w.shape(f"{service}/traffic", times(-12, 2.6, rise=3))
    w.shape("index/cpu_ratio", to(-11, 0.97, rise=2))
    for service, factor in (("index", 12), ("catalog", 7), ("search", 5), ("web", 4.5), ("mobile", 4.5), ("edge", 4)):
        w.shape(f"{service}/latency_p99", times(-10, factor, rise=4))
    w.expect(
        "cause",
        "saturation",
        "index",
        acceptable={"services": ["edge"]},
        evidence=[{"series": "edge/traffic"}, {"series": "index/latency_p99"}],
        severity=["SEV1", "SEV2"],
    )
    return w


PLAIN = (
    mem_gradual, mem_fast, mem_oom_loop, mem_all_replicas_after_image, mem_hurts_callers, mem_new_service,
    sat_surge, sat_cpu, sat_partner, sat_two_tiers,
)  # fmt: skip
