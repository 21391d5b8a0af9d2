"""Cases in which something breaks and shows what it is: changes, disks, certificates, and what runs up from below."""

from __future__ import annotations

from tests.cases_plain import bank, shop, store_front
from tests.cases_world import World, climb, times, to

DAY_S = 86_400.0


def chg_config() -> World:
    w = shop(
        World("chg-config-timeout", "A commit lowers the provider time-out of payments: a third of its requests fail"),
        platform="local_process",
    )
    w.change("payments", -12, "configuration", "3f2a91c04d5e", "payments: fail fast, provider time-out 23 ms", "lee")
    for service, level in (("payments", 0.31), ("checkout", 0.29), ("web", 0.27), ("worker", 0.30)):
        w.shape(f"{service}/error_ratio", to(-11.5, level))
    w.log("payments", "charge {n} failed: provider timed out after 23 ms", -11.5, every_s=0.8, until=0)
    w.trace(
        -4,
        ("web", "POST /shop/order", 0.09, True),
        ("checkout", "POST /orders", 0.07, True),
        ("payments", "POST /charges", 0.024, True),
    )
    w.expect(
        "cause",
        "bad_change",
        "payments",
        evidence=[{"change": "3f2a91c04d5e"}, {"series": "payments/error_ratio"}],
        forbidden=["(?i)memory leak", "(?i)traffic surge"],
    )
    return w


def chg_image() -> World:
    w = store_front(
        World(
            "chg-image-slow", "catalog is five times slower since its rollout; web and mobile wait for it", minutes=23
        )
    )
    w.change("catalog", -20, "deployment", "sha256:be11", "catalog 2.31.0: item prices from the new API", "max")
    w.shape("catalog/latency_p99", times(-19.5, 5.5, rise=1))
    for above, factor in (("web", 2.6), ("mobile", 2.8), ("edge", 2.3)):
        w.shape(f"{above}/latency_p99", times(-19.3, factor, rise=1))
    w.trace(
        -6, ("edge", "GET /", 0.5, False), ("mobile", "GET /home", 0.41, False), ("catalog", "GET /items", 0.36, False)
    )
    w.expect(
        "cause",
        "bad_change",
        "catalog",
        evidence=[{"change": "sha256:be11"}, {"series": "catalog/latency_p99"}],
        forbidden=["(?i)memory leak"],
    )
    return w


def chg_callee() -> World:
    w = World(
        "chg-callee-deploy",
        "Orders fail since inventory was deployed; nothing was changed in orders",
        now="2026-10-15T09:02:00Z",
    )
    w.service("store", traffic=50, p99=0.2, tier=1, calls=["orders"])
    w.service("orders", traffic=22, p99=0.15, memory=0.44, tier=1, calls=["inventory", "pricing"])
    w.service("inventory", traffic=24, p99=0.05, replicas=3, memory=0.5)
    w.service("pricing", traffic=23, p99=0.03, memory=0.48)
    w.chatter("orders", "inventory", "pricing")
    w.change("inventory", -13, "deployment", "rev-118", "inventory 9.0: reservations by warehouse", "ana")
    for service, level in (("inventory", 0.62), ("orders", 0.55), ("store", 0.24)):
        w.shape(f"{service}/error_ratio", to(-12.5, level))
    w.log(
        "inventory", "NullPointerException in ReservationService.byWarehouse, request {n}", -12.4, every_s=1.5, until=0
    )
    w.log("orders", "inventory answered 500 for order {n}", -12.3, every_s=2, until=0)
    w.expect(
        "cause",
        "bad_change",
        "inventory",
        evidence=[{"change": "rev-118"}, {"series": "inventory/error_ratio"}],
        forbidden=["pricing (is|was) the cause"],
    )
    return w


def chg_slight() -> World:
    w = shop(
        World(
            "chg-slight-regression",
            "Since a rollout 4 of 100 checkouts fail: too few for a page by themselves",
            minutes=29,
        ),
        load=3.0,
    )
    w.change("checkout", -26, "deployment", "sha256:0d0d", "checkout 4.13.1: retry once on 409", "dana")
    w.shape("checkout/error_ratio", to(-25.5, 0.042))
    w.shape("web/error_ratio", to(-25.4, 0.035))
    w.expect(
        "cause", "bad_change", "checkout", evidence=[{"change": "sha256:0d0d"}, {"series": "checkout/error_ratio"}]
    )
    return w


