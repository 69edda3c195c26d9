"""Models of RiskOS, which adds, deletes and forgets documents at random, and of the resulting archive."""

import hashlib
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from scripts.simulator.damage import truncated, wrong_crc
from tasks.model.outcome import SourceStatus
from tests.riskos import bundle_reply, json_reply
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
        dice: decides what happens.
        documents: the current documents by name.
        ever: every document that it ever had; deleted ones may come back.
        answer: its kind of answer; without documents it answers "No Documents Found" instead of delivering a bundle.
        answered: its state at each answer since the last attempt.
    """

    dice: random.Random
    documents: dict[str, bytes] = field(default_factory=dict)
    ever: list[tuple[str, bytes]] = field(default_factory=list)
    answer: Answer = "delivers"
    answered: "list[RiskOSEvaluation]" = field(default_factory=list)

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
                # Keep its name, or change it so that the document gets another kind.
                name, content = self.dice.choice(self.ever)
                self._add(self.dice.choice([name, name, *NAMES]), content)
            case _:
                self.answer = self.dice.choice(_ANSWERS)

    def respond(self) -> bytes:
        """Return the response of RiskOS; a second request after a damaged bundle may get another one."""
        self.answered.append(replace(self, documents=dict(self.documents)))
        response = self._response()
        if self.answer.startswith("damages"):
            for _ in range(self.dice.randrange(3)):
                self.change()
        return response

    def _response(self) -> bytes:
        match self.answer:
            case "not_found":
                return json_reply(404, b'{"message": "Evaluation not found"}')
            case "rejected":
                return json_reply(400, b'{"message": "Invalid request"}')
            case _ if not self.documents:
                return json_reply(400, b'{"message": "No Documents Found"}')
            case "damages_one":
                return bundle_reply(wrong_crc(self.documents))
            case "damages_all":
                return bundle_reply(truncated(self.documents))
            case _:
                return bundle_reply(zip_of(self.documents))

    def readable(self) -> dict[str, bytes]:
        """Return the documents that can be read from the response."""
        match self.answer:
            case "delivers":
                return dict(self.documents)
            case "damages_one":
                # The first document of the bundle is damaged.
                return dict(list(self.documents.items())[1:])
            case _:
                return {}

    def _add(self, name: str, content: bytes) -> None:
        if content not in self.documents.values():
            self.documents[name] = content
            self.ever.append((name, content))


@dataclass
class ExpectedArchive:
    """The expected contents of the archive for one evaluation, computed from its history alone.

    Attributes:
        held: hash of every document that was ever delivered readably, and neither erased nor disposed of since.
        disposed: hash of every document that was disposed of.
        at_source: whether RiskOS had each of them at the last request; None allows both.
        outcome: the outcome; None if the archive has never had it.
        status: the state of the evaluation at RiskOS.
        is_damaged: whether the last bundle was damaged.
        is_unconfirmed: whether the attempt ended before a damaged bundle was requested again.
    """

    held: set[str] = field(default_factory=set)
    disposed: set[str] = field(default_factory=set)
    at_source: dict[str, str] = field(default_factory=dict)
    outcome: str | None = None
    status: SourceStatus | None = None
    is_damaged: bool = False
    is_unconfirmed: bool = False

    def record(self, riskos: RiskOSEvaluation) -> None:
        """Record that RiskOS answered and the manifest was written; after an erasure, the archive holds nothing."""
        if self.outcome == "erased":
            self.__init__(disposed=self.disposed)  # type: ignore[misc]
        self.is_unconfirmed = False
        if riskos.answer in {"not_found", "rejected"}:
            self._refused(riskos.answer, SourceStatus.UNKNOWN, "unknown")
        elif not riskos.documents:
            holds = self.held or self.disposed or self.is_damaged
            self._refused("no_documents", SourceStatus.GONE if holds else SourceStatus.NONE, "no")
        else:
            self._delivered(riskos)

    def erase(self) -> None:
        """Record an erasure of everything but the list of disposals."""
        gone = self.disposed
        self.__init__(disposed=gone, outcome="erased", status=SourceStatus.UNKNOWN)  # type: ignore[misc]  # begins again

    def dispose(self, gone: Collection[str]) -> None:
        """Record that documents were disposed of; they never come back, not even after an erasure."""
        self.held -= set(gone)
        self.disposed |= set(gone)
        self.at_source = {each: self.at_source[each] for each in self.held}
        words = set(self.at_source.values())
        if self.status in {SourceStatus.PRESENT, SourceStatus.PARTLY_GONE}:
            self.status = None if "" in words else _status_of(words)
        if not self.held and not self.is_damaged:
            self.outcome = "disposed"

    def _refused(self, answer: str, status: SourceStatus, of_each: str) -> None:
        if not self.held and not self.is_damaged:
            self.outcome = "disposed" if self.disposed else answer
        self.status, self.at_source = status, dict.fromkeys(self.held, of_each)

    def _delivered(self, riskos: RiskOSEvaluation) -> None:
        readable = {_sha256(content) for content in riskos.readable().values()} - self.disposed
        self.is_damaged = riskos.answer != "delivers"
        self.outcome = "unreadable" if self.is_damaged else "archived" if self.held | readable else "disposed"
        if riskos.answer == "damages_all":
            self.status = SourceStatus.UNKNOWN if self.held else SourceStatus.PRESENT
            self.at_source = dict.fromkeys(self.held, "unknown")
            return
        # A held document may be the damaged one; the bundle does not show which.
        others = "" if self.is_damaged else "no"
        self.held |= readable
        self.at_source = {each: "yes" if each in readable else others for each in self.held}
        self.status = None if self.is_damaged else _status_of(set(self.at_source.values()))


def _status_of(words: set[str]) -> SourceStatus:
    if "no" not in words:
        return SourceStatus.PRESENT
    return SourceStatus.PARTLY_GONE if "yes" in words else SourceStatus.GONE


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
