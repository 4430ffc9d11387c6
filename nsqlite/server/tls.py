"""TLS as nsqd's options ask for it, and what stats tell of a connection that has it.

The rule: what is asked for is done or refused at the start; no client is let in that an option was
to keep out.  So three things differ from nsqd:

- The policy `require` takes any certificate of a client in nsqd, also one that nobody has signed.
  Python's `ssl` verifies each certificate that it asks for, so here `require` needs a
  `tls-root-ca-file`, against which it verifies, as `require-verify` does.
- A policy that nobody knows is refused; in nsqd it lets all clients in.
- The least version is TLS 1.2 unless told otherwise.  Older ones can be named, and are then spoken
  as far as the system's OpenSSL and its settings allow.

Next: server/auth.py
"""

import re
import ssl
import warnings
from typing import Any, Final, NamedTuple, TypeAlias

from nsqlite.errors import InvalidOption

Secured: TypeAlias = ssl.SSLObject | ssl.SSLSocket
"""The end of a connection that has TLS."""

VERSIONS: Final = {
    "ssl3.0": ssl.TLSVersion.SSLv3,
    "tls1.0": ssl.TLSVersion.TLSv1,
    "tls1.1": ssl.TLSVersion.TLSv1_1,
    "tls1.2": ssl.TLSVersion.TLSv1_2,
    "tls1.3": ssl.TLSVersion.TLSv1_3,
}
"""The least versions, by the names that nsqd has for them."""

MIN_VERSION: Final = "tls1.2"

POLICIES: Final = ("", "require", "require-verify")
"""What can be asked of clients: no certificate, or one that is verified."""

_TOLD: Final = {
    "SSLv3": "SSL30",
    "TLSv1": "TLS1.0",
    "TLSv1.1": "TLS1.1",
    "TLSv1.2": "TLS1.2",
    "TLSv1.3": "TLS1.3",
}

_SUITE: Final = re.compile(
    r"(?:(ECDHE|DHE)-)?(?:(RSA|ECDSA)-)?"
    r"(AES128|AES256|CHACHA20|DES-CBC3|RC4)-(?:(GCM|POLY1305)-?)?(SHA(?:256|384)?)?"
)
_CIPHERS: Final = {
    "AES128": "AES_128",
    "AES256": "AES_256",
    "CHACHA20": "CHACHA20",
    "DES-CBC3": "3DES_EDE_CBC",
    "RC4": "RC4_128",
}


class BadTLS(InvalidOption):
    """An option of TLS cannot be met.

    Attributes:
        option: its name.
        value: what was given.
        expected: what is wrong, in words.
    """

    def __str__(self) -> str:
        return f"failed to build TLS config - {self.expected}"


class TLSInfo(NamedTuple):
    """What stats tell of a connection with TLS, in Go's words.

    Attributes:
        version: as "TLS1.3".
        cipher_suite: as "TLS_AES_128_GCM_SHA256"; in OpenSSL's words if Go has none.
        negotiated_protocol: that of the application, "" as nobody asks for one.
        negotiated_protocol_is_mutual: True, as in Go.
    """

    version: str
    cipher_suite: str
    negotiated_protocol: str
    negotiated_protocol_is_mutual: bool


