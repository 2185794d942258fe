"""`coh export --push-to-hub` against a hub on this machine: what is sent, and that nothing is sent that failed."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from huggingface_hub import constants

from coh_lightning.__main__ import main
from coh_lightning.export import export_check
from coh_lightning.module import CoHModule
from helpers.feedback import TINY, data_of, pairs
from helpers.training import trainer

TOKEN = "hf_stub_token"
LARGE = ".safetensors"


@dataclass
class HubStub:
    """A hub with the requests that this test needs. `refuse`: (part of a path, status of the answer)."""

    url: str = ""
    refuse: tuple[str, int] | None = None
    asked: list[str] = field(default_factory=list)
    repositories: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path.startswith("/objects/"):
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials in Authorization header"}
        if self.refuse is not None and self.refuse[0] in path:
            return self.refuse[1], {"error": "no\nway"}
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "me", "auth": {"type": "access_token"}}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            self.repositories[name] = asked["visibility"]
            return 200, {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(LARGE) else "regular" for name in names]
            files = [
                {"path": name, "uploadMode": mode, "shouldIgnore": False}
                for name, mode in zip(names, modes, strict=True)
            ]
            return 200, {"files": files}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                if entry["key"] == "lfsFile":
                    self.files[value["path"]] = self.objects[value["oid"]]
            return 200, {"commitUrl": f"{self.url}/me/model/commit/1", "commitOid": "1", "success": True}
        return 404, {"error": f"{path}: the stub doesn't know it"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    it = HubStub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0]
            status, content = it.answer(self.command, path, body, self.headers.get("Authorization"))
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    it.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", it.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stub speaks LFS
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield it
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    pl.seed_everything(0, verbose=False)
    run = trainer(folder, max_steps=1)
    run.fit(CoHModule(from_config=TINY), datamodule=data_of(pairs(4), folder))
    run.save_checkpoint(folder / "one.ckpt")
    return folder / "one.ckpt"


def push(checkpoint: Path, folder: Path, name: str = "me/model") -> int:
    return main(["export", str(checkpoint), str(folder), "--push-to-hub", name])


def test_the_folder_is_sent_whole_to_a_private_repository(
    hub: HubStub, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(checkpoint, tmp_path / "out") == 0, capsys.readouterr().err
    assert hub.repositories == {"me/model": "private"}
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert hub.objects == {hashlib.sha256(weights).hexdigest(): weights}
    assert capsys.readouterr().out.endswith(f"sent to {hub.url}/me/model\n")
    hub.files.clear()
    assert push(checkpoint, tmp_path / "again") == 0  # into the repository that is there now
    assert "model.safetensors" in hub.files and hub.repositories == {"me/model": "private"}


def test_nothing_is_sent_that_a_failed_check_produced(
    hub: HubStub,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = export_check.load_folder

    def damaged(folder: Path, like: Any) -> Any:
        lm = loaded(folder, like)
        with torch.no_grad():
            lm.get_output_embeddings().weight += 0.1
        return lm

    monkeypatch.setattr(export_check, "load_folder", damaged)
    assert push(checkpoint, tmp_path / "out") == 2
    assert "logits of the exported folder differ" in capsys.readouterr().err
    assert hub.asked == ["GET /api/whoami-v2"] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("token", "name", "says", "asked"),
    [
        (None, "me/model", "there is no token for {url}; give one that may write in HF_TOKEN", 0),
        ("wrong", "me/model", "{url} answers with 401: it does not know the token; give one that may write", 1),
        (TOKEN, "me/model/more", "--push-to-hub is 'me/model/more'; name a repository, such as user/model.", 0),
    ],
)
def test_what_can_be_refused_is_refused_before_the_export(
    token: str | None,
    name: str,
    says: str,
    asked: int,
    hub: HubStub,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    assert push(checkpoint, tmp_path / "out", name) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and says.format(url=hub.url) in err
    assert len(hub.asked) == asked and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "status", "says"),
    [
        ("/api/repos/create", 403, "answers with 403: the token may not write to me/model; give one that may write"),
        ("/commit/", 400, "answers with 400: no way; the model is in {folder}: hf upload me/model {folder}."),
    ],
)
def test_a_refused_upload_says_where_the_model_is(
    place: str, status: int, says: str, hub: HubStub, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    hub.refuse = (place, status)
    assert push(checkpoint, tmp_path / "out") == 2
    err = capsys.readouterr().err
    last = err.strip().split("\n")[-1]
    assert last.startswith("error: --push-to-hub: ") and says.format(folder=tmp_path / "out") in last
    assert TOKEN not in err and (tmp_path / "out" / "model.safetensors").exists() and hub.files == {}


def test_a_hub_that_is_not_there_is_one_sentence(
    hub: HubStub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push(checkpoint, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --push-to-hub: http://127.0.0.1:9 can't be reached (") and err.count("\n") == 1


def test_a_folder_that_is_full_is_refused_before_the_hub_is_asked(
    hub: HubStub, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    assert push(checkpoint, tmp_path / "out") == 2 and hub.asked == []
    assert "already exists and is not empty" in capsys.readouterr().err
