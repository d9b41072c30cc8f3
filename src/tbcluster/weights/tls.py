"""TLS between the nodes of a rack: both ends show a certificate of their own making, and each
accepts exactly those that the coordinator has told it of.

A certificate lives as long as the agent that made it, so that nothing is said by its dates.
"""

import secrets
import ssl
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tbcluster.errors import FetchError

# Clocks of machines differ: a certificate that is trusted by its bytes needs none.
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
MAX_CERTIFICATE_BYTES = 16 * 1024


def new_certificate() -> tuple[str, str]:
    """A certificate that is signed by itself, and its key (P-256), both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Names that differ: OpenSSL looks for trusted certificates by name first.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tbcluster {secrets.token_hex(8)}")])
    start, end = ALWAYS
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        # Whoever holds the key cannot sign for others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()


def server_context(tls_files: Sequence[str], accepted: Iterable[str]) -> ssl.SSLContext:
    """For a server that answers those who show one of these certificates (PEM).

    Args:
        tls_files: Its own certificate and key.

    Raises:
        FetchError: A certificate or the key cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls_files, accepted)
    # Nobody resumes a session that was begun with a certificate that is accepted no more.
    context.num_tickets = 0
    return context


def client_context(tls_files: Sequence[str], accepted: Iterable[str]) -> ssl.SSLContext:
    """For a client of servers that show one of these certificates (PEM).

    Args:
        tls_files: Its own certificate and key.

    Raises:
        FetchError: A certificate or the key cannot be used.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls_files, accepted)


def certificate_bytes(certificate: str) -> bytes:
    """The certificate in DER, as `SSLSocket.getpeercert(binary_form=True)` gives it.

    Raises:
        FetchError: This is none.
    """
    try:
        if len(certificate) > MAX_CERTIFICATE_BYTES:
            raise ValueError("it is too long")
        return x509.load_pem_x509_certificate(certificate.encode()).public_bytes(Encoding.DER)
    except ValueError as error:
        raise FetchError(f"a node's certificate cannot be used: {error}") from error


def shows_one_of(connection: ssl.SSLSocket, accepted: Iterable[bytes]) -> bool:
    """Whether the other end has shown one of these certificates (DER) itself, rather than one that
    was signed with its key."""
    return connection.getpeercert(binary_form=True) in set(accepted)


def _context(purpose: int, tls_files: Sequence[str], accepted: Iterable[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Who it is, is said by the certificate; addresses change.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # A certificate is trusted by itself, whatever name another one has.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusted = b"".join(map(certificate_bytes, accepted))
    try:
        context.load_cert_chain(*tls_files)
        if trusted:
            context.load_verify_locations(cadata=trusted)
    except (OSError, ValueError, TypeError) as error:
        raise FetchError(f"this node's certificate cannot be used: {error}") from error
    return context
