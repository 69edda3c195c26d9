"""Open a session of boto3 and fetch its credentials, so that faulty credentials are reported at the start."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from worker.clients.ca_bundle import find_ca_bundle
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import SettingsError

_PROCESS = "credential_process in ~/.aws/config"
_CONFIG = "check AWS_PROFILE and ~/.aws/config"
_KEY_PAIR = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_LOGIN = "the login to AWS is missing or has ended ({said}); run `aws sso login`, or `aws login`"
_MISCONFIGURED = f"AWS credentials cannot be used: {{said}}; {_CONFIG}"
# By the name of botocore's error, with its arguments: the cause and, after a semicolon, what to do.
_SENTENCES = {
    "NoCredentialsError": f"no AWS credentials found; set {' and '.join(_KEY_PAIR)}, AWS_PROFILE or a role",
    "PartialCredentialsError": "half of the AWS key pair is missing; set {cred_var}, too",
    "ProfileNotFound": "AWS_PROFILE: there is no profile {profile}; `aws configure list-profiles` lists them",
    "ConfigParseError": "{path} is not a valid AWS configuration file; fix it, or remove it",
    "InvalidRegionError": "{region_name!r} is not a region of AWS; set AWS_DEFAULT_REGION, such as eu-central-1",
    "NoRegionError": "no region of AWS is set; set AWS_DEFAULT_REGION, such as eu-central-1",
    "InvalidConfigError": _MISCONFIGURED,
    "InfiniteLoopConfigError": _MISCONFIGURED,
    "CredentialRetrievalError": f"no AWS credentials come from {{provider}}; {_CONFIG}",
    "credential_process": "credential_process gives no credentials; run its command from ~/.aws/config by hand",
    "SSOTokenLoadError": _LOGIN,
    "UnauthorizedSSOTokenError": _LOGIN,
    "TokenRetrievalError": _LOGIN,
    "LoginRefreshRequired": _LOGIN,
    "LoginTokenLoadError": _LOGIN,
}


def open_aws_session(session: Any = None) -> Any:
    """Return a session of boto3 with credentials and with the certificate authorities for all its clients.

    Args:
        session: a session of botocore; by default a new one.

    Raises:
        SettingsError: there are no credentials, or the credentials or the authorities cannot be used.
        ServiceUnavailable: a service that provides credentials does not answer.
    """
    import boto3  # noqa: PLC0415  # takes 0.2 s, and an archive in a folder does not need it
    import botocore.session  # noqa: PLC0415
    from botocore import exceptions, utils  # noqa: PLC0415

    # botocore logs a traceback of each failure before it raises the error.
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
    session = session or botocore.session.Session()
    with _translate_errors():
        session.set_config_variable("ca_bundle", find_ca_bundle(session.get_config_variable("ca_bundle")))
        opened = boto3.Session(botocore_session=session)
        utils.validate_region_name(opened.region_name)
        credentials = opened.get_credentials()
        if credentials is None:
            raise exceptions.NoCredentialsError
        credentials.get_frozen_credentials()
    return opened


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        raise ServiceUnavailable(
            f"AWS does not answer a request for credentials ({type(error).__name__}); check the network and the proxy"
        ) from None
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "no code")
        why = f"AWS gives no credentials ({error.operation_name}: {code}); check the role and its trust policy"
        raise SettingsError((why,)) from None
    except exceptions.BotoCoreError as error:
        raise SettingsError((_explain(error),)) from None
    except OSError as error:
        why = f"AWS credentials: {error.filename}: {error.strerror}; check AWS_WEB_IDENTITY_TOKEN_FILE and {_PROCESS}"
        raise SettingsError((why,)) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # botocore does not validate the output of a credential_process or the answer of a container's endpoint.
        kind = type(error).__name__
        why = f"AWS credentials cannot be read ({kind}); check AWS_CONTAINER_CREDENTIALS_FULL_URI and {_PROCESS}"
        raise SettingsError((why,)) from None


def _explain(error: Any) -> str:
    name, facts = type(error).__name__, error.kwargs
    if name == "NoCredentialsError" and os.environ.get(_KEY_PAIR[1]):
        name, facts = "PartialCredentialsError", {"cred_var": _KEY_PAIR[0]}
    if name == "CredentialRetrievalError" and facts["provider"] == "custom-process":
        name = "credential_process"
    said = " ".join(str(error).split()).rstrip(".")
    return _SENTENCES.get(name, f"AWS credentials cannot be used ({name}); {_CONFIG}").format(said=said, **facts)
