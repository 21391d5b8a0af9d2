"""Words that operators use for the same thing: ``RAM`` for memory, ``worker`` for a node, ``PVC`` for a volume.

Alerts, runbooks and people on call write of the same trouble in different words. Each entry below is one concept (a
line, and those indented under it): its usual name first, then what else stands for it. Loose on purpose: a concept
adds to a ranking, it replaces no word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

GROUPS = """
memory, mem, ram, rss, working set, heap, memory usage
out of memory, oom, oomkilled, oom kill, oom killer, exit code 137, memory exhausted, memory exhaustion, memory leak,
  cannot allocate memory
cpu, processor, core, vcpu, millicore, compute
throttling, throttle, throttled, cfs, cgroup
node, machine, host, worker, server, vm, virtual machine, box, ec2, hypervisor
pod, container, workload
replica, copy, copies, instance, member
crash, crashloop, crash loop, crashlooping, crash looping, crashloopbackoff, back off, restart, restarting, dying,
  dies, died, exits, terminated, aborted, segfault, panic, killed, core dump
disk, filesystem, file system, storage, drive, block device, mount point, volume, ssd, hdd, nvme, platter
persistent volume, volume, pv, pvc, persistentvolume, persistentvolumeclaim, persistent volume claim, claim
full, no space left, no space, enospc, out of space, exhausted, filling up, fill up, fills up, running out, runs full,
  used up, low on space, disk pressure, almost full, nearly full, free space
inodes, inode, out of files, too many files
certificate, cert, tls, ssl, x509, certificate authority, https
expired, expire, expires, expiry, expiration, expiring, runs out, about to expire, lapse, not valid after
renewal, renew, rotate, rotation, reissue
latency, slow, slowness, slower, sluggish, response time, delay, delayed, p99, p95, quantile, percentile, takes long,
  taking long, too long, high latency
errors, error, failure, failed, failing, fails, fail, fault, exception, 5xx, 500, broken, unsuccessful
unavailable, down, unreachable, outage, offline, dead, not responding, no response, does not answer, not reachable,
  unresponsive, gone, absent, missing, disappeared, lost, not available
network, connectivity, packet, packet loss, nic, network interface, interface, ethernet
dns, name resolution, resolver, resolve, coredns, nxdomain, servfail, kube dns, nameserver, hostname
queue, backlog, pending, waiting, piling up, pile up, enqueued
replication lag, replication, replicate, standby, follower, secondary, slave, read replica, behind, trail
leader, primary, master, election, leader election, quorum, majority, consensus, raft
autoscaler, hpa, autoscaling, auto scaling, horizontal pod autoscaler, horizontal autoscaler, autoscale, asg, auto
  scaling group
scaling, scale, scale up, scale out, upscale, scale down, downscale
deployment, deploy, rollout, roll out, release, rolled out, new version, upgrade, shipped
rollback, roll back, rolled back, revert, undo
quota, resource quota, allowance
limit, cap, maximum, max, upper bound, ceiling, threshold
scheduling, schedule, scheduled, scheduler, unschedulable, placement, placed, assign
clock, ntp, chrony, chronyd, clock skew, clock drift, time synchronization, time sync, timesync, synchronised,
  synchronized
configuration, config, setting, configmap, config map, parameter, misconfiguration, misconfigured, reload
alertmanager, notifier, notification, pager, receiver, silence
prometheus, monitoring, monitoring server, metrics
scrape, scraping, target, exporter, service discovery, target discovery, service monitor, servicemonitor, pod monitor
image pull, image, registry, imagepullbackoff, errimagepull, pull image, docker hub
authentication, auth, authorization, login, credential, password, token, unauthorized, forbidden, permission denied,
  access denied, 401, 403, rbac, iam, oauth, sso
