"""Errors of the directory's administration."""

import grpc

from netmail_nmap.domain.errors import NmapError


class UserExists(NmapError):
    """The context has a user of this name."""

    default_status = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "USER_EXISTS"
    default_message = "the context has a user of that name"


class AddressTaken(NmapError):
    """The mail address belongs to a user."""

    default_status = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ADDRESS_TAKEN"
    default_message = "the address belongs to a user already"


class AddressNotFound(NmapError):
    """The mail address is not the user's."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "ADDRESS_NOT_FOUND"
    default_message = "the user has no such address"


class ContextNotFound(NmapError):
    """This NMAP agent does not hold the context."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "CONTEXT_NOT_FOUND"
    default_message = "this NMAP agent holds no such context"


class DomainNotLocal(NmapError):
    """The address is in no domain of this Messaging Server."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "DOMAIN_NOT_LOCAL"
    default_message = "the address is in no domain of this Messaging Server"


class InvalidUserName(NmapError):
    """Not a user name."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "USER_NAME_INVALID"
    default_message = "not a user name"


class InvalidAddress(NmapError):
    """Not a mail address."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "ADDRESS_INVALID"
    default_message = "not a mail address"


class DeviceExists(NmapError):
    """The user has a device password of this name."""

    default_status = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "DEVICE_EXISTS"
    default_message = "the user has a device password of that name"


class DeviceNotFound(NmapError):
    """The user has no device password of this name."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "DEVICE_NOT_FOUND"
    default_message = "the user has no device password of that name"


class InvalidDevice(NmapError):
    """A device password cannot be made like that."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "DEVICE_INVALID"
    default_message = "not a device password"


class InvalidPassword(NmapError):
    """Not a password."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "PASSWORD_INVALID"
    default_message = "not a password"


class BackendReadOnly(NmapError):
    """Users of this context are kept in a file that somebody else writes."""

    default_status = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "BACKEND_READ_ONLY"
    default_message = "the context's users are kept in a password file: change that"


class HashingBusy(NmapError):
    """As many passwords as allowed wait to be hashed."""

    default_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "HASHING_BUSY"
    default_message = "too many passwords are being verified, try again"
