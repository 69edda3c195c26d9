"""Every kind of tampering is found, and undamaged objects are not reported."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.archives import FolderHand, Hand, eval_ids, fill
from tests.scripts.verify.conftest import Place


@dataclass
class Tamperer:
    """Changes one thing at a time, each in another evaluation.

    Attributes:
        hand: direct access to the objects.
        dice: decides what to change.
    """

    hand: Hand
    dice: random.Random

    def __post_init__(self) -> None:
        self.keys = [key for key in self.hand.listed() if not key.startswith("runs/")]
        self.touched: set[str] = set()

    def choose(self, *parts: str, but: tuple[str, ...] = ()) -> str:
        """Return a key with these parts, of an evaluation that was not touched yet."""
        keys = [
            key
            for key in self.keys
            if all(part in key for part in parts)
            and not any(part in key for part in but)
            and self.evaluation(key) not in self.touched
        ]
        key = self.dice.choice(keys)
        self.touched.add(self.evaluation(key))
        return key

    @staticmethod
    def evaluation(key: str) -> str:
        return key.removeprefix("quarantine/").split("/")[1]

    def document(self) -> str:
        return self.choose(".jpg")

    def manifest(self) -> str:
        return self.choose("manifest.json", "sandbox/", but=self._poor())

    def _poor(self) -> tuple[str, ...]:
        """Return evaluations without documents: their manifests cannot be altered in these ways."""
        rich = {self.evaluation(key) for key in self.keys if key.endswith(".jpg")}
        return tuple({self.evaluation(key) for key in self.keys} - rich)

    # Each of these changes one thing, and returns the key that must be reported.

    def flip(self, key: str) -> str:
        data = bytearray(self.hand.get(key))
        data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
        self.hand.put(key, bytes(data))
        return key

    def flip_a_document(self) -> str:
        return self.flip(self.document())

    def cut_a_document(self) -> str:
        key = self.document()
        self.hand.put(key, self.hand.get(key)[: -self.dice.randrange(1, 1_000)])
        return key

    def lengthen_a_document(self) -> str:
        key = self.document()
        self.hand.put(key, self.hand.get(key) + b"\0")
        return key

    def empty_a_document(self) -> str:
        key = self.document()
        self.hand.put(key, b"")
        return key

    def delete_a_document(self) -> str:
        key = self.document()
        self.hand.delete(key)
        return key

    def swap_documents(self) -> str:
        one, other = self.document(), self.document()
        first, second = self.hand.get(one), self.hand.get(other)
        self.hand.put(one, second)
        self.hand.put(other, first)
        return one

    def add_an_object(self) -> str:
        key = self.document().rpartition("/")[0] + "/" + "0" * 64 + ".jpg"
        self.hand.put(key, b"added")
        return key

    def add_beside_a_manifest(self) -> str:
        key = self.manifest().removesuffix("manifest.json") + "notes.txt"
        self.hand.put(key, b"added")
        return key

    def add_an_evaluation(self) -> str:
        key = f"sandbox/{eval_ids(1, self.dice.getrandbits(32))[0]}/selfie/{'0' * 64}.jpg"
        self.touched.add(self.evaluation(key))
        self.hand.put(key, b"added")
        return key

    def add_anywhere(self) -> str:
        key = f"{self.dice.choice(['sandbox', 'elsewhere', 'runs', 'quarantine'])}/added-{self.dice.getrandbits(32)}"
        self.hand.put(key, b"added")
        return key

    def delete_a_manifest(self) -> str:
        key = self.manifest()
        self.hand.delete(key)
        return key

    def cut_a_manifest(self) -> str:
        key = self.manifest()
        self.hand.put(key, self.hand.get(key)[:-40])
        return key

    def swap_manifests(self) -> str:
        one, other = self.manifest(), self.manifest()
        first, second = self.hand.get(one), self.hand.get(other)
        self.hand.put(one, second)
        self.hand.put(other, first)
        return one

    def alter(self, key: str, change: Callable[[dict], None]) -> str:  # type: ignore[type-arg]
        manifest = json.loads(self.hand.get(key))
        change(manifest)
        self.hand.put(key, json.dumps(manifest).encode())
        return key

    def make_a_manifest_newer(self) -> str:
        return self.alter(self.manifest(), lambda manifest: manifest.update(schema=2))

    def make_a_manifest_foreign(self) -> str:
        return self.alter(self.manifest(), lambda manifest: manifest.update(environment="production"))

    def forge_a_size(self) -> str:
        key = self.alter(self.manifest(), lambda manifest: manifest["documents"][0].update(size=1))
        return str(json.loads(self.hand.get(key))["documents"][0]["key"])

    def forge_a_hash(self) -> str:
        key = self.alter(self.manifest(), lambda manifest: manifest["documents"][0].update(sha256="0" * 64))
        return str(json.loads(self.hand.get(key))["documents"][0]["key"])

    def drop_a_document(self) -> str:
        key = self.manifest()
        dropped = json.loads(self.hand.get(key))["documents"][0]["key"]
        self.alter(key, lambda manifest: manifest["documents"].pop(0))
        return str(dropped)

    def forge_a_number(self) -> str:
        key = self.choose("manifest.json", but=self._with_one_revision())
        self.alter(key, lambda manifest: manifest.update(revision=1_000_000_000))
        return key.replace("manifest.json", "revisions/999999999.json")

    def _with_one_revision(self) -> tuple[str, ...]:
        several = {self.evaluation(key) for key in self.keys if "/revisions/" in key}
        return tuple({self.evaluation(key) for key in self.keys} - several)

    def name_another_key(self) -> str:
        key = self.manifest()
        other = self.choose(".jpg")
        named = self.dice.choice([other, f"/{other}", "/etc/passwd", key.replace("manifest.json", "../../x")])
        self.alter(key, lambda manifest: manifest["documents"][0].update(key=named))
        return named

    def change_a_revision(self) -> str:
        return self.alter(self.choose("/revisions/"), lambda manifest: manifest.update(account="another"))

    def delete_a_revision(self) -> str:
        key = self.choose("/revisions/")
        self.hand.delete(key)
        return key

    def flip_a_bundle(self) -> str:
        return self.flip(self.choose("quarantine/"))

    def delete_a_bundle(self) -> str:
        key = self.choose("quarantine/")
        self.hand.delete(key)
        return key

    def add_a_bundle(self) -> str:
        key = self.choose("quarantine/").rpartition("/")[0] + "/" + "0" * 64 + ".zip"
        self.hand.put(key, b"added")
        return key


SORTS = [
    getattr(Tamperer, name)
    for name in vars(Tamperer)
    if name.split("_")[0]
    in {"flip", "cut", "lengthen", "empty", "delete", "swap", "add", "make", "forge", "drop", "name", "change"}
    and name != "flip"
]


@pytest.mark.timeout(900)
async def test_verify_finds_exactly_the_objects_that_were_tampered_with(
    place: Place, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    long = request.config.getoption("--faults") == "long"
    times, evaluations = (8, 10_000 if isinstance(place.hand, FolderHand) else 600) if long else (1, 60)
    await fill(place.bucket, eval_ids(evaluations))
    assert await place.verified() == []

    tamperer = Tamperer(place.hand, random.Random(7))  # noqa: S311  # no secret
    done = [(sort.__name__, sort(tamperer)) for sort in SORTS for _ in range(times)]
    found = await place.verified()

    named = {difference.key for difference in found}
    assert [(sort, key) for sort, key in done if key not in named] == []
    accused = {difference.eval_id for difference in found if difference.eval_id}
    assert accused <= tamperer.touched
    record_property("figures", f"{len(done)} objects tampered with in {type(place.hand).__name__}: all found, no other")


async def test_verify_finds_a_tampered_run_list(place: Place) -> None:
    await fill(place.bucket, eval_ids(3))
    (piece,) = (key for key in place.hand.listed() if key.endswith(".txt.gz"))
    listed = piece.rpartition("/")[0] + "/run.json"
    was = {key: place.hand.get(key) for key in (piece, listed)}
    run = json.loads(was[listed])
    tampered = {
        "flipped": (piece, was[piece][:-1] + bytes([was[piece][-1] ^ 1])),
        "no JSON": (listed, b"{"),
        "another run": (listed, json.dumps({**run, "run": "q4"}).encode()),
        "another list": (listed, json.dumps({**run, "source": {**run["source"], "fingerprint": "0" * 64}}).encode()),
    }
    for what, (key, data) in tampered.items():
        place.hand.put(key, data)
        assert [(each.key, each.problem) for each in await place.verified()] == [(key, "run_damaged")], what
        place.hand.put(key, was[key])
    place.hand.put(listed, json.dumps({**run, "pieces": [{**run["pieces"][0], "key": "../outside"}]}).encode())
    assert {(each.key, each.problem) for each in await place.verified()} == {
        ("../outside", "key_outside"),
        (piece, "orphan"),
    }
    place.hand.delete(listed)
    assert [(each.key, each.problem) for each in await place.verified()] == [(piece, "orphan")]
