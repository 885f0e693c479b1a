"""pin: a release fetched from a server on this computer, what is written of it, and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import project
from cli.errors import FAILED, USAGE
from cli.pin import fetch
from components.spec import versions
from components.spec.load import load_stack_file
from tests.calico import schemas
from tests.support.cli import lab

CRDS = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ippools}\n"
OPERATOR = "apiVersion: apps/v1\nkind: Deployment\nspec:\n  containers:\n  - image: quay.io/tigera/operator:v1.43.1\n"
NODE = "apiVersion: apps/v1\nkind: DaemonSet\nspec: {image: quay.io/calico/node:v3.33.0}\n"
RELEASE = {
    "v1_crd_projectcalico_org.yaml": CRDS,
    "tigera-operator.yaml": OPERATOR,
    "calico.yaml": NODE,
    "calico-vxlan.yaml": NODE + "---\n" + NODE,
}


class Server:
    """A web server for the folder `root`. `redirect`: where it sends every request instead."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.redirect = ""
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if not server.redirect:
                    return super().do_GET()
                self.send_response(302)
                self.send_header("Location", server.redirect)
                self.end_headers()
                return None

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    root = tmp_path / "mirror"
    folder = root / "calico/v3.33.0/manifests"
    folder.mkdir(parents=True)
    for name, text in RELEASE.items():
        (folder / name).write_text(text)
    sums = root / "releases/v3.33.0/SHA256SUMS"
    sums.parent.mkdir(parents=True)
    sums.write_text(f"{'1' * 64}  ./calicoctl-linux-amd64\n{'2' * 64}  calicoctl-linux-arm64\n{'3' * 64}  other\n")
    server = Server(root)
    yield server
    server.close()


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    """A project whose one stack wants Calico 3.33.0 through the mirror."""
    folder = tmp_path / "project" / "stacks"
    folder.mkdir(parents=True)
    monkeypatch.setattr(project, "ROOT", folder.parent)
    monkeypatch.setattr(versions, "PINS", folder / "pins.yaml")
    mirrors = {"calicoManifests": f"{server.url}/calico", "calicoctl": f"{server.url}/releases"}
    spec = {"machines": {"provider": "local"}, "calico": {"version": "3.33.0"}, "mirrors": mirrors}
    (folder / "Pulumi.mine.yaml").write_text(yaml.safe_dump({"config": {"cni-lab:lab": spec}}))
    return folder


