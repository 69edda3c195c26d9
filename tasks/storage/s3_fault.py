"""Determine the fault behind an error of S3, from its text because obstore gives S3's answer only there."""

import re

from obstore import exceptions as foreign

from tasks.errors import Fault

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_NO_CONNECTION = "kind: Connect,"
_WRONG_REGION = "redirect without LOCATION"
# Amazon S3 API reference, "Error responses". A wrong region is a setting of this machine, too.
_CREDENTIAL_CODES = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "RequestExpired"),
        *("RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException"),
        *("AuthorizationHeaderMalformed", "PermanentRedirect"),
    }
)
_REFUSAL_CODES = frozenset(
    {
        *("AccessDenied", "AccountProblem", "AllAccessDisabled", "InvalidBucketState", "NoSuchBucket"),
        *("NotImplemented", "InsufficientStorage", "XMinioStorageFull", "KMS.DisabledException"),
        *("KMS.KMSInvalidStateException", "KMS.NotFoundException"),
    }
)
_QUOTA = "quota"  # MinIO and Ceph have different codes for a full quota


def _code_of(error: Exception) -> str | None:
    """Return the code of S3's response; None if there was no response, or it has no code."""
    found = _CODE.search(str(error))
    return found[1] if found else None


def fault_of(error: Exception) -> Fault:
    """Return the fault behind an error of S3 or of the connection to S3."""
    text, code = str(error), _code_of(error)
    if code in _CREDENTIAL_CODES or _NO_CONNECTION in text or _WRONG_REGION in text:
        return Fault.MACHINE
    if code in _REFUSAL_CODES or _QUOTA in (code or "").lower():
        return Fault.SERVICE
    if isinstance(error, foreign.UnauthenticatedError):
        return Fault.MACHINE
    return Fault.SERVICE if isinstance(error, foreign.PermissionDeniedError | PermissionError) else Fault.UNKNOWN
