"""Labels for people instead of codes, with a sentence and the code as a tooltip. The API and the CLI show the codes."""

from collections.abc import Mapping

from markupsafe import Markup

from scripts.serve.page.texts import show_invisible

Labels = Mapping[str, tuple[str, str]]
"""The label of each code, and a sentence about it."""

OUTCOMES: Labels = {
    "archived": ("Archived", "Documents and manifest are in the archive"),
    "unchanged": ("Unchanged", "It was in the archive already, and nothing new arrived"),
    "no_documents": ("No documents", 'RiskOS says "No Documents Found", or there was no DocV step'),
    "not_found": ("Not found", "RiskOS does not know the evaluation"),
    "rejected": ("Rejected by RiskOS", "RiskOS refused the request, and its message is recorded"),
    "withheld": (
        "Withheld",
        "The images must not be kept (military ID, minor, or due by the schedule); only this fact is recorded",
    ),
    "unreadable": ("Unreadable", "The bundle is damaged or unsafe, and is in quarantine"),
    "failed": ("Failed", "Out of attempts: a dead letter, which an operator can redrive or drop"),
    "cancelled": ("Cancelled", "An operator cancelled it before RiskOS was asked, or between two attempts"),
    "erased": ("Erased", "Erased for a privacy request; the receipt is kept"),
    "disposed": ("Disposed of", "A rule of the retention schedule disposed of all documents; the certificate is kept"),
    "missing": ("Not in the archive", "There is no readable manifest"),
}
STATES: Labels = {
    "unfed": ("Not queued yet", "In the run's list, but not in the queue yet"),
    "queued": ("Queued", "Waiting for a worker"),
    "leased": ("In flight", "A worker has taken it"),
    "in_flight": ("In flight", "A worker has taken it"),
    "parked": ("Parked", "Waiting for its next attempt"),
    "held": ("On hold", "Waiting until its account, its run or the archive is available again"),
    "on_hold": ("On hold", "Waiting until its account, its run or the archive is available again"),
    "dead": ("Dead letter", "Out of attempts: an operator can redrive or drop it"),
    "dead_letter": ("Dead letter", "Out of attempts: an operator can redrive or drop it"),
    "damaged": ("Damaged entry", "Its entry in Redis cannot be read: send the evaluation again"),
    "ended": ("Finished", "It has its outcome"),
}
HOLD_REASONS: Labels = {
    "401": ("API key refused", "RiskOS does not accept the API key"),
    "403": ("Access refused", "RiskOS answers 403 for every evaluation of the account"),
    "not_activated": ("Account not activated", "RiskOS grants the account no requests"),
    "429": ("Asked to slow down", "RiskOS answers 429"),
    "quota": ("Daily quota used up", "All requests of the day are used"),
    "outage": ("RiskOS outage", "Most requests to RiskOS fail"),
    "cannot_read": ("Archive cannot be read", "Requests to the bucket fail"),
    "cannot_write": ("Archive cannot be written", "Requests to the bucket fail"),
    "only_refusals": ("No documents so far", "RiskOS has documents for none of the first evaluations of the run"),
    "by_hand": ("Paused by an operator", "Only an operator resumes it"),
}
CAUSES: Labels = {
    "service_failed": ("RiskOS failed", "RiskOS answered with 408 or a server error"),
    "connection_failed": ("No connection to RiskOS", "No complete response arrived from RiskOS"),
    "unexpected_answer": ("Unexpected answer", "The answer came from something else, such as a proxy or a login page"),
    "store_failed": ("Archive failed", "A request to the bucket failed"),
    "spool_failed": ("Disk failed", "A write to the local disk of a worker failed"),
    "manifest_changed": ("Manifest changed", "Another worker wrote the manifest at the same time"),
    "rate_limited": ("Rate limited", "RiskOS asked to slow down"),
    "account_refused": ("API key refused", "RiskOS refuses the API key"),
    "account_held": ("Account on hold", "The account is on hold"),
    "account_busy": ("Account busy", "The account uses its share of the worker's slots"),
    "account_unknown": ("Unknown account", "No worker with this account in DOCV_ACCOUNTS took it"),
    "run_held": ("Run on hold", "The run is on hold"),
    "archive_held": ("Archive on hold", "The archive is on hold"),
    "bundle_too_large": ("Bundle too large", "The bundle is larger than DOCV_MAX_BUNDLE_BYTES"),
    "alarming_object": ("Archive differs", "The bytes in the archive do not match their key or manifest"),
    "sealing_key_missing": ("Encryption key missing", "DOCV_ENCRYPTION_KEYS lacks the key of an object"),
    "workers_lost": ("Workers lost", "Workers died so often that this evaluation may be the cause"),
    "forbidden": ("Forbidden", "The API key may not read this evaluation (403)"),
    "damaged_entry": ("Damaged entry", "Its entry in Redis cannot be read"),
    "bad_message": ("Invalid message", "A Celery message breaks the contract"),
    "bad_event": ("Invalid event", "A webhook event cannot be used"),
    "bad_eval_id": ("Invalid ID", "The text is not an evaluation ID"),
    "empty": ("Empty file", "A file of the bundle has no content"),
    **{code: OUTCOMES[code] for code in ("unreadable", "not_found", "rejected", "erased")},
}
REASONS: Labels = {
    "military": ("Military ID", "RiskOS deletes images of military IDs at once"),
    "minor": ("Minor", "RiskOS deletes images of persons under 18 at once"),
    "no_docv_step": ("No DocV step", "The evaluation had no DocV step, so nothing was captured"),
    "not_complete": ("Not complete", "The evaluation had not ended when RiskOS was asked"),
    "retention_or_unknown": ("Deleted, or never captured", "RiskOS had deleted them before, or never had any"),
}
KINDS: Labels = {
    "document_front": ("Front", "Front of the identity document"),
    "document_back": ("Back", "Back of the identity document"),
    "selfie": ("Selfie", "Photo of the person"),
    "secondary_document": ("Secondary document", "A second document, such as a proof of address"),
    "attachment": ("Attachment", "Another file of the bundle"),
    "other": ("Other", "A file of unknown kind"),
}
SOURCES: Labels = {
    "webhook": ("Webhook", "An event from RiskOS"),
    "intake": ("HTTP", "A producer sent it to POST /evaluations"),
    "message": ("Celery message", "A producer sent a Celery message"),
    "enqueue": ("Command enqueue", "docv-archive enqueue"),
    "run": ("Command run", "docv-archive run"),
    "backfill": ("Backfill", "docv-archive backfill"),
    "quarantine": ("Quarantine", "docv-archive quarantine retry"),
    "live": ("Live queue", "The Celery queue for live evaluations"),
}
MEDIA_TYPES: Labels = {
    "image/jpeg": ("JPEG", ""),
    "image/png": ("PNG", ""),
    "image/webp": ("WebP", ""),
    "image/heic": ("HEIC", ""),
    "image/tiff": ("TIFF", ""),
    "image/gif": ("GIF", ""),
    "application/pdf": ("PDF", ""),
    "application/json": ("JSON", ""),
    "text/plain": ("Text", ""),
}
_FAMILIES = {
    "outcome": OUTCOMES,
    "state": STATES,
    "hold_reason": HOLD_REASONS,
    "cause": CAUSES,
    "reason": REASONS,
    "kind": KINDS,
    "source": SOURCES,
    "media_type": MEDIA_TYPES,
}


def label(code: object, family: str) -> Markup:
    """Return the label of a code of a family, with the sentence and the code as its tooltip."""
    text, sentence = _find(str(code), family)
    shown = show_invisible(str(code))
    if not sentence:
        return Markup('<span title="{}">{}</span>').format(shown, text)
    return Markup('<span class="hint" title="{}">{}</span>').format(f"{sentence} ({shown})", text)


def label_text(code: object, family: str) -> str:
    """Return the label of a code as plain text."""
    return _find(str(code), family)[0]


def meaning(code: object, family: str) -> str:
    """Return the sentence of a code, or an empty string."""
    return _find(str(code), family)[1]


def _find(code: str, family: str) -> tuple[str, str]:
    """Return label and sentence of a code; a code of a newer release, or of another program, is its own label."""
    found = _FAMILIES[family].get(code)
    if found:
        return found
    words = str(show_invisible(code))
    return (words.replace("_", " ").capitalize() if words.replace("_", "").isalnum() else words), ""
