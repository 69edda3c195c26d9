"""Every kind of tampering is found, and undamaged objects are not reported."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.archives import ArchiveEditor, FolderEditor, eval_ids, fill
from tests.scripts.verify.conftest import Target


@dataclass
class Tamperer:
    """Change one thing at a time, each in a different evaluation.

    Attributes:
        editor: direct access to the objects.
        rng: decides what to change.
    """

    editor: ArchiveEditor
    rng: random.Random

    def __post_init__(self) -> None:
        self.keys = [key for key in self.editor.listed() if not key.startswith("runs/")]
        self.changed: set[str] = set()

    def choose(self, *parts: str, without: tuple[str, ...] = ()) -> str:
        """Return a key with these parts, of an evaluation that was not changed yet."""
        keys = [
            key
            for key in self.keys
            if all(part in key for part in parts)
            and not any(part in key for part in without)
            and self.evaluation(key) not in self.changed
        ]
        key = self.rng.choice(keys)
        self.changed.add(self.evaluation(key))
        return key

    @staticmethod
    def evaluation(key: str) -> str:
        return key.removeprefix("quarantine/").split("/")[1]

    def document(self) -> str:
        return self.choose(".jpg")

    def manifest(self) -> str:
        return self.choose("manifest.json", "sandbox/", without=self._without_documents())

    def _without_documents(self) -> tuple[str, ...]:
        """Return evaluations without documents. Their manifests cannot be altered in these ways."""
        with_documents = {self.evaluation(key) for key in self.keys if key.endswith(".jpg")}
        return tuple({self.evaluation(key) for key in self.keys} - with_documents)

    # Each of these methods changes one thing, and returns the key that must be reported.

    def flip(self, key: str) -> str:
        data = bytearray(self.editor.get(key))
        data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        self.editor.put(key, bytes(data))
        return key

    def flip_a_document(self) -> str:
        return self.flip(self.document())

    def cut_a_document(self) -> str:
        key = self.document()
        self.editor.put(key, self.editor.get(key)[: -self.rng.randrange(1, 1_000)])
        return key

    def lengthen_a_document(self) -> str:
        key = self.document()
        self.editor.put(key, self.editor.get(key) + b"\0")
        return key

    def empty_a_document(self) -> str:
        key = self.document()
        self.editor.put(key, b"")
        return key

    def delete_a_document(self) -> str:
        key = self.document()
        self.editor.delete(key)
        return key

    def swap_documents(self) -> str:
        one, other = self.document(), self.document()
        first, second = self.editor.get(one), self.editor.get(other)
        self.editor.put(one, second)
        self.editor.put(other, first)
        return one

    def add_an_object(self) -> str:
        key = self.document().rpartition("/")[0] + "/" + "0" * 64 + ".jpg"
        self.editor.put(key, b"added")
        return key

    def add_next_to_a_manifest(self) -> str:
        key = self.manifest().removesuffix("manifest.json") + "notes.txt"
        self.editor.put(key, b"added")
        return key

    def add_an_evaluation(self) -> str:
        key = f"sandbox/{eval_ids(1, self.rng.getrandbits(32))[0]}/selfie/{'0' * 64}.jpg"
        self.changed.add(self.evaluation(key))
        self.editor.put(key, b"added")
        return key

    def add_anywhere(self) -> str:
        key = f"{self.rng.choice(['sandbox', 'elsewhere', 'runs', 'quarantine'])}/added-{self.rng.getrandbits(32)}"
        self.editor.put(key, b"added")
        return key

    def delete_a_manifest(self) -> str:
        key = self.manifest()
        self.editor.delete(key)
        return key

    def cut_a_manifest(self) -> str:
        key = self.manifest()
        self.editor.put(key, self.editor.get(key)[:-40])
        return key

    def swap_manifests(self) -> str:
        one, other = self.manifest(), self.manifest()
        first, second = self.editor.get(one), self.editor.get(other)
        self.editor.put(one, second)
        self.editor.put(other, first)
        return one

    def alter(self, key: str, change: Callable[[dict], None]) -> str:  # type: ignore[type-arg]
        manifest = json.loads(self.editor.get(key))
        change(manifest)
        self.editor.put(key, json.dumps(manifest).encode())
        return key

    def make_a_manifest_newer(self) -> str:
        return self.alter(self.manifest(), lambda manifest: manifest.update(schema=2))

    def make_a_manifest_foreign(self) -> str:
        return self.alter(self.manifest(), lambda manifest: manifest.update(environment="production"))

    def forge_a_size(self) -> str:
        key = self.alter(self.manifest(), lambda manifest: manifest["documents"][0].update(size=1))
        return str(json.loads(self.editor.get(key))["documents"][0]["key"])

    def forge_a_hash(self) -> str:
        key = self.alter(self.manifest(), lambda manifest: manifest["documents"][0].update(sha256="0" * 64))
        return str(json.loads(self.editor.get(key))["documents"][0]["key"])

    def drop_a_document(self) -> str:
        key = self.manifest()
        dropped = json.loads(self.editor.get(key))["documents"][0]["key"]
        self.alter(key, lambda manifest: manifest["documents"].pop(0))
        return str(dropped)

    def forge_a_number(self) -> str:
        key = self.choose("manifest.json", without=self._with_one_revision())
        self.alter(key, lambda manifest: manifest.update(revision=1_000_000_000))
        return key.replace("manifest.json", "revisions/999999999.json")

    def _with_one_revision(self) -> tuple[str, ...]:
        several = {self.evaluation(key) for key in self.keys if "/revisions/" in key}
        return tuple({self.evaluation(key) for key in self.keys} - several)

    def name_another_key(self) -> str:
        key = self.manifest()
        other = self.choose(".jpg")
        named = self.rng.choice([other, f"/{other}", "/etc/passwd", key.replace("manifest.json", "../../x")])
        self.alter(key, lambda manifest: manifest["documents"][0].update(key=named))
        return named

    def change_a_revision(self) -> str:
        return self.alter(self.choose("/revisions/"), lambda manifest: manifest.update(account="another"))

    def delete_a_revision(self) -> str:
        key = self.choose("/revisions/")
        self.editor.delete(key)
        return key

    def flip_a_bundle(self) -> str:
        return self.flip(self.choose("quarantine/"))

    def delete_a_bundle(self) -> str:
        key = self.choose("quarantine/")
        self.editor.delete(key)
        return key

    def add_a_bundle(self) -> str:
        key = self.choose("quarantine/").rpartition("/")[0] + "/" + "0" * 64 + ".zip"
        self.editor.put(key, b"added")
        return key


CHANGES = [
    getattr(Tamperer, name)
    for name in vars(Tamperer)
    if name.split("_")[0]
    in {"flip", "cut", "lengthen", "empty", "delete", "swap", "add", "make", "forge", "drop", "name", "change"}
    and name != "flip"
]


@pytest.mark.timeout(900)
async def test_verify_finds_exactly_the_objects_that_were_tampered_with(
    target: Target, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    long = request.config.getoption("--faults") == "long"
    repetitions, evaluations = (8, 10_000 if isinstance(target.editor, FolderEditor) else 600) if long else (1, 60)
    await fill(target.bucket, eval_ids(evaluations))
    assert await target.verify() == []

    tamperer = Tamperer(target.editor, random.Random(7))  # noqa: S311  # not a secret
    changes = [(tamper.__name__, tamper(tamperer)) for tamper in CHANGES for _ in range(repetitions)]
    found = await target.verify()

    reported = {difference.key for difference in found}
    assert [(name, key) for name, key in changes if key not in reported] == []
    reported_ids = {difference.eval_id for difference in found if difference.eval_id}
    assert reported_ids <= tamperer.changed
    record_property(
        "figures", f"{len(changes)} objects tampered with in {type(target.editor).__name__}: all found, no other"
    )


async def test_verify_finds_a_tampered_run_list(target: Target) -> None:
    await fill(target.bucket, eval_ids(3))
    (piece,) = (key for key in target.editor.listed() if key.endswith(".txt.gz"))
    list_key = piece.rpartition("/")[0] + "/run.json"
    originals = {key: target.editor.get(key) for key in (piece, list_key)}
    run = json.loads(originals[list_key])
    tampered = {
        "flipped": (piece, originals[piece][:-1] + bytes([originals[piece][-1] ^ 1])),
        "no JSON": (list_key, b"{"),
        "another run": (list_key, json.dumps({**run, "run": "q4"}).encode()),
        "another list": (list_key, json.dumps({**run, "source": {**run["source"], "fingerprint": "0" * 64}}).encode()),
    }
    for name, (key, data) in tampered.items():
        target.editor.put(key, data)
        assert [(each.key, each.problem) for each in await target.verify()] == [(key, "run_damaged")], name
        target.editor.put(key, originals[key])
    target.editor.put(list_key, json.dumps({**run, "pieces": [{**run["pieces"][0], "key": "../outside"}]}).encode())
    assert {(each.key, each.problem) for each in await target.verify()} == {
        ("../outside", "key_outside"),
        (piece, "orphan"),
    }
    target.editor.delete(list_key)
    assert [(each.key, each.problem) for each in await target.verify()] == [(piece, "orphan")]
