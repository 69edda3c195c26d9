"""A scripted RiskOS that adds, replaces and deletes documents at random."""

import hashlib
import random
from dataclasses import dataclass, field
from typing import cast

from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.riskos.client import RiskOSClient
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tests.faults.retention_model import Document
from tests.zips import zip_of

_NAMES = {
    "document_front": "user_uploaded/documentfrontDoc_Front_1_blob.jpg",
    "document_back": "user_uploaded/documentbackDoc_Back_1_blob.jpg",
    "selfie": "user_uploaded/Doc_Selfie_1_blob.jpg",
    "secondary_document": "user_uploaded/secondary/bill.pdf",
    "attachment": "case_attachments/1.pdf",
    "other": "notes.bin",
}
_KINDS = {name: kind for kind, name in _NAMES.items()} | {"case_attachments/2.pdf": "attachment"}
_SHARED = [b"%PDF-1.4 terms " + bytes([number]) for number in range(4)]
"""Attachments that many evaluations have."""


@dataclass
class ScriptedRiskOS:
    """The documents of each evaluation at RiskOS.

    Attributes:
        dice: chooses them.
    """

    dice: random.Random
    _documents: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def begin(self, eval_id: str) -> None:
        """Give an evaluation its first documents."""
        names = self.dice.sample(list(_KINDS), self.dice.randint(2, len(_KINDS)))
        self._documents[eval_id] = {name: self._make_content(name) for name in names}

    def change(self, eval_id: str) -> None:
        """Add, replace, copy or delete up to two documents of an evaluation."""
        documents, dice = self._documents[eval_id], self.dice
        for _ in range(dice.randint(0, 2)):
            match dice.randrange(4):
                case 0 | 1:
                    name = dice.choice(list(_KINDS))
                    documents[name] = self._make_content(name)
                case 2 if documents:
                    documents[dice.choice(list(_KINDS))] = dice.choice(list(documents.values()))
                case _ if documents:
                    del documents[dice.choice(list(documents))]

    def sizes(self, eval_id: str) -> dict[Document, int]:
        """Return the bytes of each document of an evaluation."""
        return {
            (_KINDS[name], hashlib.sha256(data).hexdigest()): len(data)
            for name, data in self._documents[eval_id].items()
        }

    def client(self, account: Account) -> RiskOSClient:
        """Return a client that downloads the documents of an account's evaluations."""
        return cast("RiskOSClient", _Client(account, self._documents))

    def _make_content(self, name: str) -> bytes:
        if name.startswith("case_attachments/") and self.dice.random() < 0.3:
            return self.dice.choice(_SHARED)
        beginning = b"%PDF-1.4 " if name.endswith(".pdf") else b"\xff\xd8\xff\xe0"
        return beginning + self.dice.randbytes(self.dice.randint(8, 40))


@dataclass
class _Client:
    account: Account
    _documents: dict[str, dict[str, bytes]]

    async def fetch(self, evaluation: Evaluation, *_: object) -> FetchResult:
        documents = self._documents[evaluation.eval_id]
        if not documents:
            return NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
        data = zip_of(documents)
        return Bundle(None, data, hashlib.sha256(data).hexdigest(), len(data))