def chg_all_fail() -> World:
    w = bank(
        World(
            "chg-ledger-config",
            "A wrong database address in the ledger's settings: everything above it fails",
            now="2026-10-29T14:26:00Z",
        )
    )
    w.change("ledger", -9, "configuration", "c0ffee12", "ledger: move to the new database host", "sam")
    for service, level in (("ledger", 0.97), ("accounts", 0.95), ("transfers", 0.96), ("gateway", 0.93)):
        w.shape(f"{service}/error_ratio", to(-8.7, level, rise=0.2))
    w.shape("ledger-db/traffic", to(-8.7, 1.0, rise=0.5))
    w.log("ledger", "could not connect to ledger-db-2.internal: no such host ({n})", -8.7, every_s=0.5, until=0)
    w.expect(
        "cause",
        "bad_change",
        "ledger",
        evidence=[{"change": "c0ffee12"}, {"series": "ledger/error_ratio"}],
        forbidden=["ledger-db (is|was) the cause"],
        severity=["SEV1", "SEV2"],
    )
    return w


def disk_logs() -> World:
    w = shop(
        World("disk-filled-by-logs", "Verbose logging fills the worker's volume to 97 %", minutes=25),
        platform="local_process",
    )
    w.gauge("worker/disk_ratio/worker-1", 0.41, noise=0.002)
    w.shape("worker/disk_ratio/worker-1", climb(-22, 0.031, 0.972))
    w.log("worker", "DEBUG settlement row {n}: amount, currency, provider, attempt, trace", -22, every_s=0.4, until=0)
    w.expect(
        "cause",
        "disk",
        "worker",
        evidence=[{"series": "worker/disk_ratio/worker-1"}],
        forbidden=["(?i)memory leak", "(?i)certificate"],
    )
    return w


def disk_data() -> World:
    w = bank(
        World(
            "disk-data-grows",
            "The ledger's database grows by 6 % an hour and is at 93 %",
            minutes=110,
            interval_s=60,
            hours=8,
        )
    )
    w.gauge("ledger-db/disk_ratio/data", 0.935, noise=0.0004, drift=0.001)
    w.expect(
        "cause",
        "disk",
        "ledger-db",
        evidence=[{"series": "ledger-db/disk_ratio/data"}],
        forbidden=["(?i)restart", "(?i)log file"],
    )
    return w


def disk_full_errors() -> World:
    w = World(
        "disk-full-writes-fail",
        "The volume of orders is full: writes fail, and so do the services above",
        now="2026-10-18T22:41:00Z",
        hours=5,
    )
    w.service("store", traffic=36, p99=0.2, tier=1, calls=["orders"])
    w.service("orders", traffic=18, p99=0.14, tier=1, memory=0.52, replicas=1)
    w.chatter("store", "orders")
    w.gauge("orders/disk_ratio/orders-1", 0.74, noise=0.001)
    w.shape("orders/disk_ratio/orders-1", climb(-150, 0.0019, 1.0))
    w.shape("orders/error_ratio", to(-13, 0.44, rise=2))
    w.shape("store/error_ratio", to(-12.8, 0.21, rise=2))
    w.log("orders", "write failed: No space left on device (segment {n})", -13, every_s=1.0, until=0, on="orders-1")
    w.expect(
        "cause",
        "disk",
        "orders",
        evidence=[{"series": "orders/disk_ratio/orders-1"}, {"log": "No space left"}],
        forbidden=["(?i)bad (change|deploy)"],
    )
    return w


def cert_instance() -> World:
    w = shop(World("cert-one-instance", "The certificate of one of two web servers ends in two days"))
    w.gauge("web/cert_remaining/web-1", 61 * DAY_S, drift=-60)
    w.gauge("web/cert_remaining/web-2", 2.1 * DAY_S, drift=-60)
    w.expect(
        "cause",
        "certificate",
        "web",
        evidence=[{"series": "web/cert_remaining/web-2"}],
        forbidden=["web-1", "(?i)memory (leak|pressure)", "(?i)bad deploy"],
    )
    return w


def cert_ended() -> World:
    w = World(
        "cert-ended",
        "The certificate of auth ended ten minutes ago: every service that logs in fails",
        now="2026-12-01T00:10:00Z",
    )
    w.service("portal", traffic=33, p99=0.22, tier=1, calls=["auth", "billing"])
    w.service("billing", traffic=12, p99=0.18, memory=0.4, calls=["auth"])
    w.service("auth", traffic=47, p99=0.03, memory=0.47, tier=1)
    w.chatter("portal", "billing", "auth")
    w.gauge("auth/cert_remaining", -600, drift=-60)
    for service, level in (("auth", 0.96), ("portal", 0.81), ("billing", 0.9)):
        w.shape(f"{service}/error_ratio", to(-10, level, rise=0.1))
    w.log(
        "auth",
        "TLS handshake failed: x509: certificate has expired or is not yet valid ({n})",
        -10,
        every_s=0.7,
        until=0,
    )
    w.log("portal", "auth: remote error: tls: expired certificate, request {n}", -10, every_s=0.9, until=0)
    w.expect(
        "cause",
        "certificate",
        "auth",
        evidence=[{"series": "auth/cert_remaining"}, {"log": "certificate has expired"}],
        forbidden=["(?i)bad (change|deploy)", "(?i)memory (leak|pressure)"],
        severity=["SEV1", "SEV2"],
    )
    return w


