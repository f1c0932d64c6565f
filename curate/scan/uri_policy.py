"""Which files a run may name: what a manifest says is a stranger's word, what `sources:` says is the user's.

A manifest names plain local paths (if it is a local file itself) and addresses of the usual stores. It does not name `file://`, wrappers that
open one thing through another (`zip://a.mp4::https://...`, `simplecache::`), other protocols, or machines of the inner network, such as the
address 169.254.169.254 from which a cloud gives out keys. `sources: {allow: [...]}` admits a protocol, or a host, by its name.

`sources: {root: ...}` holds whatever is found, by a manifest or not, inside one directory or address; links are followed before that is judged.

Names are not looked up: a public name may lead to an inner address, and a server may redirect to one. An address that carries a password or a
signature is refused, whoever names it: it would stand in tables, reports and shards.
"""

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from curate.errors import UsageError, printable
from curate.tables import store

STORES = frozenset(
    {
        *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "r2", "hf", "http", "https", "memory"),
    }
)
"""Protocols that a manifest may name without being asked for it."""
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
INNER_NAMES = {"localhost", "metadata.google.internal"}
INNER_ENDS = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".localdomain")
SIGNATURES = frozenset(
    {
        *(
            "x-amz-signature",
            "x-amz-security-token",
            "x-amz-credential",
            "awsaccesskeyid",
            "x-goog-signature",
            "x-goog-credential",
        ),
        *("signature", "sig", "token", "access_token", "auth_token", "api_key", "apikey", "key", "password", "secret"),
    }
)
"""Parameters of an address that give access to whoever reads it (S3, Google, Azure and others)."""


@dataclass(frozen=True)
class Rules:
    """`sources.root` (an absolute path or an address; None: anywhere) and `sources.allow`."""

    root: str | None = None
    allow: Collection[str] = ()

    def check_credentials(self, uri: str) -> None:
        """Raises UsageError, without the secret in it, for an address that carries one."""
        if "://" not in uri or "credentials" in self.allow:
            return
        place, _, query = uri.partition("?")
        account = place.partition("://")[2].split("/", 1)[0].rpartition("@")[0]
        names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
        if ":" in account or names & SIGNATURES:
            shown = printable(re.sub(r"://[^/]*@", "://", place))
            raise UsageError(
                f"names an address with a password or a signature ({shown}), which would stand in tables and reports; "
                "give it through the environment (docs/security.md)"
            )

    def check_named(self, uri: str, manifest: str) -> None:
        """Whether this manifest may name this uri. Raises UsageError that says what may not be named, and how it may."""
        if len(chain_of(uri)) == 1 and "://" not in uri:
            if not store.is_local(manifest) and (Path(uri).is_absolute() or uri.startswith("~")):
                self._need("file", "a local path")
            return
        for link in chain_of(uri):
            if "://" in link:
                self._check_address(link)
            else:
                self._need(link, f"a chain that begins with {link}")

    def _check_address(self, uri: str) -> None:
        scheme = uri.partition("://")[0].lower()
        if not SCHEME.fullmatch(scheme) or re.search(r"[\x00-\x20\\]", uri):
            raise UsageError("names an address that is none")
        if scheme not in STORES:
            self._need(scheme, f"the protocol {scheme}")
        if scheme in ("http", "https"):
            host = host_of(uri)
            if is_inner(host):
                self._need(host, f"{host}, an address of this machine or of an inner network")

    def check_inside(self, uri: str) -> None:
        """Whether a uri lies inside the root. Raises UsageError."""
        if self.root is None:
            return
        if "::" not in uri and store.is_local(self.root) and store.is_local(uri):
            inside = Path(store.local_path(uri)).resolve().is_relative_to(store.local_path(self.root).resolve())
        else:
            steps = unquote(unquote(uri)).replace("\\", "/").split("/")
            inside = uri.startswith(self.root.rstrip("/") + "/") and ".." not in steps and "::" not in uri
        if not inside:
            raise UsageError(f"lies outside sources.root ({self.root})")

    def _need(self, name: str, what: str) -> None:
        if name not in self.allow:
            raise UsageError(
                f"names {printable(what)}, which a manifest may not; admit it with  sources: {{allow: [{printable(name)}]}}"
            )


def chain_of(uri: str) -> list[str]:
    """The links of a chain of protocols (`zip://a.mp4::s3://bucket/a.zip`); the colons of an address in brackets are none."""
    kept = re.sub(r"\[[^\[\]]*\]", lambda found: found[0].replace("::", "\0"), uri)
    return [link.replace("\0", "::") for link in kept.split("::")]


def host_of(uri: str) -> str:
    """The host of an address, as a resolver would read it. Raises UsageError when there is none."""
    try:
        host = unicodedata.normalize("NFKC", unquote(urlsplit(uri).hostname or ""))
    except ValueError:
        host = ""
    if not host:
        raise UsageError("names no host")
    return host.rstrip(".").lower()


def is_inner(host: str) -> bool:
    """Whether a host is this machine or on an inner network, as far as its spelling says (`2130706433` is 127.0.0.1)."""
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # decimal, octal, hexadecimal, and short ones
        except (OSError, UnicodeError):
            return host in INNER_NAMES or host.endswith(INNER_ENDS) or "." not in host
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in ipaddress.ip_network("64:ff9b::/96"):
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if within:
            address = within
    return not address.is_global or address.is_multicast
