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
                "Redis is full: nothing more is accepted until workers have made room; what was accepted before is "
                "safe, and the same command accepts the rest later"
            )
        case NotReplicated():
            sentence = (
                f"{error}, and DOCV_REDIS_REPLICAS wants as many: see that the replicas run and follow, and give the "
                "same command again; nothing is archived twice by that"
            )
        case KombuError():
            sentence = (
                f"what carries the messages does not do what it was asked ({type(error).__name__}); what was accepted "
                "before is safe, and comes to its queue when it does: see that Redis runs, or RabbitMQ where "
                "DOCV_BROKER_URL names one, and give the same command again"
            )
        case RedisError():
            sentence = (
                f"{explain_redis_error(error)}; then give the same command again, what was accepted before is safe"
            )
        case _:
            return None
    return sentence, UNREACHABLE
