"""The policy for source files: the entries of `sources:` are trusted, the uris in a manifest are not.

A manifest may contain local paths (if it is a local file itself) and addresses of the usual stores. It may not contain `file://`, chains that
open one file through another (`zip://a.mp4::https://...`, `simplecache::`), other protocols, or hosts of the internal network, such as
169.254.169.254, the cloud's metadata service, which returns access keys. `sources: {allow: [...]}` allows a protocol or a host by its name.

`sources: {root: ...}` restricts all sources to one directory or address. Links are resolved before the check.

Host names are not resolved: a public name may point to an internal address, and a server may redirect to one. An address with a password or a
signature is always refused, because it would be written to tables, reports and shards.
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
"""Protocols that a manifest may use without `allow`."""
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
"""Query parameters of an address that grant access (S3, Google, Azure and others)."""


@dataclass(frozen=True)
class Rules:
    """`sources.root` (an absolute path or an address; None: no restriction) and `sources.allow`."""

    root: str | None = None
    allow: Collection[str] = ()

    def check_credentials(self, uri: str) -> None:
        """Raises UsageError for an address with a password or a signature. The message leaves the secret out."""
        if "://" not in uri or "credentials" in self.allow:
            return
        place, _, query = uri.partition("?")
        account = place.partition("://")[2].split("/", 1)[0].rpartition("@")[0]
        names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
        if ":" in account or names & SIGNATURES:
            shown = printable(re.sub(r"://[^/]*@", "://", place))
            raise UsageError(
                f"names an address with a password or a signature ({shown}), which would be written to tables and reports; "
                "pass it through the environment (docs/security.md)"
            )

    def check_named(self, uri: str, manifest: str) -> None:
        """Raises UsageError when this manifest may not contain this uri. The message says how to allow it."""
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
            raise UsageError("names a malformed address")
        if scheme not in STORES:
            self._need(scheme, f"the protocol {scheme}")
        if scheme in ("http", "https"):
            host = host_of(uri)
            if is_inner(host):
                self._need(host, f"{host}, an address of this machine or of an internal network")

    def check_inside(self, uri: str) -> None:
        """Raises UsageError for a uri outside the root."""
        if self.root is None:
            return
        if "::" not in uri and store.is_local(self.root) and store.is_local(uri):
            inside = Path(store.local_path(uri)).resolve().is_relative_to(store.local_path(self.root).resolve())
        else:
            steps = unquote(unquote(uri)).replace("\\", "/").split("/")
            inside = uri.startswith(self.root.rstrip("/") + "/") and ".." not in steps and "::" not in uri
        if not inside:
            raise UsageError(f"is outside sources.root ({self.root})")

    def _need(self, name: str, what: str) -> None:
        if name not in self.allow:
            raise UsageError(
                f"names {printable(what)}, which a manifest may not; allow it with  sources: {{allow: [{printable(name)}]}}"
            )


def chain_of(uri: str) -> list[str]:
    """The links of a chain of protocols (`zip://a.mp4::s3://bucket/a.zip`); colons of an IPv6 address in brackets do not count."""
    kept = re.sub(r"\[[^\[\]]*\]", lambda found: found[0].replace("::", "\0"), uri)
    return [link.replace("\0", "::") for link in kept.split("::")]


def host_of(uri: str) -> str:
    """The host of an address, as a resolver would read it. Raises UsageError when the address has no host."""
    try:
        host = unicodedata.normalize("NFKC", unquote(urlsplit(uri).hostname or ""))
    except ValueError:
        host = ""
    if not host:
        raise UsageError("names no host")
    return host.rstrip(".").lower()


def is_inner(host: str) -> bool:
    """Whether a host is this machine or on an internal network, judged by its spelling (`2130706433` is 127.0.0.1)."""
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # decimal, octal, hexadecimal and shortened forms
        except (OSError, UnicodeError):
            return host in INNER_NAMES or host.endswith(INNER_ENDS) or "." not in host
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in ipaddress.ip_network("64:ff9b::/96"):
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if within:
            address = within
    return not address.is_global or address.is_multicast
