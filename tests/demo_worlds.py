"""The demo world for tests: started as a process, asked over HTTP, its metrics read like Prometheus does."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bot.demo.world.client import WorldClient
from bot.demo.world.messages import ServiceView

LAUNCH = [sys.executable, "-m", "bot.demo.world", "--port", "0", "--data-dir"]
_fences = itertools.count(1)


@dataclass(frozen=True, slots=True)
class World:
    process: subprocess.Popen[str]
    url: str
    directory: Path

    def targets(self, service: str) -> dict[str, str]:
        """instance name → address, from the file_sd file."""
        return {
            group["labels"]["instance_name"]: group["targets"][0]
            for group in json.loads((self.directory / "targets.json").read_text())
            if group["labels"]["service"] == service
        }


def start_world(data_dir: Path) -> World:
    process = subprocess.Popen(
        [*LAUNCH, str(data_dir), "--parent-pid", str(os.getpid())], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        line = stdout.readline()
    assert line, f"the world ended with status {process.wait()}"
    return World(process, json.loads(line)["url"], data_dir / "world")


def processes_of(data_dir: Path) -> set[int]:
    """Live processes (no zombies) that name the data directory on their command line, the supervisor included."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            continue
        ours = {os.fsencode(data_dir), os.fsencode(data_dir / "world")}
        if entry.name.isdigit() and state != "Z" and ours & set(arguments):
            found.add(int(entry.name))
    return found


async def until(condition: Callable[[], Awaitable[object]], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s: {condition.__qualname__}"
        await asyncio.sleep(0.2)


async def until_gone(data_dir: Path, timeout_s: float = 15) -> None:
    async def gone() -> bool:
        return not processes_of(data_dir)

    await until(gone, timeout_s)


async def post(url: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        return response.status, await response.json()


async def scale(
    url: str, service: str, replicas: object, generation: int, **other: object
) -> tuple[int, dict[str, Any]]:
    body = {"replicas": replicas, "if_generation": generation, "execution_id": "X1", "step": 1}
    return await post(url, f"/v1/services/{service}/scale", {**body, "fence": next(_fences), **other})


async def restart(url: str, service: str, instance: str, uid: str, **other: object) -> tuple[int, dict[str, Any]]:
    body = {"instance": instance, "if_instance_uid": uid, "execution_id": "X2", "step": 1}
    return await post(url, f"/v1/services/{service}/restart", {**body, "fence": next(_fences), **other})


async def scrape(address: str) -> list[Sample]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
        text = await response.text()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


async def value(address: str, name: str) -> float:
    return next(sample.value for sample in await scrape(address) if sample.name == name)


async def totals(world: World, service: str, name: str, label: str) -> dict[str, float]:
    """The samples of one name summed over the service's instances, by the value of a label."""
    sums: dict[str, float] = {}
    for address in world.targets(service).values():
        for sample in await scrape(address):
            if sample.name == name:
                key = sample.labels[label]
                sums[key] = sums.get(key, 0.0) + sample.value
    return sums


async def p99_s(world: World, service: str, seconds: float) -> float:
    """The bucket edge below which 99 % of the requests of the next `seconds` end."""
    name = "http_server_request_duration_seconds_bucket"
    before = await totals(world, service, name, "le")
    await asyncio.sleep(seconds)
    after = await totals(world, service, name, "le")
    counts = sorted((float(edge), after[edge] - before.get(edge, 0.0)) for edge in after)
    assert counts[-1][1] > 0
    return next(edge for edge, count in counts if count >= 0.99 * counts[-1][1])


async def failed_ratio(world: World, service: str, seconds: float) -> float:
    name, label = "http_server_request_duration_seconds_count", "http_response_status_code"
    before = await totals(world, service, name, label)
    await asyncio.sleep(seconds)
    after = await totals(world, service, name, label)
    counts = {status: after[status] - before.get(status, 0.0) for status in after}
    return sum(count for status, count in counts.items() if status >= "500") / sum(counts.values())


async def is_active(client: WorldClient, name: str) -> bool:
    return next(fault.active for fault in await client.faults() if fault.name == name)


def instance_uids(service: ServiceView) -> dict[str, str]:
    return {instance.name: instance.uid for instance in service.instances}