def test_a_release_is_pinned_and_then_accepted(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stacks / "Pulumi.mine.yaml"
    with pytest.raises(Exception, match=r"run \./lab pin calico 3\.33\.0"):
        load_stack_file(file)
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == 0
    out, err = capsys.readouterr()
    assert "operator: 1.43.1" in out and "not read over https" in err
    text = (stacks / "pins.yaml").read_text()
    for name, content in RELEASE.items():
        total = hashlib.sha256(content.encode()).hexdigest()
        assert f"{name}: {total}" in out and f"{name}: {total}" in text
    release = versions.pins().calico["3.33.0"]
    assert release.calicoctl == {"amd64": "1" * 64, "arm64": "2" * 64}
    assert load_stack_file(file).lab.calico.version == "3.33.0"
    assert sorted(path.name for path in stacks.iterdir()) == ["Pulumi.mine.yaml", "pins.yaml"]


def test_the_real_release_has_the_shipped_checksums(
    stacks: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command on the files of a release, as GitHub serves them."""
    version, shipped = versions.DEFAULT_CALICO, versions.CALICO[versions.DEFAULT_CALICO]
    folder = server.root / f"calico/v{version}/manifests"
    folder.mkdir(parents=True)
    for name in RELEASE:
        (folder / name).symlink_to(schemas.upstream(f"calico-v{version}", name))
    sums = server.root / f"releases/v{version}/SHA256SUMS"
    sums.parent.mkdir(parents=True)
    sums.write_text(f"{'1' * 64}  calicoctl-linux-amd64\n")
    assert lab("pin", "calico", version, "--stack", "mine") == 0
    assert f"operator: {shipped.operator}" in capsys.readouterr().out
    pinned = versions.pins().calico[version]
    assert (pinned.sha256, pinned.operator) == (shipped.sha256, shipped.operator)
    assert pinned.calicoctl == {"amd64": "1" * 64}


def test_pinning_again_changes_nothing(stacks: Path) -> None:
    assert lab("pin", "calico", "v3.33.0", "--stack", "mine") == 0
    first = (stacks / "pins.yaml").read_text()
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == 0
    assert (stacks / "pins.yaml").read_text() == first


def test_a_release_that_changed_is_refused(stacks: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == 0
    first = (stacks / "pins.yaml").read_text()
    (server.root / "calico/v3.33.0/manifests/calico.yaml").write_text(NODE + "# another\n")
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == FAILED
    assert "a release does not change" in capsys.readouterr().err
    assert (stacks / "pins.yaml").read_text() == first


def test_what_is_no_release_is_refused(stacks: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> tuple[int, str]:
        code = lab("pin", *words, "--stack", "mine")
        return code, capsys.readouterr().err

    code, message = refused("calico", "3.33.9")
    assert code == FAILED and "is there a release 3.33.9 of Calico?" in message
    operator = server.root / "calico/v3.33.0/manifests/tigera-operator.yaml"
    for text, part in (
        ("<html><body>Log in</body></html>", "holds no Kubernetes objects"),
        ("apiVersion: [", "is not YAML"),
        (CRDS, "names no version of the image tigera/operator"),
    ):
        operator.write_text(text)
        code, message = refused("calico", "3.33.0")
        assert code == FAILED and part in message
    operator.write_text(OPERATOR)
    (server.root / "calico/v3.33.0/manifests/calico.yaml").write_text(NODE.replace("3.33.0", "3.32.9"))
    code, message = refused("calico", "3.33.0")
    assert code == FAILED and "the mirror serves another release" in message
    assert not (stacks / "pins.yaml").exists()


def test_a_download_is_bounded(
    stacks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 10)
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == FAILED
    assert "it is not a manifest" in capsys.readouterr().err


def test_https_is_not_left(server: Server) -> None:
    server.redirect = "http://192.0.2.1/elsewhere"
    request = fetch.urllib.request.Request("https://mirror.example/calico.yaml")
    with pytest.raises(fetch.urllib.error.URLError, match="not https"):
        fetch._SameScheme().redirect_request(request, None, 302, "Found", {}, server.redirect)


def test_words_that_need_no_download(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("pin", "multus", "4.4.0") == 0
    assert "needs no pin" in capsys.readouterr().out
    for words, part in (
        (("calico", "3.33"), "not a whole version"),
        (("calico", "3.25.0"), "the oldest supported"),
        (("cilium", "1.0.0"), "write calico or multus"),
    ):
        assert lab("pin", *words) == USAGE
        assert part in capsys.readouterr().err
    assert not (stacks / "pins.yaml").exists()


def test_without_a_list_of_checksums_calicoctl_is_left_out(stacks: Path, server: Server) -> None:
    (server.root / "releases/v3.33.0/SHA256SUMS").unlink()
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == 0
    assert versions.pins().calico["3.33.0"].calicoctl == {}


def test_a_shipped_release_gets_the_checksums_of_calicoctl(
    stacks: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in RELEASE.items()}
    shipped = {"pinned": "2026-11-21", "operator": "1.43.1", "sha256": sums}
    monkeypatch.setitem(versions.CALICO, "3.33.0", versions.CalicoRelease.model_validate(shipped))
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == 0
    assert "get calicoctl on their control planes" in capsys.readouterr().out
    release = versions.calico_release("3.33.0")
    assert release is not None and release.calicoctl == {"amd64": "1" * 64, "arm64": "2" * 64}


def test_a_mirror_that_serves_another_content_than_the_shipped_one_is_refused(
    stacks: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = {"pinned": "2026-11-21", "operator": "1.43.1", "sha256": {"calico.yaml": "4" * 64}}
    monkeypatch.setitem(versions.CALICO, "3.33.0", versions.CalicoRelease.model_validate(shipped))
    assert lab("pin", "calico", "3.33.0", "--stack", "mine") == FAILED
    assert "the mirror serves something else" in capsys.readouterr().err
    assert not (stacks / "pins.yaml").exists()
