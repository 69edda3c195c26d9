"""Find the account of a request: the one that it names, or the default."""

import itertools

from aiohttp import web

from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.http.responses import HTTPError
from worker.config.accounts import Accounts
from worker.config.accounts_file import AccountSettings

_SCHEMES = 'Bearer realm="docv-archive", Basic realm="docv-archive", charset="UTF-8"'


def resolve_account(accounts: Accounts, name: str | None, status: int) -> AccountSettings:
    """Return the account of this name, or the default if there is no name.

    Raises:
        HTTPError: there is no such account, or no default; with this status.
    """
    found = accounts.find(name)
    if found is None:
        why = "there is no such account" if name is not None else "name an account: no account is called default"
        raise HTTPError(status, why)
    return found


class WebhookAuth:
    """Authenticates webhooks: each account accepts its own secrets only."""

    def __init__(self, accounts: Accounts) -> None:
        secrets = {each.name: each.settings.webhook_secrets for each in accounts}
        self._accounts = accounts
        self._logins = {name: CredentialCheck(some, _SCHEMES) for name, some in secrets.items()}
        self._any_account = CredentialCheck(itertools.chain.from_iterable(secrets.values()), _SCHEMES)

    def authenticate(self, request: web.Request) -> AccountSettings:
        """Return the account that the path of a request names.

        Raises:
            HTTPError: the secret is not valid. Only callers with a valid secret learn that an account does not exist.
        """
        name = request.match_info.get("account")
        found = self._accounts.find(name)
        (self._logins[found.name] if found else self._any_account).authenticate(request)
        return resolve_account(self._accounts, name, web.HTTPNotFound.status_code)
