"""Explain why S3 refuses a request, and what to do about it.

obstore has S3's answer only in the text of its errors, and boto3 only in its own error classes. The messages here
repeat the code, the region and the time of an answer, and nothing else, because its text contains keys and names.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

DENIED = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden", "Unauthorized"})
"""Error codes of S3 for credentials that lack a permission."""
_MALFORMED = "AuthorizationHeaderMalformed"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_OTHER_REGION = frozenset(
    {"301", "307", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"}
)
_TEMPORARY = frozenset(
    {"500", "502", "503", "504", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
)
_LOGIN_CALLS = frozenset(
    {"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken", "CreateOAuth2Token"}
)
_ENDED_LOGINS = frozenset(
    {"SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "LoginRefreshRequired"}
    | {"LoginTokenLoadError", "UnauthorizedException"}
)
_CREDENTIALS = re.compile(r"External AWS credential provider: (\w{1,64}): (.*?)(?:\n\nDebug source:|\Z)", re.DOTALL)
_REFUSED_ROLE = re.compile(r"\((\w{1,64})\) when calling the (\w{1,64}) operation")
_REFUSAL = re.compile(r"status code: (\d{3})[^:\n]*: (.*?)(?:\n\nDebug source:|\Z)", re.DOTALL)
_FIELDS = re.compile(r"<(Code|Region|ServerTime|Message)>([^<]{1,500})</")
_WORD = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_RIGHT = re.compile(r"not authorized to perform: ([a-z0-9-]{1,20}:[A-Za-z]{1,64})")
_PAGE = re.compile(r"<(!doctype )?html", re.IGNORECASE)

_NETWORK = "check DOCV_S3_ENDPOINT, the proxy and the network"
_AUTHORITY = "add the authority of its certificate to AWS_CA_BUNDLE or SSL_CERT_FILE; see docs/network.md"
# What to do, by the reason.
_FIXES = {
    "SSLError": _AUTHORITY,
    "its certificate is not trusted": _AUTHORITY,
    "ProxyConnectionError": "check HTTPS_PROXY and NO_PROXY; docs/network.md says which proxy is used",
}
# The reason, by a part of obstore's text (0.12), which contains the Rust errors that led to it.
_SILENCE_REASONS = {
    "dns error": "its host name is unknown",
    "ConnectionRefused": "the connection is refused",
    "InvalidCertificate": "its certificate is not trusted",
    "InvalidContentType": "the port does not speak TLS",
    "unsuccessful tunnel": "the proxy refuses the connection",
    "TimedOut": "in time",
}


@dataclass(frozen=True, slots=True)
class S3Problem:
    """Why S3 refuses a request, or does not answer.

    Attributes:
        message: what is wrong.
        fix: what to do.
        unreachable: whether S3 itself did not answer.
        is_region_missing: whether the bucket is in another region, and S3 did not say in which one.
    """

    message: str
    fix: str
    unreachable: bool = False
    is_region_missing: bool = False

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}"


@dataclass(frozen=True, slots=True)
class S3Refusal:
    """An error response of S3.

    Attributes:
        code: S3's error code; the status if the response has none.
        region: region of the bucket, if the response has it.
        server_time: time on S3's clock, if the response has it.
        right: the permission that the credentials lack, if the response has it.
        is_page: whether the body is not S3's XML, but for example a proxy's HTML page.
    """

    code: str
    region: str | None = None
    server_time: str | None = None
    right: str | None = None
    is_page: bool = False


def read_refusal(status: int, body: str) -> S3Refusal:
    """Parse an error response; the response to a HEAD request has no body."""
    return _make_refusal(str(status), dict(_FIELDS.findall(body)), is_page=bool(body) and "<Code>" not in body)


def is_page(error: Exception) -> bool:
    """Return whether an error of obstore contains an HTML page. S3 never sends one, so its status means nothing."""
    found = _REFUSAL.search(str(error))
    return bool(found and _PAGE.search(found[2]))


def is_answer(error: Exception) -> bool:
    """Return whether an error of obstore or boto3 comes from a response, and not from the lack of one."""
    return hasattr(error, "response") or bool(_REFUSAL.search(str(error)))


def explain_refusal(refusal: S3Refusal, action: str) -> S3Problem:
    """Return why S3 refuses a request.

    Args:
        refusal: its response.
        action: the permission that the request needs, such as ``s3:PutObject``.
    """
    problem = _find_problem(refusal, action)
    if refusal.code in problem.message:
        return problem
    return replace(problem, message=f"{problem.message} ({refusal.code})")


def _find_problem(refusal: S3Refusal, action: str) -> S3Problem:
    code = refusal.code
    if code in _OTHER_REGION or (code == _MALFORMED and refusal.region):
        return explain_region(refusal.region)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if refusal.is_page:
        return explain_page(code)
    if code in DENIED:
        return _explain_denial(refusal.right or action)
    return _explain_skew(refusal.server_time) if code == "RequestTimeTooSkewed" else _explain_code(code)


def explain_obstore_error(error: Exception, action: str) -> S3Problem:
    """Return why a request of obstore failed; see ``explain_refusal``."""
    text = str(error)
    if found := _CREDENTIALS.search(text):
        return _explain_renewal(found[1], found[2])
    if "redirect without LOCATION" in text:
        return explain_region(None)
    if found := _REFUSAL.search(text):
        return explain_refusal(read_refusal(int(found[1]), found[2]), action)
    if "ETag Header missing" in text:
        return explain_page("200")
    return _explain_silence(
        next((reason for part, reason in _SILENCE_REASONS.items() if part in text), type(error).__name__)
    )


def explain_boto_error(error: Exception, action: str) -> S3Problem:
    """Return why a request of boto3 failed; see ``explain_refusal``."""
    response = getattr(error, "response", None)
    name = type(error).__name__
    if response is None:
        if name in _ENDED_LOGINS or "Credential" in name:
            return _explain_renewal(name, str(error))
        # If a redirect names no region, botocore 1.44 requests the region of the bucket in an endless recursion.
        is_endless = isinstance(error, RecursionError) or "recursion" in str(error)
        return explain_page("301") if is_endless else _explain_silence(name)
    if getattr(error, "operation_name", "") in _LOGIN_CALLS:
        return _explain_renewal(name, str(error))
    facts, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    status = str(metadata.get("HTTPStatusCode", "no code"))
    return explain_refusal(_make_refusal(status, {"Region": region, **facts}, is_page=facts.get("Code") == ""), action)


def explain_region(region: str | None) -> S3Problem:
    """Return the problem of a bucket that is in a different region than the one that requests are signed for."""
    if region is None:
        return S3Problem(
            "the bucket is in another region",
            "set AWS_DEFAULT_REGION to the region of the bucket",
            is_region_missing=True,
        )
    return S3Problem(f"the bucket is in another region, {region}", f"set AWS_DEFAULT_REGION={region}")


def _make_refusal(code: str, facts: dict[str, Any], *, is_page: bool) -> S3Refusal:
    right = _RIGHT.search(facts.get("Message") or "")
    region, own_code = facts.get("Region") or "", facts.get("Code") or code
    return S3Refusal(
        code=own_code if _WORD.fullmatch(own_code) else "no code",
        region=region if _WORD.fullmatch(region) else None,
        server_time=facts.get("ServerTime"),
        right=right[1] if right else None,
        is_page=is_page,
    )


def _explain_denial(action: str) -> S3Problem:
    header = "the bucket's policy demands a header: DOCV_KMS_KEY_ID, DOCV_SSE=AES256, DOCV_TAGS"
    need = f"these credentials need {action}" + (f", or {header}" if "s3:PutObject" in action else "")
    return S3Problem("access is denied", f"{need}; docs/iam has the policies")


def _explain_skew(server_time: str | None) -> S3Problem:
    differs = "too much"
    try:
        apart = datetime.now(UTC) - datetime.fromisoformat(server_time or "")
        differs = f"by {abs(apart)}".partition(".")[0]
    except (ValueError, TypeError):
        pass  # the response has no time, or another server than Amazon's writes it in another form
    return S3Problem(f"the clock differs {differs} from S3's", "synchronize this machine's clock, preferably with NTP")


def _explain_renewal(name: str, text: str) -> S3Problem:
    """Return why expired credentials could not be renewed, from an error of botocore."""
    if name in _ENDED_LOGINS:
        return S3Problem("the login to AWS has ended", "run `aws sso login`, or `aws login`")
    if refused := _REFUSED_ROLE.search(text):
        message = f"AWS gives no credentials ({refused[2]}: {refused[1]})"
        return S3Problem(message, "check the role and its trust policy")
    return S3Problem(f"AWS credentials cannot be renewed ({name})", "check AWS_PROFILE and ~/.aws/config")


def _explain_code(code: str) -> S3Problem:
    if code.startswith("KMS."):
        return S3Problem(
            f"S3 cannot use the key of DOCV_KMS_KEY_ID ({code})",
            "check that it is enabled, in the bucket's region, and that these credentials may use it",
        )
    fix = "try again later" if code in _TEMPORARY else "check DOCV_S3_ENDPOINT and the bucket's settings"
    return S3Problem(f"S3 answers {code}", fix, unreachable=True)


def explain_page(status: str) -> S3Problem:
    """Return the problem of a proxy or another server that responds instead of S3."""
    return S3Problem(
        f"a web page came instead of S3's answer (status {status})",
        "a proxy or another server answered: check HTTPS_PROXY, NO_PROXY and DOCV_S3_ENDPOINT",
        unreachable=True,
    )


def _explain_silence(why: str) -> S3Problem:
    message = "S3 does not answer in time" if why == "in time" else f"S3 does not answer ({why})"
    return S3Problem(message, _FIXES.get(why, _NETWORK), unreachable=True)


_BY_CODE = {
    **dict.fromkeys(
        _EXPIRED,
        S3Problem(
            "the AWS credentials have expired", "get new ones, for example with `aws sso login`, and start it again"
        ),
    ),
    "407": S3Problem("the proxy requires a login", "put the user and password into HTTPS_PROXY", unreachable=True),
    "NoSuchBucket": S3Problem("there is no such bucket", "create it, or fix DOCV_ARCHIVE_URL", unreachable=True),
    _MALFORMED: S3Problem(
        "S3 cannot read the signature", "check AWS_ACCESS_KEY_ID, AWS_DEFAULT_REGION and DOCV_S3_ENDPOINT"
    ),
    "InvalidToken": S3Problem(
        "S3 does not know the session token", "check AWS_SESSION_TOKEN: it belongs to one pair of keys"
    ),
    "InvalidAccessKeyId": S3Problem(
        "S3 does not know the access key", "check AWS_ACCESS_KEY_ID, and that DOCV_S3_ENDPOINT is the S3 that issued it"
    ),
    "SignatureDoesNotMatch": S3Problem(
        "the secret key does not belong to the access key",
        "check AWS_SECRET_ACCESS_KEY, and that no proxy changes requests",
    ),
}
