"""Determine the fault behind an error of S3.

obstore gives the response of S3 only in the text of its errors.
"""

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
    """Return the fault behind an error of S3 or of the connection to S3, as obstore raises it."""
    text = str(error)
    if _NO_CONNECTION in text or _WRONG_REGION in text:
        return Fault.MACHINE
    fault = fault_of_code(_code_of(error))
    if fault is not Fault.UNKNOWN:
        return fault
    if isinstance(error, foreign.UnauthenticatedError):
        return Fault.MACHINE
    return Fault.SERVICE if isinstance(error, foreign.PermissionDeniedError | PermissionError) else Fault.UNKNOWN


def fault_of_code(code: str | None) -> Fault:
    """Return the fault behind the code of an S3 response; ``UNKNOWN`` if the code is ambiguous or None."""
    if code in _CREDENTIAL_CODES:
        return Fault.MACHINE
    return Fault.SERVICE if code in _REFUSAL_CODES or _QUOTA in (code or "").lower() else Fault.UNKNOWN
