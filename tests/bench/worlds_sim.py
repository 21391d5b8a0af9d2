"""A made-up world of 13 services, a point a minute: seasons, noise, gaps, deployments, batch jobs, traps, and faults.

Everything comes from one seed. The truth about the faults is kept beside the metrics; nothing in here looks at the
detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

START = datetime(2026, 8, 31, tzinfo=UTC).timestamp()
"""A Monday."""
DAY = 1440
LAYERS = (2, 4, 4, 3)
NAMES = (
    *("web", "mobile-api"),
    *("auth", "catalog", "cart", "orders"),
    *("payments", "inventory", "search", "shipping"),
    *("ledger", "cache", "db"),
)
KINDS = (
    "memory_pressure",
    "latency",
    "error_surge",
    "traffic",
    "deployment_regression",
    "certificate_expiry",
    "disk_exhaustion",
)
CERT_BOUND_D = 7.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Ground truth: minutes from ``start`` to ``end`` (indices), the root service, and the kind."""

    kind: str
    service: str
    start: int
    end: int
    note: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """A change event as the world tells it."""

    minute: int
    service: str
    revision: str


@dataclass(slots=True)
class World:
    """``metrics[service][name]`` (minutes,) with NaN for gaps; a pod's metric is named ``name@pod``."""

    minutes: int
    scored_from: int
    edges: list[tuple[str, str]]
    metrics: dict[str, dict[str, Array]] = field(default_factory=dict)
    deployments: list[Deployed] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    traps: list[tuple[str, str, int, int]] = field(default_factory=list)


def make_world(seed: int, *, history_days: int = 14, scored_days: int = 7, faults: int = 14) -> World:
    """The world of ``seed``: ``history_days`` without a score, then ``scored_days`` with ``faults`` faults."""
    return _Maker(np.random.default_rng(seed), history_days, scored_days, faults).make()


