"""BackupService: a copy of the whole store for an administrator."""
# ruff: noqa: ARG002 - gRPC hands every method a context

from typing import Any

from netmail.nmap.v1 import backup_pb2 as pb
from netmail.nmap.v1 import backup_pb2_grpc

from netmail_nmap.adapters.backup import StoreCopies

_MAX_WAIT = 30


class BackupService(backup_pb2_grpc.BackupServiceServicer):
    """Serves copies of one store. Roles are checked before it.

    Args:
        copies: of it.
    """

    def __init__(self, copies: StoreCopies) -> None:
        self._copies = copies

    async def PrepareBackup(
        self, request: pb.PrepareBackupRequest, context: Any
    ) -> pb.PrepareBackupResponse:
        """Begins one, or waits for it."""
        backup_id = request.backup_id or self._copies.begin()
        info = await self._copies.wait(backup_id, min(request.wait_seconds, _MAX_WAIT))
        if info is None:
            return pb.PrepareBackupResponse(backup_id=backup_id)
        return pb.PrepareBackupResponse(
            backup_id=backup_id,
            ready=True,
            engine="sqlite",
            schema=info.schema,
            store_id=info.store_id,
            size=info.size,
            sha256=info.sha256,
        )

    async def ReadBackup(
        self, request: pb.ReadBackupRequest, context: Any
    ) -> pb.ReadBackupResponse:
        """Octets of it."""
        data = await self._copies.read(request.backup_id, request.offset, request.length)
        return pb.ReadBackupResponse(data=data)

    async def EndBackup(self, request: pb.EndBackupRequest, context: Any) -> pb.EndBackupResponse:
        """Gives it up."""
        await self._copies.end(request.backup_id)
        return pb.EndBackupResponse()
