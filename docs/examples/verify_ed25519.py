# pip install cryptography
import base64, time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PUBLIC_KEYS = ["whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]  # payout-link-worker keys public


def verify(body: bytes, headers: dict) -> None:
    """Returns for a genuine webhook; raises for any other."""
    stamp = headers["webhook-timestamp"]
    if abs(time.time() - int(stamp)) > 300:
        raise ValueError("too old, or too new")
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        version, _, signature = signature.partition(",")
        if version != "v1a":
            continue
        for key in PUBLIC_KEYS:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
            try:
                return key.verify(base64.b64decode(signature), signed)
            except Exception:
                pass
    raise ValueError("no signature verifies")
