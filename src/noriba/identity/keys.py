"""The server's secrets: made at first start, kept under ``keys/`` of the home with mode 0600."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from noriba.files import write_private as write_private


class Keys:
    """Secrets and what is derived from them."""

    def __init__(self, master: bytes, signing_key: ec.EllipticCurvePrivateKey) -> None:
        self._master = master
        self.signing_key = signing_key
        self._fernet = Fernet(base64.urlsafe_b64encode(self._derive("sealed-secrets")))

    @classmethod
    def load(cls, folder: Path) -> Keys:
        """Read the keys of a home, making them at first."""
        master_file, token_file = folder / "master.key", folder / "token.pem"
        if not master_file.exists():
            write_private(master_file, secrets.token_bytes(32))
        if not token_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(
                token_file,
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            )
        signing_key = serialization.load_pem_private_key(token_file.read_bytes(), password=None)
        if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{token_file} must hold an elliptic-curve key")
        return cls(master_file.read_bytes(), signing_key)

    def _derive(self, purpose: str) -> bytes:
        return hmac.new(self._master, purpose.encode(), hashlib.sha256).digest()

    def account_key(self, account: str) -> bytes:
        """The (64-byte) key of a storage account, from which its SAS are made."""
        return self._derive(f"account/{account}/1") + self._derive(f"account/{account}/2")

    def sign(self, purpose: str, content: str) -> str:
        """A signature that only this home can make, safe in URLs; ``purpose`` keeps uses apart."""
        digest = hmac.new(self._derive(f"sign/{purpose}"), content.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def seal(self, content: bytes) -> bytes:
        """Encrypt a secret for the database."""
        return self._fernet.encrypt(content)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt what ``seal`` made. Raises ValueError when it was made with other keys."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise ValueError("A stored secret was sealed with other keys than this home's") from error


def new_secret() -> str:
    """A secret that can not be guessed, safe in URLs and headers."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What the database keeps of a random secret (it has 256 bits, so no salt or stretching is needed)."""
    return hashlib.sha256(secret.encode()).hexdigest()
