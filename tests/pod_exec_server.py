"""A Kubernetes API server whose pods can be reached into: exec over a websocket, with commands that really run.

The subprotocols are v4.channel.k8s.io and v5.channel.k8s.io (https://www.kubernetes.dev/resources/keps/4006/): the
first byte of a message names the channel (0 stdin, 1 stdout, 2 stderr, 3 how it ended).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import deque
from pathlib import Path

from aiohttp import WSMsgType, web

from tests.kube_objects import Cluster
from tests.kube_server import KubeServer, Refused

TOOLS = (
    *("sh", "cat", "chmod", "cksum", "date", "dd", "df", "find", "gzip", "head", "ln", "mv", "readlink", "rm", "stat"),
    *("sync", "tail", "wc"),
)
"""What is in a container."""
LOGS = "/var/log/app"
"""The folder that is a pod's own: a command's words that begin with it mean the pod's folder on this machine."""


class PodExecServer(KubeServer):
    """``folder`` holds one folder a pod, which is the pod's LOGS, and the tools of the containers.

    ``refuse_next``: statuses that the next execs are answered with. ``lose_next``: the command runs to its end, and the
    connection is gone before its end is told. ``without``: a tool that no container has. ``ran``: the number of
    arguments of each script that was run. ``stopped``: pods whose containers do not run; the kubelet says so at the
    handshake, and after it where the API server itself takes the websocket (``translates``, by default since 1.30).
    ``silent``: the handshake is not answered.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(Cluster())
        self.folder = folder
        self.refuse_next: deque[tuple[int, str]] = deque()
        self.lose_next = False
        self.without = ""
        self.stopped: set[str] = set()
        self.translates = False
        self.silent = False
        self.ran: list[int] = []
        tools = folder / "bin"
        tools.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, f"{tool} is not on this machine"
            (tools / tool).symlink_to(found)

    def pod_folder(self, pod: str) -> Path:
        """What the pod finds under LOGS; made when it is asked for."""
        made = self.folder / pod
        made.mkdir(exist_ok=True)
        return made

    def routes(self, app: web.Application) -> None:
        path = "/api/{version}/namespaces/{namespace}/{resource:pods}/{name}/{sub:exec}"
        app.router.add_get(path, self._exec, allow_head=False)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        if self.silent:
            await asyncio.Event().wait()
        pod = self._stored(self._key(request))
        # Since 1.35 a websocket has to be allowed as the POST would be, though it is a GET.
        if self.granted is not None and ("create", "", "pods/exec") not in self.granted:
            raise Refused(403, "Forbidden", f'pods "{pod["metadata"]["name"]}" is forbidden: cannot create pods/exec')
        if self.refuse_next:
            status, message = self.refuse_next.popleft()
            raise Refused(status, "TooManyRequests" if status == 429 else "Forbidden", message)
        containers = [one["name"] for one in pod["spec"]["containers"]]
        if request.query.get("container") not in containers:
            raise Refused(400, "BadRequest", f"container {request.query.get('container')} is not valid for pod")
        name, said = pod["metadata"]["name"], f'container not found ("{request.query["container"]}")'
        if name in self.stopped and not self.translates:
            return web.Response(status=500, text=said)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        if name in self.stopped:
            out, err, ended = b"", b"", _failed(f"Internal error occurred: unable to upgrade connection: {said}")
        else:
            out, err, ended = await self._run(name, request.query.getall("command"), socket)
        if self.lose_next:
            self.lose_next = False
            assert request.transport is not None
            request.transport.abort()
            return socket
        for channel, data in ((1, out), (2, err), (3, json.dumps(ended).encode())):
            if data:
                await socket.send_bytes(bytes([channel]) + data)
        await socket.close()
        return socket

    async def _run(
        self, pod: str, command: list[str], socket: web.WebSocketResponse
    ) -> tuple[bytes, bytes, dict[str, object]]:
        root = str(self.pod_folder(pod))
        if self.without == "sh":
            said = 'exec: "sh": executable file not found in $PATH: unknown'
            return b"", b"", _failed(said)
        self.ran.append(len(command) - 5)
        tools = self.folder / "bin"
        if self.without:
            (tools / self.without).unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            *(root + word.removeprefix(LOGS) if word.startswith(LOGS) else word for word in command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": str(tools)},
            executable=shutil.which("sh"),
        )
        assert process.stdin is not None
        message = await socket.receive()
        assert message.type is WSMsgType.BINARY
        assert message.data[0] == 0
        process.stdin.write(message.data[1:])  # left open, as kubelet does while the client says nothing
        await process.stdin.drain()
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        return _seen_inside(out, root), _seen_inside(err, root), _ended(await process.wait())


def _seen_inside(output: bytes, root: str) -> bytes:
    return output.replace(root.encode(), LOGS.encode())


def _failed(message: str) -> dict[str, object]:
    return {"status": "Failure", "reason": "InternalError", "message": message, "code": 500}


def _ended(code: int) -> dict[str, object]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