def cert_busy() -> World:
    w = shop(
        World("cert-under-load", "Six days of a certificate are left, while an advert brings a quarter more traffic")
    )
    w.gauge("web/cert_remaining/web-1", 6.2 * DAY_S, drift=-60)
    for service in ("web", "checkout", "payments"):
        w.shape(f"{service}/traffic", times(-18, 1.25, rise=5))
    w.expect(
        "cause",
        "certificate",
        "web",
        evidence=[{"series": "web/cert_remaining/web-1"}],
        forbidden=["(?i)surge", "(?i)saturat"],
    )
    return w


def cascade_five() -> World:
    w = bank(
        World(
            "cascade-memory-below-five",
            "The ledger leaks at the end of a chain of five; the gateway pages first",
            minutes=20,
        )
    )
    w.shape("ledger/memory_ratio/ledger-1", climb(-30, 0.022, 0.98))
    w.shape("ledger/latency_p99", times(-13, 9, rise=3))
    for above, factor in (("accounts", 5.5), ("transfers", 4.5), ("gateway", 4.0)):
        w.shape(f"{above}/latency_p99", times(-13.5, factor, rise=2.5))
        w.shape(f"{above}/error_ratio", to(-9, 0.12))
    w.shape("ledger/error_ratio", to(-9, 0.14))
    w.alert("gateway: p99 above 900 ms for 5 minutes", "GatewayLatencyHigh")
    w.expect(
        "cause",
        "memory",
        "ledger",
        evidence=[{"series": "ledger/memory_ratio/ledger-1"}],
        forbidden=["gateway (is|was) the cause", "ledger-db (is|was) the cause"],
    )
    return w


def cascade_branches() -> World:
    w = store_front(
        World("cascade-branches", "A change of index's settings breaks five services above it, on two branches")
    )
    w.change("index", -11, "configuration", "9a8b7c6d", "index: smaller page cache", "ivo")
    w.shape("index/latency_p99", times(-10.5, 16, rise=1.5))
    for above, factor in (("catalog", 6.5), ("search", 4.2), ("web", 3.3), ("mobile", 3.6), ("edge", 2.9)):
        w.shape(f"{above}/latency_p99", times(-10.2, factor, rise=1.5))
        w.shape(f"{above}/error_ratio", to(-8, 0.06))
    w.trace(
        -4,
        ("edge", "GET /", 0.83, False),
        ("mobile", "GET /home", 0.6, False),
        ("catalog", "GET /items", 0.41, False),
        ("index", "lookup", 0.38, False),
    )
    w.expect(
        "cause",
        "bad_change",
        "index",
        evidence=[{"change": "9a8b7c6d"}, {"series": "index/latency_p99"}],
        forbidden=["(catalog|search|mobile|edge) (is|was) the cause"],
    )
    return w


def cascade_disk() -> World:
    w = bank(
        World(
            "cascade-disk-below", "The database's volume is full; ledger, transfers, accounts and gateway fail", hours=6
        )
    )
    w.gauge("ledger-db/disk_ratio/data", 0.83, noise=0.0005)
    w.shape("ledger-db/disk_ratio/data", climb(-180, 0.001, 1.0))
    w.shape("ledger-db/error_ratio", to(-12, 0.5, rise=1))
    for above, level in (("ledger", 0.47), ("transfers", 0.6), ("accounts", 0.2), ("gateway", 0.3)):
        w.shape(f"{above}/error_ratio", to(-11.5, level, rise=1))
    w.log(
        "ledger-db",
        'PANIC: could not write to file "pg_wal/xlogtemp.{n}": No space left on device',
        -12,
        every_s=2,
        until=0,
    )
    w.expect(
        "cause",
        "disk",
        "ledger-db",
        evidence=[{"series": "ledger-db/disk_ratio/data"}],
        forbidden=["ledger (is|was) the cause", "(?i)bad (change|deploy)"],
        severity=["SEV1", "SEV2"],
    )
    return w


BROKEN = (
    chg_config, chg_image, chg_callee, chg_slight, chg_all_fail,
    disk_logs, disk_data, disk_full_errors,
    cert_instance, cert_ended, cert_busy,
    cascade_five, cascade_branches, cascade_disk,
)  # fmt: skip
