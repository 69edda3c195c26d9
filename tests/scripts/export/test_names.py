"""Whatever the name of a document, its file has a name that is safe on any disk."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scripts.export.names import UniqueNames

JPEG = ("image/jpeg", "jpg")
INERT = ("jp2", "JXL", "mkv", "csv", "heic", "tif", "cr3", "txt", "json", "webm", "dcm")
ACTIVE = ("exe", "html", "svg", "js", "lnk", "docm", "xls", "msi", "bat", "xml", "pdf", "jpg", "zip")
OLE_TYPES = ("doc", "xls", "ppt", "docx", "xlsx", "PPTX", "msg", "pub", "vsd")
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}


def make_unique(*names: str, content: tuple[str, str] = JPEG) -> list[str]:
    unique_names = UniqueNames(("manifest.json", "names.csv"))
    return [unique_names.allocate(name, *content) for name in names]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("user_uploaded/1/documentfrontDoc_Front_1_blob.jpg", "user_uploaded/1/documentfrontDoc_Front_1_blob.jpg"),
        ("Führerschein Vorderseite 日本.JPEG", "Führerschein Vorderseite 日本.JPEG"),
        ("driver's_license", "driver's_license.jpg"),
        ("front.png", "front.png.jpg"),
        ("front.exe", "front.exe.jpg"),
        ("../../etc/passwd", "etc/passwd.jpg"),
        ("/etc/passwd", "etc/passwd.jpg"),
        ("C:\\Windows\\a.jpg", "C_/Windows/a.jpg"),
        ("a/./../b.jpg", "a/b.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("aux/lpt1 .x/nul.tar.jpg", "_aux/_lpt1 .x/_nul.tar.jpg"),
        ("com¹.jpg", "_com¹.jpg"),
        ("console.jpg", "console.jpg"),
        ("a\0b\nc\x7f.jpg", "a_b_c_.jpg"),
        ("\u202egpj.exe", "_gpj.exe.jpg"),
        ("100%.jpg", "100_.jpg"),
        ("-rf.jpg", "_-rf.jpg"),
        ("=1+1.jpg", "_=1+1.jpg"),
        ("\uff1d1+1.jpg", "_\uff1d1+1.jpg"),
        ("a;=1+1.jpg", "a_=1+1.jpg"),
        (".htaccess", "_.htaccess.jpg"),
        (".jpg", "_.jpg.jpg"),
        ("trailing. . .jpg", "trailing.jpg"),
        ("folder. /a.jpg", "folder/a.jpg"),
        ("\uef80.jpg", "_.jpg"),
        ("", "document.jpg"),
        ("...", "document.jpg"),
        ("e\u0301.jpg", "\u00e9.jpg"),
        ("x" * 300 + ".jpg", "x" * 56 + ".jpg"),
        ("1/2/3/4/5/6.jpg", "2/3/4/5/6.jpg"),
        ("manifest.json", "manifest.json.jpg"),
    ],
)
def test_the_safe_part_of_a_name_is_kept(name: str, safe: str) -> None:
    assert make_unique(name) == [safe]


@pytest.mark.parametrize(
    ("name", "content", "safe"),
    [
        ("list.csv", ("text/plain", "txt"), "list.csv"),
        ("page.html", ("text/plain", "txt"), "page.html.txt"),
        ("tool.exe", ("application/octet-stream", "bin"), "tool.exe.bin"),
        ("raw.bin", ("application/octet-stream", "bin"), "raw.bin"),
        *((f"a.{each}", ("application/octet-stream", "bin"), f"a.{each}") for each in INERT),
        *((f"a.{each}", ("application/octet-stream", "bin"), f"a.{each}.bin") for each in ACTIVE),
        *((f"a.{each}", ("image/of-the-future", "bin"), f"a.{each}.bin") for each in ACTIVE),
        *((f"a.{each}", ("application/x-ole-storage", "bin"), f"a.{each}") for each in OLE_TYPES),
        *((f"a.{each}", ("application/x-ole-storage", "bin"), f"a.{each}.bin") for each in ("msi", "docm", "exe")),
        ("setup.msi", ("application/x-msi", "bin"), "setup.msi.bin"),
        ("\u212aey.m\u212av", ("application/octet-stream", "bin"), "Key.mKv.bin"),
        ("a.heif", ("image/heic", "heic"), "a.heif"),
        ("a.m4a", ("video/mp4", "mp4"), "a.m4a"),
        ("a.jp2", ("image/jpeg", "jpg"), "a.jp2.jpg"),
        ("scan.tiff", ("image/tiff", "tif"), "scan.tiff"),
        ("manifest.json", ("text/plain", "txt"), "manifest (2).json"),
        ("NAMES.CSV", ("text/plain", "txt"), "NAMES (2).CSV"),
        ("of.the.future", ("image/of-the-future", "jxl"), "of.the.future.jxl"),
    ],
)
def test_a_file_has_the_extension_of_its_content(name: str, content: tuple[str, str], safe: str) -> None:
    assert make_unique(name, content=content) == [safe]


@pytest.mark.parametrize(
    ("names", "safe"),
    [
        (("a.jpg", "a.jpg", "a.jpg"), ["a.jpg", "a (2).jpg", "a (3).jpg"]),
        (("a.jpg", "A.JPG"), ["a.jpg", "A (2).JPG"]),
        (("\u00e9.jpg", "e\u0301.jpg"), ["\u00e9.jpg", "\u00e9 (2).jpg"]),
        (("straße.jpg", "STRASSE.jpg"), ["straße.jpg", "STRASSE (2).jpg"]),
        (("a?.jpg", "a*.jpg"), ["a_.jpg", "a_ (2).jpg"]),
        (("a (2).jpg", "a.jpg", "a.jpg"), ["a (2).jpg", "a.jpg", "a (3).jpg"]),
        (("a.jpg", "a.jpg/b.jpg"), ["a.jpg", "a.jpg (2)/b.jpg"]),
        (("a.jpg/b.jpg", "A.jpg"), ["a.jpg/b.jpg", "A (2).jpg"]),
        (("x/a.jpg", "X/A.jpg"), ["x/a.jpg", "X/A (2).jpg"]),
    ],
)
def test_file_names_are_distinct_on_any_file_system(names: tuple[str, ...], safe: list[str]) -> None:
    assert make_unique(*names) == safe


ODD = st.text(st.sampled_from('./\\ :%ACONconaé\u0301ßI\u0130\u202e\0\n-=~*"()2jpg\uef80\U0001f600'), max_size=20)


@given(st.lists(ODD | st.text(max_size=80), max_size=12))
@example(["Å", "A\u030a", "\u212b"])
def test_files_are_distinct_and_safe_for_any_names(names: list[str]) -> None:
    found = make_unique(*names)
    folded = [unicodedata.normalize("NFKD", path).casefold() for path in found]
    assert len(set(folded)) == len(found)
    folders = {path.rpartition("/")[0] for path in folded}
    assert not folders & set(folded)
    for path in found:
        parts = path.split("/")
        assert len(parts) <= 5
        assert path.endswith((".jpg", ".jpeg", ".JPG")) or path.lower().endswith((".jpg", ".jpe", ".jfif"))
        for part in parts:
            assert part.isprintable()
            assert part not in {"", ".", ".."}
            assert not set(part) & set('<>:"|?*\\%')
            assert part[0] not in ".- "
            assert part[-1] not in ". "
            assert len(part.encode()) <= 255
            assert len(unicodedata.normalize("NFD", part).encode("utf-16-le")) // 2 <= 255
            assert part.partition(".")[0].strip().lower() not in DEVICES
