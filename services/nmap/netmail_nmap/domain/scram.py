"""The server's side of one SCRAM-SHA-256 exchange (RFC 5802, RFC 7677)."""

from netmail_common.sasl import ClientFirst
from scramp import ScramException, ScramMechanism
from scramp.core import Gs2Header

from netmail_nmap.domain.users import ScramVerifier

_MECHANISM = ScramMechanism("SCRAM-SHA-256")
_MAX_CLIENT_FINAL = 4096


class ScramMalformed(Exception):
    """A message of the client is not one, or does not fit the exchange."""


class ScramProofWrong(Exception):
    """The client does not know the password."""


class _Gs2Header(Gs2Header):  # type: ignore[misc]  # scramp is untyped
    """The header as the client wrote it; scramp's own knows no authzid (RFC 5802 5.1, `a=`)."""

    def __init__(self, text: str) -> None:
        super().__init__(text[0], None)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __bytes__(self) -> bytes:
        return self._text.encode()


class ScramExchange:
    """One exchange; the messages go through `scramp`."""

    def __init__(self, first: ClientFirst, verifier: ScramVerifier) -> None:
        """Takes the client-first-message.

        Raises: ScramMalformed.
        """
        self._server = _MECHANISM.make_server(
            lambda _name: (
                verifier.salt,
                verifier.stored_key,
                verifier.server_key,
                verifier.iterations,
            )
        )
        try:
            # The directory has checked that the authzid is the name: only the proof needs it still.
            flag, authzid, bare = first.text.split(",", 2)
            self._server.set_client_first(f"{flag},,{bare}")
            self._server.gs2_header = _Gs2Header(f"{flag},{authzid},")
            self.server_first = str(self._server.get_server_first()).encode()
        except ScramException as error:
            raise ScramMalformed from error

    def finish(self, client_final: bytes) -> bytes:
        """Checks the proof; gives the server-final-message.

        Raises: ScramMalformed, ScramProofWrong.
        """
        if len(client_final) > _MAX_CLIENT_FINAL:
            raise ScramMalformed
        try:
            self._server.set_client_final(client_final.decode("utf-8"))
            return str(self._server.get_server_final()).encode()
        except UnicodeDecodeError as error:
            raise ScramMalformed from error
        except ScramException as error:
            if error.server_error is not None and error.server_error.value == "invalid-proof":
                raise ScramProofWrong from error
            raise ScramMalformed from error
