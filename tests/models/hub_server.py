"""A stand-in for the model hub: enough of its protocol to fetch a model, to be refused one, and to send one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

COMMIT = "1" * 40
REFUSED: dict[str, tuple[int, str]] = {
    "gated": (403, "GatedRepo"),
    "missing": (404, "RepoNotFound"),
    "broken": (500, ""),
    "busy": (429, ""),
}
"""Repositories of 'team' that answer everything with a status and an error code."""


class Hub:
    """The repositories by 'owner/name', as files by path; what was sent; and all requests."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories = repositories
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        """Puts the files of a commit into a repository."""
        files = self.repositories.setdefault(f"{name}@{branch}", {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                import base64

                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", *, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        """One answer."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any, status: int = 200) -> None:
        """An answer in JSON."""
        self.reply(status, json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def refused(self, name: str) -> bool:
        """Whether the repository answers nothing else than its refusal."""
        if name == "team/hang-up":
            self.close_connection = True
            self.connection.close()
            return True
        status, code = REFUSED.get(name.removeprefix("team/"), (0, ""))
        if not status and name not in self.hub.repositories:
            status, code = 404, "RepoNotFound"
        if status:
            self.reply(status, b"{}", headers={"X-Error-Code": code} if code else {})
        return bool(status)

    def fetch(self) -> None:
        """GET and HEAD."""
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.about(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            files = self.hub.repositories.get(found[1], {})
            self.json([{"type": "file", "path": name, "size": len(data), "oid": COMMIT} for name, data in files.items()])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(found[1], found[2], found[3])
        else:
            self.reply(404)

    do_GET = do_HEAD = fetch  # noqa: N815 - http.server's names

    def about(self, name: str, revision: str) -> None:
        """What a repository holds."""
        if self.refused(name):
            return
        if revision not in {"main", "v1", COMMIT}:
            self.reply(404, b"{}", headers={"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": path} for path in self.hub.repositories[name]]
        self.json({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

    def file(self, name: str, revision: str, path: str) -> None:
        """A file, or the first half of it for the repository 'team/short'."""
        if self.refused(name):
            return
        data = self.hub.repositories[name].get(path)
        if revision not in {"main", "v1", COMMIT}:
            self.reply(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif data is None:
            self.reply(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            short = name == "team/short" and path.endswith(".safetensors") and self.command == "GET"
            self.close_connection = short
            self.reply(200, data[: len(data) // 2] if short else data, headers=headers, length=len(data))

    def do_POST(self) -> None:
        """What sending needs."""
        body, path = self.rfile.read(int(self.headers.get("Content-Length") or 0)), unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != "Bearer hf_writer":
            self.reply(401 if "Authorization" not in self.headers else 403, b"{}")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            self.hub.repositories.setdefault(f"{asked['organization']}/{asked['name']}", {})
            self.json({"url": f"http://{self.headers['Host']}/{asked['organization']}/{asked['name']}"})
        elif path == "/api/validate-yaml":
            self.json({"warnings": [], "errors": []})
        elif found := re.fullmatch(r"/api/models/(.+)/branch/(.+)", path):
            self.json({})
        elif path.startswith("/api/models/") and "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith("safetensors") else "regular"} for f in files]
            self.json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            host = self.headers["Host"]
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"http://{host}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self.json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/(.+)", path):
            self.hub.commit(found[1], found[2], [json.loads(line) for line in body.decode().splitlines()])
            self.json(
                {"success": True, "commitUrl": f"http://{self.headers['Host']}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self.reply(404)

    def do_PUT(self) -> None:
        """A large file."""
        self.hub.objects[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(200)


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address at which the hub answers."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder as a repository."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
