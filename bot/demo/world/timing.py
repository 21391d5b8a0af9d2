"""Service times and arrival gaps: the randomness of the demo world."""

import math
import random

_random = random.Random()  # noqa: S311 - jitter of a simulation, no secret


def service_time_s(median_s: float, sigma: float) -> float:
    """One log-normal service time, the usual shape of request durations; capped at 3 x the median."""
    return min(median_s * math.exp(_random.gauss(0.0, sigma)), 3.0 * median_s)


def gap_s(rate_per_s: float) -> float:
    """Time to the next arrival: evenly paced with 30 % noise, so that queues come from overload, not bursts."""
    return _random.uniform(0.7, 1.3) / rate_per_s
