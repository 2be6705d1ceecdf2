"""DirectoryService: Authenticate, Resolve, contexts and users."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any

import grpc
from netmail.nmap.v1 import directory_pb2 as pb
from netmail.nmap.v1 import directory_pb2_grpc
from netmail_common.config import MessagingServerConfig
from netmail_common.metrics import counter

from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.authenticator import Authenticator
from netmail_nmap.adapters.device_administration import DeviceAdministration
from netmail_nmap.adapters.directory import ResolvedAddress, UserDirectory
from netmail_nmap.adapters.grpc_authenticate import AuthenticateSession
from netmail_nmap.domain.devices import DeviceUse
from netmail_nmap.domain.directory_errors import ContextNotFound
from netmail_nmap.domain.errors import InvalidRequest
from netmail_nmap.domain.users import UserRecord

MAX_RESOLVE = 10_000
"""Addresses of one Resolve."""
_PAGE = 100
_MAX_PAGE = 1000
_RESOLVED = counter("nmap_resolved_addresses", "Addresses looked up", ("outcome",))

_Context = grpc.aio.ServicerContext


class DirectoryService(directory_pb2_grpc.DirectoryServiceServicer):
    """Serves the directory of one Messaging Server. Roles are checked before it."""

    def __init__(
        self,
        config: MessagingServerConfig,
        directory: UserDirectory,
        authenticator: Authenticator,
        administration: UserAdministration,
        devices: DeviceAdministration,
    ) -> None:
        self._config = config
        self._directory = directory
        self._authenticator = authenticator
        self._administration = administration
        self._devices = devices
        self._stop = asyncio.Event()

    def use(self, config: MessagingServerConfig) -> None:
        """Goes on with another configuration of the same Messaging Server."""
        self._config = config

    def drain(self) -> None:
        """Ends the Authenticate streams when what was begun on them is answered."""
        self._stop.set()

    async def Authenticate(  # type: ignore[override] # writes instead of yielding
        self, request_iterator: AsyncIterable[pb.AuthenticateRequest], context: Any
    ) -> None:
        """Carries many exchanges at once."""
        session = AuthenticateSession(
            self._authenticator, context.write, _user, lambda: self._directory.settings.domains
        )
        await session.run(request_iterator, self._stop)

    async def Resolve(self, request: pb.ResolveRequest, context: Any) -> pb.ResolveResponse:
        """Looks recipients up."""
        del context
        if len(request.addresses) > MAX_RESOLVE:
            raise InvalidRequest(f"at most {MAX_RESOLVE} addresses")
        sizes = list(request.sizes) or [request.size] * len(request.addresses)
        if len(sizes) != len(request.addresses):
            raise InvalidRequest("sizes: one for each address")
        results = await self._directory.resolve(request.addresses, sizes)
        for result in results:
            _RESOLVED.labels(result.outcome.name.lower()).inc()
        return pb.ResolveResponse(results=[_resolved(result) for result in results])

    async def ListContexts(
        self, request: pb.ListContextsRequest, context: Any
    ) -> pb.ListContextsResponse:
        """The contexts that this agent holds."""
        del request, context
        response = pb.ListContextsResponse()
        for held in self._config.contexts:
            source = self._directory.files.get(held.name)
            users = (
                await self._directory.store.count_users(held.name)
                if source is None
                else len(source.current.users)
            )
            response.contexts.add(
                name=held.name,
                messaging_server=self._config.name,
                backend=held.backend,
                keeps_verifiers=held.backend == "internal",
                users=users,
                domains=self._config.domains,
            )
        return response

    async def CreateUser(
        self, request: pb.CreateUserRequest, context: Any
    ) -> pb.CreateUserResponse:
        """Makes a user of an internal context."""
        del context
        user = await self._administration.create(
            request.user.name,
            request.user.context,
            request.password,
            addresses=request.addresses,
            quota_bytes=request.quota_bytes or None,
        )
        return pb.CreateUserResponse(user=_user(user))

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        """Finds a user."""
        del context
        user = await self._administration.get(request.user.name, request.user.context)
        return pb.GetUserResponse(user=_user(user))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """A page of users: first those of the storage, then those that only a file knows."""
        del context
        contexts = self._directory.settings.contexts
        if request.context:
            if request.context not in contexts:
                raise ContextNotFound
            contexts = (request.context,)
        size = min(request.page_size or _PAGE, _MAX_PAGE)
        page, token = await self._directory.list_users(contexts, request.page_token, size)
        return pb.ListUsersResponse(users=[_user(user) for user in page], next_page_token=token)

    async def SetPassword(
        self, request: pb.SetPasswordRequest, context: Any
    ) -> pb.SetPasswordResponse:
        """Changes a password."""
        del context
        user = await self._administration.set_password(
            request.user.name, request.user.context, request.password
        )
        return pb.SetPasswordResponse(user=_user(user))

    async def SetUserDisabled(
        self, request: pb.SetUserDisabledRequest, context: Any
    ) -> pb.SetUserDisabledResponse:
        """Disables or enables a user."""
        del context
        user = await self._administration.set_disabled(
            request.user.name, request.user.context, disabled=request.disabled
        )
        return pb.SetUserDisabledResponse(user=_user(user))

    async def DeleteUser(
        self, request: pb.DeleteUserRequest, context: Any
    ) -> pb.DeleteUserResponse:
        """Removes a user with all his mail."""
        del context
        await self._administration.delete(request.user.name, request.user.context)
        return pb.DeleteUserResponse()

    async def AddAddress(
        self, request: pb.AddAddressRequest, context: Any
    ) -> pb.AddAddressResponse:
        """Gives a user one more address."""
        del context
        user = await self._administration.add_address(
            request.user.name, request.user.context, request.address
        )
        return pb.AddAddressResponse(user=_user(user))

    async def RemoveAddress(
        self, request: pb.RemoveAddressRequest, context: Any
    ) -> pb.RemoveAddressResponse:
        """Takes an address from a user."""
        del context
        user = await self._administration.remove_address(
            request.user.name, request.user.context, request.address
        )
        return pb.RemoveAddressResponse(user=_user(user))

    async def UpdateUser(
        self, request: pb.UpdateUserRequest, context: Any
    ) -> pb.UpdateUserResponse:
        """Changes quota and forwarding, what of them is given."""
        del context
        name, where = request.user.name, request.user.context
        user = await self._administration.get(name, where)
        if request.HasField("quota_bytes"):
            user = await self._administration.set_quota(name, where, request.quota_bytes)
        if request.HasField("forward"):
            user = await self._administration.set_forwarding(
                name, where, request.forward.forward_to, keep_copy=request.forward.keep_copy
            )
        return pb.UpdateUserResponse(user=_user(user))

    async def CreateDevicePassword(
        self, request: pb.CreateDevicePasswordRequest, context: Any
    ) -> pb.CreateDevicePasswordResponse:
        """Makes a password for one device of a user."""
        del context
        wanted = request.device
        made, password = await self._devices.create(
            request.user.name,
            request.user.context,
            wanted.name,
            wanted.services,
            wanted.networks,
            wanted.expires_in_seconds if wanted.HasField("expires_in_seconds") else None,
        )
        return pb.CreateDevicePasswordResponse(
            device=_device(made, self._devices.now()), password=password
        )

    async def ListDevicePasswords(
        self, request: pb.ListDevicePasswordsRequest, context: Any
    ) -> pb.ListDevicePasswordsResponse:
        """A user's device passwords."""
        del context
        found = await self._devices.list(request.user.name, request.user.context)
        now = self._devices.now()
        return pb.ListDevicePasswordsResponse(devices=[_device(one, now) for one in found])

    async def DeleteDevicePassword(
        self, request: pb.DeleteDevicePasswordRequest, context: Any
    ) -> pb.DeleteDevicePasswordResponse:
        """Removes a device password; the user's logins and sessions end."""
        del context
        await self._devices.remove(request.user.name, request.user.context, request.name)
        return pb.DeleteDevicePasswordResponse()


def _device(use: DeviceUse, now: float) -> pb.DevicePassword:
    device = use.device
    return pb.DevicePassword(
        name=device.name,
        services=sorted(device.services),
        networks=[str(network) for network in device.networks],
        expires_in_seconds=(
            None if device.expires_at is None else max(0, device.expires_at - int(now))
        ),
        created_seconds_ago=max(0, int(now) - use.created_at),
        used_seconds_ago=None if use.used_at is None else max(0, int(now) - use.used_at),
        used_from=use.used_from,
    )


def _user(user: UserRecord) -> pb.User:
    return pb.User(
        id=user.id,
        name=user.name,
        context=user.context,
        disabled=user.disabled,
        addresses=user.addresses,
        credential_epoch=user.credential_epoch,
        quota_bytes=user.quota_bytes,
        used_bytes=user.used_bytes,
        forward_to=user.forward_to,
        keep_copy=user.keep_copy,
    )


def _resolved(result: ResolvedAddress) -> pb.Resolved:
    message = pb.Resolved(outcome=result.outcome.value)
    if result.user is not None:
        message.user_id = result.user.id
        message.name = result.user.name
        message.context = result.user.context
        message.catch_all = result.catch_all
    return message
