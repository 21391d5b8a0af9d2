"""Log anomalies: patterns a service has never written before, and known ones far above their own recent rate."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from math import erfc, isfinite, log10, sqrt
from typing import Literal

from pipeline.domain.detection.templates import TemplateMiner
from pipeline.domain.detection.templates_masks import READ_CHARS

Kind = Literal["new", "surging"]

_FATAL = re.compile(
    r"\b(?:panic\w*|fatal\w*|oom\w*|out[ _-]?of[ _-]?memory\w*|segfault|segmentation fault|corrupt\w*|deadlock\w*"
    r"|crash\w*)\b",
    re.I,
)
_ERROR = re.compile(
    r"\b(?:err|[a-z]*errors?|\w*exception|traceback|fail(?:ed|ure|ures|s|ing)?|refused|denied|unavailable|time[- ]?out"
    r"|timed out|unable|cannot|could not|reject\w*|abort\w*|exhausted|unreachable|severe|critical|invalid|killed)\b",
    re.I,
)
_NO_ERROR = re.compile(r"\b(?:no|0|without|zero) (?:errors?|failures?|exceptions?)\b", re.I)
_SURE_SCORE = 12.0
"""−log10 of the tail probability at which a score reaches 0.75."""
_DECAY = 0.97
"""Weight of the past for each new minute: a memory of about half an hour."""


@dataclass(frozen=True, slots=True)
class LogDetectorSettings:
    """Thresholds of the detector; every ``_s`` is seconds."""

    bucket_s: float = 60.0
    warmup_s: float = 300.0
    """A service is only listened to for this long after its first line."""
    quiet_s: float = 14_400.0
    """A pattern that was reported is not reported again for this long, unless it grew fourfold."""
    clear_s: float = 300.0
    """A finding ends when its pattern has been usual for this long."""
    min_count: int = 15
    """Lines a bucket below which nothing surges; a third of it for lines that speak of errors."""
    min_ratio: float = 3.0
    """A surge is at least this many times the expected count."""
    min_evidence: float = 7.0
    """−log10 of the tail probability from which a surge counts."""
    new_errors: int = 3
    """Lines of a new pattern that speaks of errors before it is reported; a fatal one is at once."""
    new_others: int = 60
    """The same for patterns that speak of nothing wrong."""
    max_patterns: int = 50_000
    """Patterns of all services that are remembered; the one not seen for longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class LogFinding:
    """A pattern of a service that is out of the ordinary.

    ``count`` lines since ``started_at`` (epoch seconds) where ``expected`` a bucket were usual; ``sample_line`` is one
    of them as it came, secrets and all: who stores or shows it takes them out; ``score`` 0..1, higher for lines that
    speak of errors.
    """

    service: str
    template_id: int
    template: str
    kind: Kind
    count: int
    expected: float
    started_at: float
    sample_line: str
    score: float


@dataclass(slots=True)
class _Pattern:
    """One template of one service: the running bucket, and mean and variance of the buckets before."""

    bucket: int
    severity: int
    novel: bool
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    seen: int = 0
    buckets: int = 0
    reported_at: float = -1e300
    reported_count: int = 0
    last_odd: float = -1e300
    started_at: float = 0.0
    odd_lines: int = 0
    kind: Kind = "surging"
    score: float = 0.0
    sample: str = ""