timeout, timed out, time out, deadline exceeded, hang, hung, hangs, stuck, blocked, frozen
connections, connection, connect, socket, connection pool, pool, clients, too many clients, max connections
connection refused, refused, connection reset, reset by peer, econnrefused
database, db, postgres, postgresql, mysql, mariadb, sql, cnpg, cloudnativepg, mongodb, oracle
lock, deadlock, contention, locked, lock wait
load, overload, overloaded, saturation, saturated, pressure, busy, high usage, utilization, utilisation, capacity
traffic, request, qps, rps, throughput, requests per second
backup, snapshot, dump, wal archiving
restore, recover, recovery, failover, switchover
garbage collection, gc, garbage collector, stop the world
file descriptors, file descriptor, fd, open files, ulimit, too many open files, nofile, file handles
job, batch, task, cronjob, cron job, cron, batch job, batch run
load balancer, lb, elb, alb, nlb, ingress, proxy, reverse proxy, gateway, nginx, haproxy, envoy
bad gateway, 502, 503, 504, gateway timeout, service unavailable, upstream
rule, recording rule, alerting rule, rule evaluation
compaction, wal, write ahead log, tsdb, fsync, commit
eviction, evict, evicted, kicked out, preempted, preemption
drain, cordon, maintenance, disruption budget, pdb, poddisruptionbudget
raid, md, array, mdadm
conntrack, connection tracking, nf_conntrack
api server, apiserver, kube apiserver, kubernetes api, control plane, kubeapi
etcd, key value store, kv store, cluster store, control plane store
kubelet, node agent
daemonset, daemon set, agent on every node, per node agent, node agents
statefulset, stateful set
overcommit, overcommitted, oversubscribed, overprovisioned
mismatch, inconsistent, does not match, differ, different, out of sync, diverge
stale, outdated, old, out of date
duplicate, duplicated, twice
corruption, corrupt, corrupted, damaged, checksum, bit rot
deleted, delete, removed, wiped, dropped, erased, purged
network partition, split brain, netsplit
degraded, degradation, impaired, unhealthy
cache, redis, memcached, eviction policy
kafka, broker, consumer, consumer group, topic, consumer lag, partition
message queue, rabbitmq, sqs, amqp, dead letter, pubsub
firewall, security group, network policy, iptables, acl, kube proxy
webhook, admission, admission webhook, validating webhook, mutating webhook
secret, vault, keys
logs, log, logging, loki, elasticsearch, log shipper, fluentd, fluent bit, logstash
hardware, firmware, bios, power supply, fan, temperature
flapping, flap, back and forth, toggling, intermittently, unstable
not ready, notready, readiness, readiness probe, liveness, liveness probe, health check, probe, unready
search, index, indexing, shard
ceph, osd, rados, object storage
burn rate, error budget, slo, service level objective, availability target, availability
cloud provider, aws, gcp, azure, region, availability zone
migration, schema, alter table, schema change
feature flag, toggle, experiment, flag
thundering herd, retry storm, retries, retry, stampede
thread pool, threads, thread, goroutine, event loop
rate limit, rate limiting, throttled requests, 429, too many requests, flow control
ip address, ip, subnet, cidr, ip exhaustion, address pool
bgp, route, routing, router, peering
ddos, attack, bot traffic, abuse
cdn, edge, cloudflare, fastly
disk io, iops, iowait, io wait, await, disk latency, slow disk, disk saturation
swap, swapping, major page faults, page fault, paging
"""


class Thesaurus:
    """Concepts of a text. ``terms`` takes a text apart as the ranking by words does, so that endings do not matter."""

    def __init__(self, terms: Callable[[str], list[str]]) -> None:
        self._terms = terms
        self._names: list[str] = []
        self._phrases: dict[tuple[str, ...], list[int]] = {}
        for number, entry in enumerate(re.split(r"\n(?! )", GROUPS.strip())):
            phrases = [" ".join(phrase.split()) for phrase in entry.split(",")]
            self._names.append(phrases[0])
            for words in dict.fromkeys(tuple(terms(phrase)) for phrase in phrases):
                self._phrases.setdefault(words, []).append(number)
        self._longest = max(map(len, self._phrases))

    def concepts(self, words: Sequence[str]) -> list[str]:
        """The concepts that ``words`` (of ``terms``, in the order of the text) name, once for each time they do."""
        return [f"~{number}" for number in self._numbers(words)]

    def expanded(self, text: str) -> str:
        """``text``, with the usual names of its concepts behind it where it has other words for them."""
        words = self._terms(text)
        known = set(words)
        names = dict.fromkeys(self._names[number] for number in self._numbers(words))
        added = [name for name in names if not known.issuperset(self._terms(name))]
        return f"{text} ({', '.join(added)})" if added else text

    def _numbers(self, words: Sequence[str]) -> list[int]:
        return [
            number
            for start in range(len(words))
            for length in range(1, self._longest + 1)
            if start + length <= len(words)
            for number in self._phrases.get(tuple(words[start : start + length]), ())
        ]
