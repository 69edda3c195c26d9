"""Scripts and styles are small, cached forever, served by docv-archive, and identical to their originals."""

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from scripts.serve import page
from tests.scripts.serve.page.conftest import PageUser

STATIC = Path(page.__file__).parent / "static"
NOTICE = (STATIC / "NOTICE").read_text("utf-8")


async def asset_paths(person: PageUser) -> list[str]:
    return re.findall(r'(?:href|src)="(/page/assets/[^"]+)"', (await person.get_page("/")).body.decode())


async def test_the_page_is_smaller_than_100_kb_and_loads_only_its_own_files(viewer: PageUser) -> None:
    body = (await viewer.get_page("/")).body
    sizes = [len(gzip.compress((await viewer.get_page(path)).body)) for path in await asset_paths(viewer)]
    assert len(sizes) == 4
    assert len(body) + sum(sizes) < 100_000
    assert set(re.findall(rb'(?:href|src|action|hx-get)="([^"]{0,2})', body)) <= {b"/", b"/p", b"#m", b"/?"}


async def test_an_asset_is_compressed_when_the_browser_accepts_it_and_cached_forever(viewer: PageUser) -> None:
    for path in await asset_paths(viewer):
        plain = await viewer.get_page(path, Accept_Encoding="identity")
        packed = await viewer.get_page(path, Accept_Encoding="gzip")
        assert plain.body == packed.body == (STATIC / path.rpartition("/")[2]).read_bytes()
        assert (packed.headers["Content-Encoding"], "Content-Encoding" in plain.headers) == ("gzip", False)
        assert "immutable" in packed.headers["Cache-Control"]
        assert packed.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_asset_is_found_only_under_its_own_hash(viewer: PageUser) -> None:
    [path] = [each for each in await asset_paths(viewer) if each.endswith("page.css")]
    for other in (path.replace("page.css", "page.js"), "/page/assets/x/page.css", path.replace("page.css", "NOTICE")):
        assert (await viewer.get_page(other)).status == 404


@pytest.mark.parametrize(("name", "sha256"), re.findall(r"(\S+) +sha256 ([0-9a-f]{64})", NOTICE))
def test_vendored_files_are_unchanged(name: str, sha256: str) -> None:
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sha256


def test_every_vendored_file_is_listed_with_its_licence() -> None:
    vendored = {path.name for path in STATIC.glob("*.min.*")}
    assert set(re.findall(r"(\S+) +sha256", NOTICE)) == vendored
    assert all((STATIC / name).is_file() for name in re.findall(r"(\w+\.LICENSE)", NOTICE))
