"""Explain errors in one sentence with an exit code; imported only after an error, since it imports every library."""

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from scripts.console.exit_codes import UNREACHABLE, USAGE
from tasks.errors import InvalidInput
from tasks.ledger.script import NotReplicated
from worker.clients.embedded_redis import EmbeddedError
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import is_full
from worker.clients.redis_errors import explain_redis_error
from worker.config.settings import SettingsError


def explain(error: Exception) -> tuple[str, int] | None:
    """Return the sentence and the exit code for an error, or None for an unexpected one."""
    match error:
        case SettingsError() | InvalidInput():
            return str(error), USAGE
        case ServiceUnavailable() | EmbeddedError():
            sentence = str(error)
        case RedisError() | KombuError() if is_full(error):
            sentence = (
                "Redis is full: nothing more is accepted until workers have freed memory; accepted evaluations are "
                "safe, and the same command submits the rest later"
            )
        case NotReplicated():
            sentence = (
                f"{error}, but DOCV_REDIS_REPLICAS requires more: check that the replicas run and are connected, and "
                "run the same command again; nothing is archived twice"
            )
        case KombuError():
            sentence = (
                f"the broker of the messages failed ({type(error).__name__}): check that Redis runs, or RabbitMQ if "
                "DOCV_BROKER_URL names one, and run the same command again; accepted evaluations are safe"
            )
        case RedisError():
            sentence = f"{explain_redis_error(error)}; then run the same command again, accepted evaluations are safe"
        case _:
            return None
    return sentence, UNREACHABLE