class LogDetector:
    """Judges log lines as they come: `update` a line, `findings` for what is odd now. Not for several threads.

    Lines of one service should come about in order; a late one counts as of now. Memory is bounded by
    ``settings.max_patterns`` and the miner's own limit.
    """

    def __init__(self, settings: LogDetectorSettings | None = None, miner: TemplateMiner | None = None) -> None:
        self._settings = settings or LogDetectorSettings()
        self._miner = miner or TemplateMiner()
        self._patterns: OrderedDict[tuple[str, int], _Pattern] = OrderedDict()
        self._first_ts: dict[str, float] = {}
        self._merges = 0

    def update(self, ts: float, service: str, line: str) -> tuple[float, bool]:
        """Takes in one message; gives its score 0..1 and whether it is the one to report.

        ``ts`` in epoch seconds. Only the line that brings a pattern over its threshold is an anomaly, not those after
        it. A line whose time is no finite number counts for nothing.
        """
        if not isfinite(ts):
            return 0.0, False
        settings = self._settings
        match = self._miner.add(line)
        if self._miner.merges != self._merges:
            self._follow_merges()
        key = (service, self._miner.current(match.id))
        bucket = int(ts // settings.bucket_s)
        first_ts = self._first_ts.setdefault(service, ts)
        listening = ts - first_ts < settings.warmup_s
        pattern = self._patterns.get(key)
        if pattern is None:
            pattern = _Pattern(bucket, severity_of(match.template), novel=not listening)
            self._patterns[key] = pattern
            while len(self._patterns) > settings.max_patterns:
                self._patterns.popitem(last=False)
        else:
            self._patterns.move_to_end(key)
            if bucket > pattern.bucket:
                _close(pattern, bucket)
        pattern.count += 1
        pattern.seen += 1
        if listening:
            return 0.0, False
        return self._judge(pattern, ts, first_ts, line)

    def findings(self, now: float) -> tuple[LogFinding, ...]:
        """What has been out of the ordinary within the last ``clear_s``, the highest score first."""
        found = [
            LogFinding(
                service,
                template_id,
                self._miner.template(template_id) or "",
                pattern.kind,
                pattern.odd_lines,
                round(pattern.mean, 3),
                pattern.started_at,
                pattern.sample,
                pattern.score,
            )
            for (service, template_id), pattern in self._patterns.items()
            if now - pattern.last_odd <= self._settings.clear_s and pattern.sample
        ]
        return tuple(sorted(found, key=lambda item: (-item.score, item.service, item.template_id)))

    def _follow_merges(self) -> None:
        """Patterns whose templates became one go on as one, so that the merged template is not taken for new."""
        self._merges = self._miner.merges
        kept: OrderedDict[tuple[str, int], _Pattern] = OrderedDict()
        for (service, template_id), pattern in self._patterns.items():
            key = (service, self._miner.current(template_id))
            other = kept.pop(key, None)
            kept[key] = pattern if other is None else _joined(other, pattern)
        self._patterns = kept

    def _judge(self, pattern: _Pattern, ts: float, first_ts: float, line: str) -> tuple[float, bool]:
        settings = self._settings
        kind: Kind | None = None
        evidence = 0.0
        if pattern.novel:
            wanted = (settings.new_others, settings.new_errors, 1)[pattern.severity]
            evidence = _SURE_SCORE * pattern.seen / wanted
            if pattern.seen >= wanted:
                kind = "new"
            if pattern.buckets * settings.bucket_s > settings.quiet_s:
                pattern.novel = False
        else:
            least = settings.min_count if pattern.severity == 0 else settings.min_count / 3
            evidence = _evidence(pattern, known=max(1.0, (ts - first_ts) / settings.bucket_s))
            enough = pattern.count >= max(least, settings.min_ratio * pattern.mean)
            if enough and evidence >= settings.min_evidence - pattern.severity:
                kind = "surging"
        strength = evidence * (1.0 + 0.5 * pattern.severity)
        score = strength / (strength + _SURE_SCORE / 3.0)
        if kind is None:
            return min(score, 0.5), False
        if ts - pattern.last_odd > settings.clear_s:
            pattern.started_at, pattern.odd_lines, pattern.score = ts, 0, 0.0
            pattern.sample = line[:READ_CHARS]
        pattern.kind, pattern.last_odd = kind, ts
        pattern.odd_lines += 1
        pattern.score = max(pattern.score, score)
        grown = pattern.count > 4 * pattern.reported_count and kind == "surging"
        if ts - pattern.reported_at <= settings.quiet_s and not grown:
            return score, False
        pattern.reported_at, pattern.reported_count = ts, pattern.count
        return score, True


def severity_of(template: str) -> int:
    """0 for a pattern that speaks of nothing wrong, 1 of an error, 2 of the end of a process or of data."""
    text = _NO_ERROR.sub("", template)
    return 2 if _FATAL.search(text) else 1 if _ERROR.search(text) else 0


def _joined(left: _Pattern, right: _Pattern) -> _Pattern:
    """Two patterns as one: their counts and rates add up, and what either was reported for stays reported."""
    bucket = max(left.bucket, right.bucket)
    for pattern in (left, right):
        if pattern.bucket < bucket:
            _close(pattern, bucket)
    main = left if left.last_odd >= right.last_odd else right
    return replace(
        main,
        severity=max(left.severity, right.severity),
        novel=left.novel and right.novel,
        count=left.count + right.count,
        mean=left.mean + right.mean,
        variance=left.variance + right.variance,
        seen=left.seen + right.seen,
        buckets=max(left.buckets, right.buckets),
        reported_at=max(left.reported_at, right.reported_at),
        reported_count=max(left.reported_count, right.reported_count),
    )


def _close(pattern: _Pattern, bucket: int) -> None:
    """Takes the finished bucket and the empty ones after it into the pattern's memory, a surge only in part."""
    usual = pattern.mean + 3.0 * sqrt(pattern.variance + pattern.mean + 1.0)
    count = min(float(pattern.count), max(usual, 1.0)) if pattern.buckets else float(pattern.count)
    weight = max(1.0 - _DECAY, 1.0 / (pattern.buckets + 1))
    error = count - pattern.mean
    pattern.mean += weight * error
    pattern.variance = (1.0 - weight) * (pattern.variance + weight * error * error)
    empty = bucket - pattern.bucket - 1
    if empty > 0:
        left = float(_DECAY**empty)
        pattern.variance = left * (pattern.variance + (1.0 - left) * pattern.mean * pattern.mean)
        pattern.mean *= left
    pattern.buckets += bucket - pattern.bucket
    pattern.bucket, pattern.count = bucket, 0


def _evidence(pattern: _Pattern, known: float) -> float:
    """−log10 of the chance of so many lines in a bucket: a normal tail of the square roots, over-dispersed.

    The square root evens out the variance of counts (Anscombe 1948); ``known`` buckets of history, few of which make
    the mean itself unsure.
    """
    mean = pattern.mean
    dispersion = max(1.0, (pattern.variance + 1.0) / (mean + 1.0)) * (1.0 + 2.0 / min(known, pattern.buckets + 1.0))
    z = 2.0 * (sqrt(pattern.count + 0.375) - sqrt(mean + 0.375)) / sqrt(dispersion)
    if z <= 0:
        return 0.0
    tail = 0.5 * erfc(z / sqrt(2.0))
    return min(-log10(tail), 300.0) if tail > 0 else 300.0