def server_context(
    *,
    cert: str = "",
    key: str = "",
    root_ca_file: str = "",
    client_auth_policy: str = "",
    min_version: str = MIN_VERSION,
) -> ssl.SSLContext | None:
    """Return what a node makes TLS connections with; None if it has no certificate.

    Args:
        cert: the file of its certificate; with those of who signed it, if clients need them.
        key: the file of its private key, not encrypted.
        root_ca_file: the file of the certificates against which clients are verified.
        client_auth_policy: what is asked of clients; one of `POLICIES`.
        min_version: the least version; one of `VERSIONS`.

    Raises:
        BadTLS: a file cannot be used, or the options do not fit together.
    """
    if client_auth_policy not in POLICIES:
        problem = (
            'tls-client-auth-policy must be "require" or "require-verify",'
            f' not "{client_auth_policy}"'
        )
        raise BadTLS("tls_client_auth_policy", client_auth_policy, problem)
    if not cert and not key:
        return None
    if not cert or not key:
        given, missing = ("tls_cert", "tls_key") if cert else ("tls_key", "tls_cert")
        problem = f"{given.replace('_', '-')} needs {missing.replace('_', '-')}"
        raise BadTLS(given, cert or key, problem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    _set_version(context, min_version)
    _load_certificate(context, cert, key)
    if root_ca_file:
        _load_roots(context, root_ca_file)
    elif client_auth_policy == "require":
        problem = (
            "tls-client-auth-policy=require needs tls-root-ca-file:"
            " a certificate that is asked for is verified here"
        )
        raise BadTLS("tls_client_auth_policy", client_auth_policy, problem)
    elif client_auth_policy:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    if client_auth_policy:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(*, root_ca_file: str = "", min_version: str = MIN_VERSION) -> ssl.SSLContext:
    """Return what a node asks other servers with over HTTPS, as those for AUTH.

    Args:
        root_ca_file: the file of the certificates against which they are verified; without one
            those of the system.
        min_version: the least version; one of `VERSIONS`.

    Raises:
        BadTLS: the file cannot be used, or the version not be had.
    """
    context = (
        ssl.create_default_context()
        if not root_ca_file
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    _set_version(context, min_version)
    if root_ca_file:
        _load_roots(context, root_ca_file)
    return context


def tls_info(secured: Secured) -> TLSInfo:
    """Return what stats tell of a connection; its handshake is over."""
    version = secured.version() or ""
    suite = secured.cipher()
    return TLSInfo(
        _TOLD.get(version, version),
        _suite(suite[0]) if suite else "",
        secured.selected_alpn_protocol() or "",
        True,
    )


def common_name(secured: Secured) -> str:
    """Return the common name in the certificate of a client; "" if it showed none."""
    shown: Any = secured.getpeercert() or {}
    names = [
        value for part in shown.get("subject", ()) for kind, value in part if kind == "commonName"
    ]
    return names[-1] if names else ""


def _suite(name: str) -> str:
    """Return Go's name of a cipher suite for OpenSSL's."""
    found = _SUITE.fullmatch(name)
    if not found:
        return name
    exchange, signature, cipher, mode, digest = found.groups()
    start = "_".join(part for part in (exchange, signature) if part) or "RSA"
    made_up = f"_{mode}" if mode else "_CBC" if cipher.startswith("AES") else ""
    return f"TLS_{start}_WITH_{_CIPHERS[cipher]}{made_up}_{digest or 'SHA256'}"


def _set_version(context: ssl.SSLContext, name: str) -> None:
    """Set the least version that is spoken."""
    if name not in VERSIONS:
        problem = f"unknown tls-min-version {name!r}: one of {', '.join(VERSIONS)}"
        raise BadTLS("tls_min_version", name, problem)
    try:
        with warnings.catch_warnings():  # that older versions are not safe; it was asked for
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = VERSIONS[name]
    except ValueError:
        problem = f"tls-min-version {name} is not to be had with {ssl.OPENSSL_VERSION}"
        raise BadTLS("tls_min_version", name, problem) from None


def _load_certificate(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Load the certificate of a node, and its key."""
    for option, path in (("tls_cert", cert), ("tls_key", key)):
        _check_readable(option, path)

    def ask_for_password() -> str:  # in place of OpenSSL, which would ask on the terminal
        raise BadTLS("tls_key", key, f"{key}: the key is encrypted")

    try:
        context.load_cert_chain(cert, key, ask_for_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = "private key does not match public key"
        else:
            problem = f"no certificate and key in {cert} and {key} ({_reason(error)})"
        raise BadTLS("tls_cert", cert, problem) from None


def _load_roots(context: ssl.SSLContext, path: str) -> None:
    """Load the certificates against which others are verified."""
    _check_readable("tls_root_ca_file", path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        problem = f"failed to append certificate to pool: {path} ({_reason(error)})"
        raise BadTLS("tls_root_ca_file", path, problem) from None


def _check_readable(option: str, path: str) -> None:
    """Check that a file can be read; what `ssl` raises does not say which one cannot."""
    try:
        with open(path, "rb"):  # noqa: PTH123 - what is opened is what `ssl` opens
            pass
    except OSError as error:
        raise BadTLS(option, path, f"open {path}: {(error.strerror or '').lower()}") from None


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's word for what is wrong."""
    return (error.reason or "no PEM").replace("_", " ").lower()
