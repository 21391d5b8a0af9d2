"""GitHub's REST API over a real bare git repository: the calls the adapter makes, with GitHub's refusals and words."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.git_server import Repository, git

TOKEN = "the-bot"
NAME = "acme/shop"


class Refused(Exception):
    def __init__(self, status: int, message: str, *, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors


@dataclass
class Pull:
    number: int
    title: str
    head: str
    base: str
    body: str
    state: str = "open"
    merged_at: str | None = None
    looked_at: bool = False


class GitHubServer:
    """``async with GitHubServer(folder) as server``: the repository NAME at ``server.url``, for the token TOKEN.

    ``merge_refusal``: GitHub's words when a merge is not allowed; ``checks``: runs by name, with their status.
    ``finds_out_later``: whether a pull request conflicts is not known yet when it is first asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "shop.git")
        self.id = 1000
        self.default_branch = "main"
        self.read_only = False
        self.archived = False
        self.merge_refusal = ""
        self.methods = {"squash", "merge", "rebase"}
        self.checks: dict[str, str] = {}
        self.truncated = False
        self.finds_out_later = False
        self.pulls: list[Pull] = []
        self.calls: list[tuple[str, str]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard])
        base = "/repos/{owner}/{repo}"
        routes: tuple[tuple[str, str, Any], ...] = (
            ("GET", "", self._repository),
            ("GET", "/git/ref/heads/{branch:.+}", self._ref),
            ("GET", "/git/commits/{sha}", self._commit),
            ("GET", "/git/trees/{sha}", self._tree),
            ("GET", "/commits", self._commits),
            ("GET", "/commits/{sha}/check-runs", self._check_runs),
            ("GET", "/compare/{base}...{head}", self._compare),
            ("GET", "/pulls", self._pulls),
            ("GET", "/pulls/{number}", self._pull),
            ("POST", "/git/trees", self._create_tree),
            ("POST", "/git/commits", self._create_commit),
            ("POST", "/git/refs", self._create_ref),
            ("POST", "/pulls", self._open_pull),
            ("PUT", "/pulls/{number}/merge", self._merge),
        )
        for method, path, handler in routes:
            app.router.add_route(method, base + path, handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def branches(self) -> list[str]:
        return self._git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append((request.method, request.path))
        try:
            if request.headers.get("Authorization") != f"token {TOKEN}":
                raise Refused(401, "Bad credentials")
            if "{}/{}".format(request.match_info.get("owner"), request.match_info.get("repo")).casefold() != NAME:
                raise Refused(404, "Not Found")
            if self.read_only and request.method != "GET":
                raise Refused(403, "Resource not accessible by personal access token")
            found: tuple[int, Any] = await handler(request)
            return web.json_response(found[1], status=found[0])
        except Refused as refused:
            said: dict[str, Any] = {"message": str(refused), "documentation_url": "https://docs.github.com/rest"}
            if refused.errors is not None:
                said["errors"] = refused.errors
            return web.json_response(said | {"status": str(refused.status)}, status=refused.status)

    async def _repository(self, request: web.Request) -> tuple[int, Any]:
        methods = {"squash": "squash_merge", "merge": "merge_commit", "rebase": "rebase_merge"}
        return 200, {
            "id": self.id,
            "full_name": NAME,
            "default_branch": self.default_branch,
            "archived": self.archived,
            "disabled": False,
            "permissions": {"admin": False, "push": not self.read_only, "pull": True},
            **{f"allow_{word}": method in self.methods for method, word in methods.items()},
        }

    async def _ref(self, request: web.Request) -> tuple[int, Any]:
        return 200, self._told_ref(request.match_info["branch"])

    async def _commit(self, request: web.Request) -> tuple[int, Any]:
        return 200, self._told_commit(request.match_info["sha"])

    async def _commits(self, request: web.Request) -> tuple[int, Any]:
        count = int(request.query.get("per_page", "30"))
        listed = self._git("rev-list", f"--max-count={count}", request.query.get("sha", self.default_branch)).split()
        told = [self._told_commit(sha) for sha in listed]
        return 200, [{"sha": one["sha"], "parents": one["parents"], "commit": one} for one in told]

    async def _tree(self, request: web.Request) -> tuple[int, Any]:
        sha = request.match_info["sha"]
        items = []
        for line in self._git("ls-tree", "-r", "-t", sha).splitlines():
            words, _, path = line.partition("\t")
            mode, kind, blob = words.split()
            items.append({"path": path, "mode": mode, "type": kind, "sha": blob})
        return 200, {"sha": sha, "tree": items, "truncated": self.truncated}

    async def _compare(self, request: web.Request) -> tuple[int, Any]:
        base, head = request.match_info["base"], request.match_info["head"]
        if not self._has(base) or not self._has(head):
            raise Refused(404, "Not Found")
        ahead, behind = self._git("rev-list", "--count", "--left-right", f"{head}...{base}").split()
        words = {(False, False): "identical", (True, False): "ahead", (False, True): "behind", (True, True): "diverged"}
        return 200, {"status": words[ahead != "0", behind != "0"], "files": []}

    async def _check_runs(self, request: web.Request) -> tuple[int, Any]:
        runs = [{"name": name, "status": status} for name, status in self.checks.items()]
        return 200, {"total_count": len(runs), "check_runs": runs}

    async def _pulls(self, request: web.Request) -> tuple[int, Any]:
        found = [pull for pull in self.pulls if request.query["head"] == f"acme:{pull.head}"]
        return 200, [self._told_pull(pull) for pull in reversed(found)]

    async def _pull(self, request: web.Request) -> tuple[int, Any]:
        pull = self._numbered(request)
        told = self._told_pull(pull)
        if pull.looked_at or not self.finds_out_later:
            told["mergeable"] = pull.state == "open" and self._merge_tree(pull) is not None
        pull.looked_at = True
        return 200, told

    async def _create_tree(self, request: web.Request) -> tuple[int, Any]:
        body = await request.json()
        entries = {
            path: words
            for words, _, path in (
                line.partition("\t") for line in self._git("ls-tree", "-r", body["base_tree"]).splitlines()
            )
        }
        for item in body["tree"]:
            if item["sha"] is None:
                if entries.pop(item["path"], None) is None:
                    raise Refused(422, "GitRPC::BadObjectState")
            else:
                entries[item["path"]] = f"{item['mode']} {item['type']} {item['sha']}"
        return 201, {"sha": self._written(entries)}

    async def _create_commit(self, request: web.Request) -> tuple[int, Any]:
        body = await request.json()
        return 201, self._told_commit(self._made(body["tree"], body["parents"], body["message"]))

    async def _create_ref(self, request: web.Request) -> tuple[int, Any]:
        body = await request.json()
        branch = body["ref"].removeprefix("refs/heads/")
        if branch in self.branches:
            raise Refused(422, "Reference already exists")
        self._git("update-ref", body["ref"], body["sha"])
        return 201, self._told_ref(branch)

    async def _open_pull(self, request: web.Request) -> tuple[int, Any]:
        body = await request.json()
        if any(pull.head == body["head"] and pull.state == "open" for pull in self.pulls):
            said = f"A pull request already exists for acme:{body['head']}."
            raise Refused(
                422,
                "Validation Failed",
                errors=[{"resource": "PullRequest", "code": "custom", "message": said}],
            )
        pull = Pull(len(self.pulls) + 1, body["title"], body["head"], body["base"], body["body"])
        self.pulls.append(pull)
        return 201, self._told_pull(pull)

    async def _merge(self, request: web.Request) -> tuple[int, Any]:
        body, pull = await request.json(), self._numbered(request)
        head = self.repository.at(pull.head)
        if body.get("sha", head) != head:
            raise Refused(409, "Head branch was modified. Review and try the merge again.")
        if self.merge_refusal:
            raise Refused(405, self.merge_refusal)
        if body["merge_method"] not in self.methods:
            raise Refused(405, f"{body['merge_method'].capitalize()} merges are not allowed on this repository.")
        tree = self._merge_tree(pull)
        if pull.state != "open" or tree is None:
            raise Refused(405, "Pull Request is not mergeable")
        base = self.repository.at(pull.base)
        if body["merge_method"] == "squash":
            sha = self._made(tree, [base], f"{body['commit_title']}\n\n{body['commit_message']}")
        elif body["merge_method"] == "merge":
            sha = self._made(tree, [base, head], f"Merge pull request #{pull.number} from {pull.head}\n\n{pull.title}")
        else:
            sha = self._made(tree, [base], self._git("log", "-1", "--format=%B", head))
        self._git("update-ref", f"refs/heads/{pull.base}", sha, base)
        pull.state, pull.merged_at = "closed", datetime.now(UTC).isoformat()
        return 200, {"sha": sha, "merged": True, "message": "Pull Request successfully merged"}

    def _numbered(self, request: web.Request) -> Pull:
        number = int(request.match_info["number"])
        if not 1 <= number <= len(self.pulls):
            raise Refused(404, "Not Found")
        return self.pulls[number - 1]

    def _told_pull(self, pull: Pull) -> dict[str, Any]:
        return {
            "number": pull.number,
            "html_url": f"https://github.com/{NAME}/pull/{pull.number}",
            "state": pull.state,
            "title": pull.title,
            "merged_at": pull.merged_at,
            "mergeable": None,
            "head": {"ref": pull.head, "sha": self.repository.at(pull.head)},
        }

    def _told_ref(self, branch: str) -> dict[str, Any]:
        if branch not in self.branches:
            raise Refused(404, "Not Found")
        return {"ref": f"refs/heads/{branch}", "object": {"type": "commit", "sha": self.repository.at(branch)}}

    def _told_commit(self, sha: str) -> dict[str, Any]:
        if not self._has(sha):
            raise Refused(404, "Not Found")
        told = self._git("log", "-1", "--format=%H%x00%T%x00%P%x00%cI%x00%B", sha).split("\0")
        return {
            "sha": told[0],
            "tree": {"sha": told[1]},
            "parents": [{"sha": parent} for parent in told[2].split()],
            "committer": {"name": "A", "email": "a@b", "date": told[3]},
            "message": told[4],
        }

    def _merge_tree(self, pull: Pull) -> str | None:
        """The tree of the merge; None when it conflicts."""
        done = subprocess.run(
            ["git", "merge-tree", "--write-tree", "--no-messages", pull.base, pull.head],
            cwd=self.repository.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    def _written(self, entries: dict[str, str]) -> str:
        """A tree with folders, by way of an index of its own."""
        folders: dict[str, dict[str, str]] = {}
        here: dict[str, str] = {}
        for path, words in entries.items():
            top, slash, rest = path.partition("/")
            if slash:
                folders.setdefault(top, {})[rest] = words
            else:
                here[path] = words
        here |= {name: f"040000 tree {self._written(inner)}" for name, inner in folders.items()}
        return self._git("mktree", fed="".join(f"{words}\t{name}\n" for name, words in sorted(here.items())))

    def _made(self, tree: str, parents: list[str], message: str) -> str:
        above = [word for parent in parents for word in ("-p", parent)]
        return self._git("commit-tree", tree, *above, "-F", "-", fed=message)

    def _has(self, sha: str) -> bool:
        asked = self._git("cat-file", "--batch-check", fed=f"{sha}\n")
        return not asked.endswith("missing")

    def _git(self, *words: str, fed: str = "") -> str:
        return git(self.repository.folder, *words, fed=fed)


def limited() -> tuple[int, bytes, dict[str, str]]:
    """What GitHub answers once an hour's requests are used up: status, body, headers."""
    body = json.dumps({"message": "API rate limit exceeded for user ID 1.", "status": "403"}).encode()
    reset = str(int(datetime.now(UTC).timestamp()) + 30)
    return (
        403,
        body,
        {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset},
    )
