# pip install standardwebhooks
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # webhooks.secrets of the worker's configuration


def handle(body: bytes, headers: dict) -> dict:
    """The event of a genuine webhook; raises WebhookVerificationError for any other."""
    event = Webhook(SECRET).verify(body, headers)
    # The same event can come more than once: recognize repeats by headers["webhook-id"].
    return event  # {"type": "payout_link.created", "timestamp": …, "data": {the result}}
