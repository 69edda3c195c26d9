"""Make the TLS context for connections to RiskOS."""

import ssl

from worker.config.settings import Settings, SettingsError


def make_tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for connections to RiskOS.

    Raises:
        SettingsError: the client certificate cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.client_cert:
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError((f"DOCV_CLIENT_CERT: {settings.client_cert} cannot be used: {error}",)) from None
    return context
