"""Downloads: whatever the network does, the cache holds either the right file or none."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from hpo_bench.datasets import sources
from hpo_bench.datasets.sources import RemoteFile, cached_path, check, fetch
from hpo_bench.errors import UserError
from hpo_bench.system import inherited, locks

CONTENT = np.random.default_rng(0).bytes(3 * sources.BLOCK + 12345)
NAME = "data set.txt"  # a space: has to be quoted in URLs


@dataclass
class Server:
    """A web server with one file and bad habits.

    Args:
        cuts: bytes of the body to send before closing the connection, one per request; then all is
            sent.
        statuses: HTTP errors to answer with, one per request, before anything else.
        ranges: whether the Range header is obeyed.
        announce: whether the length of the body is.
        requests: (path, Range header) of each request so far.
    """

    url: str = ""
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    announce: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.requests.append((request.path, asked))
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if start and start >= len(self.content):
            request.send_error(416)
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header(
                "Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            )
        if self.announce:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirror, no proxy, no waiting."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("HPO_BENCH_DATA_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(sources, "BACK_OFF", 0.0)
    return tmp_path / "cache"


def remote(*urls: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(NAME, urls, hashlib.sha256(content).hexdigest(), len(content))


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/x"


def mirror_folder(path: Path, content: bytes = CONTENT) -> Path:
    (path / "set").mkdir(parents=True)
    (path / "set" / NAME).write_bytes(content)
    return path


def leftovers(cache: Path) -> list[str]:
    return [
        path.name
        for path in cache.rglob("*")
        if path.is_file() and path.name not in (NAME, ".lock")
    ]


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_downloads_once_and_then_asks_nobody(server: Server, cache: Path) -> None:
    file = remote(f"{server.url}/f")
    path = fetch("set", file)
    assert path == cache / "set" / NAME
    assert path.read_bytes() == CONTENT
    assert fetch("set", file) == path
    assert server.requests == [("/f", None)]
    assert leftovers(cache) == []


@pytest.mark.parametrize("cut", [1, sources.BLOCK + 7, len(CONTENT) - 1])
@pytest.mark.parametrize("announce", [True, False])
def test_goes_on_where_the_connection_was_cut(server: Server, cut: int, announce: bool) -> None:
    server.cuts, server.announce = [cut], announce
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    assert server.requests == [("/f", None), ("/f", f"bytes={cut}-")]


def test_many_cuts_are_fine_as_long_as_each_attempt_brings_something(server: Server) -> None:
    server.cuts = [1000] * (sources.ATTEMPTS + 3)
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    assert server.requests[-1] == ("/f", f"bytes={1000 * (sources.ATTEMPTS + 3)}-")


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, cache: Path) -> None:
    server.cuts = [5000] + [0] * sources.ATTEMPTS
    file = remote(f"{server.url}/f")
    with pytest.raises(UserError, match="cut at 5000 of"):
        fetch("set", file)
    assert check("set", file) is None
    before = len(server.requests)
    assert fetch("set", file).read_bytes() == CONTENT
    assert server.requests[before:] == [("/f", "bytes=5000-")]
    assert leftovers(cache) == []


def test_starts_again_where_the_server_ignores_ranges(server: Server) -> None:
    server.cuts, server.ranges = [5000], False
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("junk", [b"junk", b"j" * len(CONTENT), b"j" * (len(CONTENT) + 1)])
def test_a_part_that_belongs_to_something_else_is_dropped(
    server: Server, cache: Path, junk: bytes
) -> None:
    (cache / "set").mkdir(parents=True)
    (cache / "set" / f"{NAME}.part").write_bytes(junk)
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    assert leftovers(cache) == []


def test_a_range_that_the_server_cannot_satisfy_starts_again(server: Server, cache: Path) -> None:
    (cache / "set").mkdir(parents=True)
    (cache / "set" / f"{NAME}.part").write_bytes(b"junk")
    server.statuses = [416]
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    assert server.requests == [("/f", "bytes=4-"), ("/f", None)]


def test_passing_trouble_is_tried_again_and_a_missing_file_is_not(server: Server) -> None:
    server.statuses = [503] * (sources.ATTEMPTS - 1)
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    server.requests.clear()
    server.statuses = [404, 404]
    with pytest.raises(UserError, match="HTTP 404") as error:
        fetch("other", remote(f"{server.url}/f"))
    one_line(error)
    assert len(server.requests) == 1


def test_the_next_url_is_asked_when_one_fails(server: Server) -> None:
    server.statuses = [404]
    assert (
        fetch("set", remote(closed_port(), f"{server.url}/a", f"{server.url}/b")).read_bytes()
        == CONTENT
    )
    assert [path for path, _ in server.requests] == ["/a", "/b"]


@pytest.mark.parametrize(
    "content", [b"<html>sign in</html>", CONTENT[:-1] + b"x", CONTENT + b"more"]
)
def test_another_content_is_never_kept(server: Server, cache: Path, content: bytes) -> None:
    server.content = content
    file = remote(f"{server.url}/f")
    with pytest.raises(UserError, match="not the file that was expected") as error:
        fetch("set", file)
    text = one_line(error)
    assert NAME in text
    assert file.sha256 in text
    assert leftovers(cache) == []
    assert check("set", file) is None


def test_a_body_without_end_is_not_followed(server: Server, cache: Path) -> None:
    server.content = bytes(200 * sources.BLOCK)
    with pytest.raises(UserError, match="not the file that was expected") as error:
        fetch("set", remote(f"{server.url}/f", content=b"small"))
    assert int(one_line(error).rsplit("(", 1)[1].split()[0]) <= sources.BLOCK + 5


def test_a_found_checksum_is_that_of_what_came(server: Server) -> None:
    server.content = b"something else"
    with pytest.raises(UserError, match=hashlib.sha256(b"something else").hexdigest()):
        fetch("set", remote(f"{server.url}/f"))


@pytest.mark.parametrize("spell", [str, Path.as_uri], ids=["path", "file url"])
def test_a_mirror_folder_comes_before_the_web(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spell: Callable[[Path], str]
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", spell(mirror_folder(tmp_path / "a mirror")))
    assert fetch("set", remote(f"{server.url}/f")).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_url_is_asked_for_dataset_and_file_name(server: Server, slash: str) -> None:
    assert (
        fetch(
            "set", remote(f"{server.url}/public"), mirror=f"{server.url}/mirror{slash}"
        ).read_bytes()
        == CONTENT
    )
    assert server.requests == [(f"/mirror/set/{quote(NAME)}", None)]


def test_a_mirror_without_the_file_is_passed_over(server: Server, tmp_path: Path) -> None:
    file = remote(f"{server.url}/public")
    assert fetch("set", file, mirror=str(tmp_path)).read_bytes() == CONTENT
    server.statuses = [404]
    assert fetch("set", file, mirror=f"{server.url}/mirror", force=True).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [
        "/public",
        f"/mirror/set/{quote(NAME)}",
        "/public",
    ]


def test_a_mirror_with_another_file_is_an_error(server: Server, tmp_path: Path) -> None:
    mirror = mirror_folder(tmp_path / "mirror", b"something else")
    with pytest.raises(UserError, match="not the file that was expected") as error:
        fetch("set", remote(f"{server.url}/f"), mirror=str(mirror))
    assert str(mirror) in one_line(error)


def test_a_mirror_that_is_no_url_is_an_error(server: Server) -> None:
    with pytest.raises(UserError, match=r"^HPO_BENCH_DATA_MIRROR=http://\[x is no URL: "):
        fetch("set", remote(f"{server.url}/f"), mirror="http://[x")


def test_a_mirror_that_does_not_exist_is_an_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"HPO_BENCH_DATA_MIRROR=.*nowhere is neither a folder nor a URL"
    ):
        fetch("set", remote(f"{server.url}/f"), mirror=str(tmp_path / "nowhere"))
    assert server.requests == []


def test_offline_says_in_one_line_what_can_be_done(cache: Path) -> None:
    with pytest.raises(UserError, match="refused") as error:
        fetch("set", remote(closed_port()))
    text = one_line(error)
    for way in (
        "HPO_BENCH_DATA_MIRROR",
        f"set/{NAME}",
        str(cache / "set" / NAME),
        "diabetes",
        "digits",
    ):
        assert way in text


def test_a_copy_put_into_the_cache_by_hand_is_used(cache: Path) -> None:
    file = remote(closed_port())
    (cache / "set").mkdir(parents=True)
    (cache / "set" / NAME).write_bytes(CONTENT)
    assert fetch("set", file) == cached_path("set", file)


def test_a_damaged_copy_is_named_and_never_used(server: Server, cache: Path) -> None:
    file = remote(f"{server.url}/f")
    path = fetch("set", file)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="hpo-bench data download set --force") as error:
        fetch("set", file)
    text = one_line(error)
    assert str(path) in text
    assert file.sha256 in text
    assert hashlib.sha256(CONTENT[:-1]).hexdigest() in text
    assert fetch("set", file, force=True).read_bytes() == CONTENT


def test_force_keeps_the_old_copy_until_the_new_one_is_right(server: Server, cache: Path) -> None:
    file = remote(f"{server.url}/f")
    path = fetch("set", file)
    server.content = b"something else"
    with pytest.raises(UserError):
        fetch("set", file, force=True)
    assert path.read_bytes() == CONTENT


def test_two_at_once_download_once(server: Server, cache: Path) -> None:
    file = remote(f"{server.url}/f")
    start = threading.Barrier(4)

    def get() -> bytes:
        start.wait()
        return fetch("set", file).read_bytes()

    with ThreadPoolExecutor(4) as pool:
        contents = [job.result() for job in [pool.submit(get) for _ in range(4)]]
    assert contents == [CONTENT] * 4
    assert len(server.requests) == 1
    assert leftovers(cache) == []


def test_without_locks_each_process_has_its_own_part(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    server.cuts = [5000] + [0] * sources.ATTEMPTS
    file = remote(f"{server.url}/f")
    with pytest.raises(UserError):
        fetch("set", file)
    assert leftovers(cache) == [f"{NAME}.{os.getpid()}.part"]
    assert fetch("set", file).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_named(server: Server, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write to the data cache") as error:
        fetch("set", remote(f"{server.url}/f"))
    text = one_line(error)
    assert str(cache) in text
    assert "HPO_BENCH_DATA" in text
    assert server.requests == []


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inherited.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HPO_BENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert inherited.cache_folder() == tmp_path / "xdg" / "hpo-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inherited.cache_folder() == tmp_path / ".cache" / "hpo-bench"


def test_progress_rises_to_the_size_of_the_file(server: Server) -> None:
    server.cuts = [5000]
    seen: list[int] = []
    labels: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
        labels.append((label, total))
        yield seen.append

    fetch("set", remote(f"{server.url}/f"), progress=progress)
    assert labels == [(f"set/{NAME} from {server.url.removeprefix('http://')}", len(CONTENT))]
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_a_line_elsewhere(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, log = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    fetch("set", remote(f"{server.url}/f"))
    assert "\x1b[" in terminal.getvalue()
    monkeypatch.setattr("sys.stderr", log)
    fetch("set", remote(f"{server.url}/f"), force=True)
    assert log.getvalue().count("\n") == 1
    assert f"set/{NAME}" in log.getvalue()


def test_origin_is_the_repository_or_the_host() -> None:
    github = "https://raw.githubusercontent.com/owner/repository/commit/folder/file"
    assert remote(github).origin == "github.com/owner/repository"
    assert remote("https://example.org/file", github).origin == "example.org"


@pytest.mark.parametrize("part", ["../../outside", "/etc", "a/../../b"])
def test_nothing_is_written_outside_of_the_cache(part: str, cache: Path) -> None:
    for dataset, name in ((part, "file"), ("set", part)):
        with pytest.raises(UserError, match="leads out of the data cache"):
            fetch(dataset, replace(remote(), name=name))
