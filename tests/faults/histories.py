"""A RiskOS that adds, deletes and forgets documents at random, and what an archive beside it has to say."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from scripts.simulator.damage import truncated, wrong_crc
from tasks.model.outcome import SourceStatus
from tests.riskos import json, zipped
from tests.zips import zip_of

NAMES = (
    "user_uploaded/document_verification/documentfrontDoc_Front_1_blob.jpg",
    "user_uploaded/document_verification/documentbackDoc_Back_1_blob.jpg",
    "user_uploaded/vouched_id_verification/Doc_Selfie_1_blob.jpg",
    "case_attachments/identity.pdf",
    "case_attachments/letter.txt",
)
Answer = Literal["delivers", "damages_one", "damages_all", "not_found", "rejected"]
_ANSWERS: Sequence[Answer] = ("delivers", "delivers", "delivers", "damages_one", "damages_all", "not_found", "rejected")


@dataclass
class RiskOSEvaluation:
    """One evaluation at RiskOS.

    Attributes:
        dice: what happens.
        documents: what it has now, by their names.
        ever: every document that it ever had, which may come back.
        answer: how it answers now; without documents "No Documents Found" where it would deliver them.
    """

    dice: random.Random
    documents: dict[str, bytes] = field(default_factory=dict)
    ever: list[tuple[str, bytes]] = field(default_factory=list)
    answer: Answer = "delivers"

    def change(self) -> None:
        """Let something happen to the evaluation, as users, reviewers and retention do."""
        match self.dice.randrange(6):
            case 0 | 1:
                self._add(self.dice.choice(NAMES), self.dice.randbytes(self.dice.randint(8, 400)))
            case 2 if self.documents:
                del self.documents[self.dice.choice(list(self.documents))]
            case 3:
                self.documents.clear()
            case 4 if self.ever:
                # Under its old name, or under another one that makes another kind of it.
                name, content = self.dice.choice(self.ever)
                self._add(self.dice.choice([name, name, *NAMES]), content)
            case _:
                self.answer = self.dice.choice(_ANSWERS)

    def response(self) -> bytes:
        """Return what RiskOS sends now."""
        match self.answer:
            case "not_found":
                return json(404, b'{"message": "Evaluation not found"}')
            case "rejected":
                return json(400, b'{"message": "Invalid request"}')
            case _ if not self.documents:
                return json(400, b'{"message": "No Documents Found"}')
            case "damages_one":
                return zipped(wrong_crc(self.documents))
            case "damages_all":
                return zipped(truncated(self.documents))
            case _:
                return zipped(zip_of(self.documents))

    def readable(self) -> dict[str, bytes]:
        """Return what can be read of what it sends."""
        match self.answer:
            case "delivers":
                return dict(self.documents)
            case "damages_one":
                # The bundle is damaged in its first document.
                return dict(list(self.documents.items())[1:])
            case _:
                return {}

    def _add(self, name: str, content: bytes) -> None:
        if content not in self.documents.values():
            self.documents[name] = content
            self.ever.append((name, content))


@dataclass
class ExpectedArchive:
    """What the archive holds of an evaluation and knows of RiskOS, told by its history alone.

    Attributes:
        held: hash of every document that was ever delivered readably, and not erased since.
        at_source: of each, whether RiskOS had it when last asked; both are right where that is empty.
        outcome: the outcome; None if it never was in the archive.
        status: what RiskOS had.
        is_damaged: whether the last bundle that came was damaged.
    """

    held: set[str] = field(default_factory=set)
    at_source: dict[str, str] = field(default_factory=dict)
    outcome: str | None = None
    status: SourceStatus | None = None
    is_damaged: bool = False

    def record(self, riskos: RiskOSEvaluation) -> None:
        """RiskOS was asked, and the manifest was written."""
        if riskos.answer in {"not_found", "rejected"}:
            self._refused(riskos.answer, SourceStatus.UNKNOWN, "unknown")
        elif not riskos.documents:
            holds = self.held or self.is_damaged
            self._refused("no_documents", SourceStatus.GONE if holds else SourceStatus.NONE, "no")
        else:
            self._delivered(riskos)

    def erase(self) -> None:
        """Everything was erased."""
        self.__init__(outcome="erased", status=SourceStatus.UNKNOWN)  # type: ignore[misc]  # begins again

    def _refused(self, answer: str, status: SourceStatus, of_each: str) -> None:
        if not self.held and not self.is_damaged:
            self.outcome = answer
        self.status, self.at_source = status, dict.fromkeys(self.held, of_each)

    def _delivered(self, riskos: RiskOSEvaluation) -> None:
        readable = {_sha256(content) for content in riskos.readable().values()}
        self.is_damaged = riskos.answer != "delivers"
        self.outcome = "unreadable" if self.is_damaged else "archived"
        if riskos.answer == "damages_all":
            self.status = SourceStatus.UNKNOWN if self.held else SourceStatus.PRESENT
            self.at_source = dict.fromkeys(self.held, "unknown")
            return
        # A held document may be the damaged one, which nobody can tell by its content.
        others = "" if self.is_damaged else "no"
        self.held |= readable
        self.at_source = {each: "yes" if each in readable else others for each in self.held}
        self.status = None if self.is_damaged else _status_of(set(self.at_source.values()))


def _status_of(words: set[str]) -> SourceStatus:
    return SourceStatus.PARTLY_GONE if "no" in words else SourceStatus.PRESENT


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
