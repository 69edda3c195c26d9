"""Layouts: the names of an evaluation's documents in its bundle."""

from scripts.simulator import pictures
from scripts.simulator.pictures import Subject
from scripts.simulator.scenarios import Scenario

_DOCUMENTS = "user_uploaded/document_verification"
_SELFIES = "user_uploaded/vouched_id_verification"
_FRONT = "documentfrontDoc_Front_{take}_blob.jpg"
_BACK = "documentbackDoc_Back_{take}_blob.jpg"
_SELFIE = "Doc_Selfie_{take}_blob.jpg"

_DOCUMENTED = {
    Subject.FRONT: f"{_DOCUMENTS}/{_FRONT}",
    Subject.BACK: f"{_DOCUMENTS}/{_BACK}",
    Subject.SELFIE: f"{_SELFIES}/{_SELFIE}",
}
_NAMES = {
    Scenario.EXTENSIONLESS: {
        Subject.FRONT: f"{_DOCUMENTS}/front",
        Subject.BACK: f"{_DOCUMENTS}/back",
        Subject.SELFIE: f"{_SELFIES}/driver's_license",
    },
    Scenario.FLAT: {Subject.FRONT: _FRONT, Subject.BACK: _BACK, Subject.SELFIE: _SELFIE},
    Scenario.OLDER_NAMES: {
        Subject.FRONT: "licenseDoc_Front_{take}_documentFront.jpg",
        Subject.BACK: "licenseDoc_Back_{take}_documentBack.jpg",
        Subject.SELFIE: "Doc_Selfie_{take}_selfPortrait.jpg",
    },
    Scenario.PASSPORT: {subject: _DOCUMENTED[subject] for subject in (Subject.FRONT, Subject.SELFIE)},
}


def documents_in(scenario: Scenario, eval_id: str, image_bytes: int, *, changed: bool) -> dict[str, bytes]:
    """Return name and content of every document of an evaluation, in the order of its bundle.

    Args:
        scenario: the scenario of the evaluation.
        eval_id: canonical UUID in lower case.
        image_bytes: approximate size of each JPEG.
        changed: whether an attachment was added since the evaluation was completed.
    """
    names = _NAMES.get(scenario, _DOCUMENTED)
    documents = _captured(names, eval_id, image_bytes, take=1)
    match scenario:
        case Scenario.SECOND_SUBMISSION:
            again = {subject: names[subject] for subject in (Subject.FRONT, Subject.BACK)}
            documents |= _captured(again, eval_id, image_bytes, take=2)
        case Scenario.ATTACHMENTS:
            documents |= _attachments(eval_id)
        case Scenario.SECONDARY_DOCUMENTS:
            documents["user_uploaded/secondary_documents/bank_statement.pdf"] = pictures.pdf(eval_id, "Bank statement")
            documents["user_uploaded/secondary_documents/utility_bill.png"] = pictures.png(eval_id, "Utility bill")
        case Scenario.UNKNOWN_NAMES:
            documents["user_uploaded/somewhere_new/capture-0001"] = pictures.png(eval_id, "Capture")
        case Scenario.SAME_BYTES_TWICE:
            documents["case_attachments/copy of front.jpg"] = documents[names[Subject.FRONT].format(take=1)]
    if changed:
        documents["case_attachments/added later.pdf"] = pictures.pdf(eval_id, "Added later")
    return documents


def _captured(names: dict[Subject, str], eval_id: str, image_bytes: int, *, take: int) -> dict[str, bytes]:
    return {
        name.format(take=take): pictures.jpeg(eval_id, subject, image_bytes, take=take)
        for subject, name in names.items()
    }


def _attachments(eval_id: str) -> dict[str, bytes]:
    """Return attachments of reviewers: several types and names, one without an extension, one of an unknown kind."""
    return {
        "case_attachments/identity.pdf": pictures.pdf(eval_id, "Identity"),
        "case_attachments/proof of address.png": pictures.png(eval_id, "Proof of address"),
        "case_attachments/Gehaltsnachweis März.tiff": pictures.tiff(eval_id, "Gehaltsnachweis"),
        "case_attachments/notes.txt": f"Reviewed: {eval_id}\n".encode(),
        "case_attachments/statement": pictures.pdf(eval_id, "Statement"),
        "case_attachments/recording.bin": bytes(range(256)),
    }
