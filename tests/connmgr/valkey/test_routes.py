"""Partitions and their slots."""

import pytest
from netmail_common.config import ConfigError, ValkeyConfig
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey.routes import CLUSTER_PARTITIONS, partition_tags
from netmail_connmgr.adapters.valkey.wire import Server
from redis.crc import key_slot


def test_partitions_lie_evenly_over_a_cluster_s_slots() -> None:
    tags = partition_tags(CLUSTER_PARTITIONS)
    slots = [key_slot(f"netmail:{{{tag}}}:log".encode()) for tag in tags]
    assert [slot * CLUSTER_PARTITIONS // 16384 for slot in slots] == list(range(16))


async def test_whatever_is_about_a_network_is_in_one_partition_and_they_are_all_used() -> None:
    valkey = Valkey(ValkeyConfig(mode="cluster", addresses=["127.0.0.1:1"]))
    used = {valkey.partition_of(bytes((10, 0, a, b))) for a in range(8) for b in range(64)}
    assert used == set(valkey.partitions)
    await valkey.close()


def test_a_single_server_has_a_single_address() -> None:
    with pytest.raises(ConfigError, match="one address"):
        Valkey(ValkeyConfig(addresses=["127.0.0.1:1", "127.0.0.1:2"]))


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1:6379", Server("127.0.0.1", 6379)),
        ("[2001:db8::1]:6379", Server("2001:db8::1", 6379)),
        ("redis.example:1", Server("redis.example", 1)),
    ],
)
def test_an_address_is_read_as_it_is_written(text: str, server: Server) -> None:
    assert Server.parse(text) == server
    assert str(server) == text
