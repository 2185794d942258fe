"""The audit of the pinned packages against a stub of the service on this machine: a flaw fails, silence is said and
doesn't.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audit import main

pytest.importorskip("pip_audit")


@pytest.fixture
def service() -> Iterator[str]:
    """An OSV service that knows one flaw, of example-one below 2."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
            flaw = {
                "id": "PYSEC-0",
                "summary": "s",
                "details": "d",
                "affected": [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}],
            }
            body = json.dumps({"vulns": [flaw]} if name == "example-one" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audited(tmp_path: Path, packages: str, address: str) -> int:
    (tmp_path / "pins.txt").write_text(packages)
    return main(
        [
            str(tmp_path / "pins.txt"),
            "--vulnerability-service=osv",
            f"--osv-url={address}",
            "--cache-dir",
            str(tmp_path / "cache"),
        ]
    )


@pytest.mark.slow
def test_a_known_flaw_fails_and_is_named_with_its_remedy(
    service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited(tmp_path, "example-one==1.0\nexample-two==1.0\n", service) == 1
    assert (
        capsys.readouterr().out
        == "audit: example-one 1.0: PYSEC-0, mended in 2.0\naudit: 1 known flaws in 2 packages\n"
    )


@pytest.mark.slow
def test_packages_without_a_flaw_pass(service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audited(tmp_path, "example-two==1.0\n", service) == 0
    assert capsys.readouterr().out == "audit: 0 known flaws in 1 packages\n"


@pytest.mark.slow
def test_a_service_that_can_not_be_reached_is_said_in_one_line_and_does_not_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited(tmp_path, "example-one==1.0\n", "http://127.0.0.1:1/v1/query") == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("audit: the service for known flaws can't be asked, nothing was audited (")
        and said.count("\n") == 1
    )