class _Maker:
    def __init__(self, random: np.random.Generator, history_days: int, scored_days: int, faults: int) -> None:
        self.r = random
        self.n = (history_days + scored_days) * DAY
        self.from_ = history_days * DAY
        self.fault_count = faults
        self.t = np.arange(self.n)
        self.layer = {name: at for at, size in enumerate(LAYERS) for name in NAMES[sum(LAYERS[:at]) :][:size]}
        self.world = World(self.n, self.from_, self._edges())
        ones = {name: np.ones(self.n) for name in NAMES}
        self.entry_factor = {name: value.copy() for name, value in ones.items()}
        self.latency_factor = {name: value.copy() for name, value in ones.items()}
        self.total_factor = {name: value.copy() for name, value in ones.items()}
        self.expiring: set[str] = set()
        self.filled: set[str] = set()
        self.own_errors = {name: np.full(self.n, float(random.uniform(0.0002, 0.003))) for name in NAMES}
        self.pods = {name: [f"{name}-{pod}" for pod in range(int(random.integers(2, 4)))] for name in NAMES}
        self.memory: dict[str, list[Array]] = {}
        self.disk: dict[str, Array] = {}
        self.cert: dict[str, Array] = {}
        self.busy: list[tuple[int, int]] = []

    def make(self) -> World:
        self._resources()
        self._jobs()
        self._deploy_well()
        self._traps()
        self._inject()
        self._flow()
        self._gaps()
        self.world.deployments.sort(key=lambda one: one.minute)
        self.world.faults.sort(key=lambda one: one.start)
        return self.world

    def _edges(self) -> list[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        by_layer = [[name for name in NAMES if self.layer[name] == at] for at in range(len(LAYERS))]
        for at in range(1, len(LAYERS)):
            for callee in by_layer[at]:
                callers = self.r.choice(by_layer[at - 1], size=int(self.r.integers(1, 3)), replace=False)
                found |= {(str(caller), callee) for caller in callers}
        for at in range(len(LAYERS) - 1):
            for caller in by_layer[at]:
                if not any(edge[0] == caller for edge in found):
                    found.add((caller, str(self.r.choice(by_layer[at + 1]))))
        found.add(("orders", "db"))
        return sorted(found)

    def _season(self, base: float) -> Array:
        hour = (self.t / 60.0) % 24
        day = (self.t // DAY) % 7
        phase, depth = self.r.uniform(13, 16), self.r.uniform(0.35, 0.6)
        daily = 1 + depth * np.cos(2 * np.pi * (hour - phase) / 24) + 0.12 * np.cos(4 * np.pi * (hour - phase - 3) / 24)
        weekend = np.where(day >= 5, self.r.uniform(0.55, 0.9), 1.0)
        level = np.repeat(np.exp(np.cumsum(self.r.normal(0.0, 0.02, self.n // DAY))), DAY)
        return np.asarray(base * np.maximum(daily, 0.15) * _smooth(weekend, 90) * _smooth(level, 300))

    def _slow_noise(self, sigma: float, minutes: float) -> Array:
        keep = np.exp(-1.0 / minutes)
        white = self.r.normal(0.0, sigma * np.sqrt(1 - keep * keep), self.n)
        found = np.empty(self.n)
        state = 0.0
        for at, value in enumerate(white):
            state = keep * state + value
            found[at] = state
        return found

    def _resources(self) -> None:
        hour = (self.t / 60.0) % 24
        for name in NAMES:
            series = []
            base, high, period = self.r.uniform(0.38, 0.6), self.r.uniform(0.06, 0.18), int(self.r.integers(35, 200))
            for _ in self.pods[name]:
                offset = int(self.r.integers(0, period))
                saw = ((self.t + offset) % period) / period
                load = 0.04 * np.cos(2 * np.pi * (hour - 15) / 24)
                series.append(base + high * saw + load + self.r.normal(0, 0.008, self.n))
            self.memory[name] = series
        for name in ("db", "ledger", "orders", "search", "cache"):
            low, rise = self.r.uniform(0.35, 0.5), self.r.uniform(0.15, 0.38)
            every = int(self.r.choice([DAY // 2, DAY, 2 * DAY]))
            saw = ((self.t + int(self.r.integers(0, every))) % every) / every
            self.disk[name] = low + rise * saw + self.r.normal(0, 0.002, self.n)
        self.disk["inventory"] = 0.45 + 0.10 * self.t / self.n + self.r.normal(0, 0.002, self.n)
        for name in ("web", "mobile-api", "auth", "payments"):
            left = self.r.uniform(16, 80) - self.t / DAY
            while left.min() < 15:
                left[np.argmax(left < 15) :] += 75.0
            self.cert[name] = left

    def _jobs(self) -> None:
        """Nightly jobs: every night at about the same time a few services are slower for a while."""
        for name in self.r.choice(NAMES, size=3, replace=False):
            begin, long = int(self.r.integers(60, 330)), int(self.r.integers(15, 50))
            slower, more = self.r.uniform(1.6, 3.5), self.r.uniform(0.0, 0.8)
            for day in range(self.n // DAY):
                at = day * DAY + begin + int(self.r.integers(-3, 4))
                self.latency_factor[str(name)][at : at + long] *= slower * self.r.uniform(0.85, 1.15)
                self.entry_factor[str(name)][at : at + long] *= 1 + more

    def _rollout(self, name: str, minute: int) -> None:
        self.world.deployments.append(Deployed(minute, name, f"{self.r.integers(1 << 28):07x}"))
        self.latency_factor[name][minute : minute + int(self.r.integers(1, 4))] *= self.r.uniform(1.2, 2.2)
        self.own_errors[name][minute : minute + int(self.r.integers(1, 3))] += self.r.uniform(0, 0.03)
        for series in self.memory[name]:
            drop = self.r.uniform(0.1, 0.25)
            length = min(int(self.r.integers(30, 120)), self.n - minute)
            series[minute : minute + length] -= drop * np.linspace(1, 0, length)

    def _deploy_well(self) -> None:
        for day in range(self.n // DAY):
            for _ in range(int(self.r.integers(1, 5)) if day % 7 < 5 else int(self.r.integers(0, 2))):
                name = str(self.r.choice(NAMES))
                minute = day * DAY + int(self.r.integers(8 * 60, 19 * 60))
                self._rollout(name, minute)
                if self.r.random() < 0.25:
                    self.latency_factor[name][minute:] *= self.r.uniform(0.85, 1.04)

    def _traps(self) -> None:
        names = list(NAMES)
        for day in range(self.n // DAY):
            for _ in range(3):
                at, name = day * DAY + int(self.r.integers(0, DAY - 5)), str(self.r.choice(names))
                self.latency_factor[name][at : at + int(self.r.integers(1, 3))] *= self.r.uniform(2, 6)
            if self.r.random() < 0.25:
                at, long = day * DAY + int(self.r.integers(8 * 60, 20 * 60)), int(self.r.integers(60, 180))
                shape = 1 + self.r.uniform(0.15, 0.45) * _trapezoid(long, 20)
                entry = str(self.r.choice(NAMES[:2]))
                self._scale(self.entry_factor[entry], at, shape)
                self.world.traps.append(("promo", entry, at, at + long))
            if self.r.random() < 0.3:
                name, at = str(self.r.choice(names)), day * DAY + int(self.r.integers(0, DAY - 60))
                pod = self.memory[name][0]
                pod[at : at + 4] = np.maximum(pod[at : at + 4], self.r.uniform(0.86, 0.95))
        for _ in range(2):
            name, at = str(self.r.choice(names)), int(self.r.integers(DAY, self.n))
            self.latency_factor[name][at:] *= self.r.uniform(0.65, 0.9)
            self.world.traps.append(("faster", name, at, self.n))
        entry, at = str(self.r.choice(NAMES[:2])), int(self.r.integers(3 * DAY, self.n))
        shift = float(self.r.choice([0.8, 1.2, 1.25]))
        self.entry_factor[entry][at:] *= shift
        self.world.traps.append((f"shift {shift}", entry, at, self.n))

    def _scale(self, series: Array, at: int, shape: Array) -> None:
        shape = shape[: self.n - at]
        series[at : at + len(shape)] *= shape

    def _inject(self) -> None:
        order = [KINDS[at % len(KINDS)] for at in range(self.fault_count)]
        self.r.shuffle(order)
        slots = np.linspace(self.from_ + 120, self.n - 300, len(order) + 1)
        for kind, low, high in zip(order, slots[:-1], slots[1:], strict=True):
            start = int(self.r.uniform(low, low + 0.35 * (high - low)))
            self._fault(kind, start, int(high - start) - 60)
        for kind in ("latency", "error_surge", "traffic"):
            self._fault(kind, int(self.r.integers(min(4 * DAY, self.from_ // 2), self.from_ - 600)), 300)

    def _fault(self, kind: str, start: int, room: int) -> None:
        long = min(int(self.r.integers(25, 120)), room)
        shape = _trapezoid(long, int(self.r.integers(1, 10)))
        name, note = str(self.r.choice(NAMES)), ""
        if kind == "memory_pressure":
            long = min(int(self.r.integers(60, 300)), room)
            pod = self.memory[name][int(self.r.integers(len(self.memory[name])))]
            top = self.r.uniform(0.93, 0.99)
            held = min(int(self.r.integers(15, 45)), long // 2)
            ramp = np.concatenate((np.linspace(pod[start], top, long - held), np.full(held, top)))
            pod[start : start + long] = ramp + self.r.normal(0, 0.005, long)
            if self.r.random() < 0.5:
                self.total_factor[name][start + long - held : start + long] *= self.r.uniform(1.3, 2.5)
            note = f"to {top:.2f}"
        elif kind == "latency":
            worse = self.r.uniform(1.5, 6)
            self._scale(self.total_factor[name], start, 1 + (worse - 1) * shape)
            note = f"x{worse:.1f}"
        elif kind == "error_surge":
            share = float(np.exp(self.r.uniform(np.log(0.015), np.log(0.5))))
            self.own_errors[name][start : start + long] += share * shape
            note = f"+{share:.3f}"
        elif kind == "traffic":
            name = str(self.r.choice(NAMES[:2]))
            factor = float(self.r.uniform(0.05, 0.55)) if self.r.random() < 0.5 else float(self.r.uniform(1.7, 4))
            self._scale(self.entry_factor[name], start, 1 + (factor - 1) * shape)
            note = f"x{factor:.2f}"
        elif kind == "deployment_regression":
            long = max(long, 45)
            shape = np.clip((np.arange(long) + 1 - self.r.integers(0, 4)) / self.r.integers(1, 9), 0, 1)
            self._rollout(name, start)
            if self.r.random() < 0.6:
                worse = self.r.uniform(1.25, 3)
                self._scale(self.total_factor[name], start, 1 + (worse - 1) * shape)
                note = f"latency x{worse:.2f}"
            if not note or self.r.random() < 0.3:
                share = self.r.uniform(0.01, 0.15)
                self.own_errors[name][start : start + long] += share * shape
                note += f" errors +{share:.3f}"
            self.world.deployments.append(Deployed(start + long, name, f"back-{self.r.integers(1 << 20):05x}"))
        elif kind == "certificate_expiry":
            name = str(self.r.choice([one for one in self.cert if one not in self.expiring]))
            self.expiring.add(name)
            long = min(int(self.r.integers(120, 600)), room)
            self.cert[name][:start] = CERT_BOUND_D + (start - np.arange(start)) / DAY
            self.cert[name][start : start + long] = CERT_BOUND_D - np.arange(long) / DAY
            self.cert[name][start + long :] = 90 - np.arange(self.n - start - long) / DAY
        else:
            name = str(self.r.choice([one for one in self.disk if one not in self.filled]))
            self.filled.add(name)
            long = min(int(self.r.integers(240, 600)), room)
            disk = self.disk[name]
            top = self.r.uniform(0.95, 0.995)
            disk[start : start + long] = np.linspace(disk[start - 5 : start].mean(), top, long) + self.r.normal(
                0, 0.002, long
            )
            note = f"{disk[start]:.2f} to {top:.2f} in {long} min"
        self.world.faults.append(Fault(kind, name, start, start + long, note))

    def _flow(self) -> None:
        """Load runs down, latency and errors run up; failing services are asked again, and lose some of their users."""
        fanout = {edge: self.r.uniform(0.3, 0.9) for edge in self.world.edges}
        waits = {edge: (int(self.r.integers(0, 2)), self.r.uniform(0.5, 1.0)) for edge in self.world.edges}
        passes_on = {edge: self.r.uniform(0.3, 0.9) for edge in self.world.edges}
        level = {name: float(np.exp(self.r.uniform(np.log(15), np.log(200)))) for name in NAMES[: LAYERS[0]]}
        source = {name: self._season(level[name]) for name in level}
        own_load = {name: self.entry_factor[name] * np.exp(self._slow_noise(0.03, 40)) for name in NAMES}
        base = {name: self.r.uniform(0.008, 0.08) for name in NAMES}
        jitter = {name: np.exp(self._slow_noise(0.05, 25)) for name in NAMES}
        for name in NAMES:
            jitter[name] *= np.exp(self.r.normal(0, self.r.uniform(0.03, 0.16), self.n))
        failing = {name: np.zeros(self.n) for name in NAMES}
        usual: dict[str, float] = {}
        for _ in range(2):
            traffic = self._traffic(source, own_load, fanout, failing)
            usual = {name: usual.get(name) or float(np.median(traffic[name])) for name in NAMES}
            latency: dict[str, Array] = {}
            failing = {}
            for name in reversed(NAMES):
                load = traffic[name] / usual[name]
                queue = 1 + 0.08 * load + 0.10 * np.maximum(load - 1.9, 0) ** 2
                total = base[name] * queue * self.latency_factor[name] * jitter[name]
                errors = self.own_errors[name] + 0.01 * np.maximum(load - 3.0, 0)
                for edge in self.world.edges:
                    if edge[0] == name:
                        lag, weight = waits[edge]
                        below = _lagged(latency[edge[1]], lag)
                        total = total + below * weight
                        timeouts = np.clip(0.02 * (below / np.median(below) - 3.0), 0, 0.1)
                        errors = 1 - (1 - errors) * (1 - _lagged(failing[edge[1]], lag) * passes_on[edge]) * (
                            1 - timeouts
                        )
                latency[name], failing[name] = total * self.total_factor[name], np.clip(errors, 0, 1)
        self._tell(traffic, latency, failing, usual)

    def _traffic(
        self,
        source: dict[str, Array],
        own_load: dict[str, Array],
        fanout: dict[tuple[str, str], float],
        failing: dict[str, Array],
    ) -> dict[str, Array]:
        traffic: dict[str, Array] = {}
        for name in NAMES:
            if name in source:
                traffic[name] = source[name] * own_load[name] * (1 - 0.4 * _lagged(failing[name], 2))
                continue
            flow = np.zeros(self.n)
            for edge in self.world.edges:
                if edge[1] == name:
                    flow += traffic[edge[0]] * fanout[edge] * (1 - 0.5 * failing[edge[0]])
            traffic[name] = flow * own_load[name] * (1 + 0.6 * failing[name])
        return traffic

    def _tell(
        self,
        traffic: dict[str, Array],
        latency: dict[str, Array],
        failing: dict[str, Array],
        usual: dict[str, float],
    ) -> None:
        for name in NAMES:
            requests = self.r.poisson(np.maximum(traffic[name], 0) * 60.0)
            failed = self.r.binomial(requests, failing[name])
            ratio = np.where(requests > 0, failed / np.maximum(requests, 1), np.nan)
            metrics: dict[str, Array] = {
                "traffic": requests / 60.0,
                "latency_p99": latency[name],
                "error_ratio": ratio,
                "cpu_ratio": np.clip(0.3 * traffic[name] / usual[name] + self.r.normal(0, 0.02, self.n), 0.01, 1),
            }
            for pod, series in zip(self.pods[name], self.memory[name], strict=True):
                metrics[f"memory_ratio@{pod}"] = np.clip(series, 0.02, 1.0)
            if name in self.disk:
                metrics["disk_ratio"] = np.clip(self.disk[name], 0, 1)
            if name in self.cert:
                metrics["cert_remaining"] = self.cert[name] * 86_400.0
            self.world.metrics[name] = metrics

    def _gaps(self) -> None:
        for name in NAMES:
            for series in self.world.metrics[name].values():
                series[self.r.random(self.n) < 0.004] = np.nan
            for _ in range(int(self.r.integers(1, 5))):
                at, long = int(self.r.integers(DAY, self.n)), int(self.r.integers(5, 40))
                if any(fault.start - 60 < at < fault.end + 30 for fault in self.world.faults):
                    continue
                for series in self.world.metrics[name].values():
                    series[at : at + long] = np.nan
        for _ in range(self.n // (7 * DAY)):
            at, long = int(self.r.integers(DAY, self.n)), int(self.r.integers(3, 15))
            for name in NAMES:
                for series in self.world.metrics[name].values():
                    series[at : at + long] = np.nan


def _smooth(values: Array, minutes: int) -> Array:
    kernel = np.ones(minutes) / minutes
    padded = np.concatenate((np.full(minutes, values[0]), values, np.full(minutes, values[-1])))
    return np.convolve(padded, kernel, mode="same")[minutes:-minutes]


def _trapezoid(long: int, ramp: int) -> Array:
    at = np.arange(long)
    return np.asarray(np.clip(np.minimum((at + 1) / ramp, (long - at) / ramp), 0, 1))


def _lagged(values: Array, lag: int) -> Array:
    return values if lag == 0 else np.concatenate((np.repeat(values[:1], lag), values[:-lag]))
