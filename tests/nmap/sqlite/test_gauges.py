"""What operators see of the queue."""

from pathlib import Path

from netmail_nmap.adapters.sql import open_store
from netmail_nmap.adapters.sql._gauges import Gauges
from netmail_nmap.domain.delivery import (
    DeliveryOutcome,
    Envelope,
    Expansion,
    ItemReport,
    QueueFilter,
    Recipient,
    RecipientReport,
    Submission,
)
from prometheus_client import REGISTRY


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def items() -> dict[str, float | None]:
    return {
        state: REGISTRY.get_sample_value("netmail_nmap_queue_items", {"state": state})
        for state in ("ready", "leased", "deferred", "held")
    }


async def test_queue_items_are_counted_by_state(tmp_path: Path) -> None:
    path, clock = tmp_path / "x.db", Clock()
    async with open_store(f"sqlite:///{path}", clock=clock) as store:
        for number in range(5):
            address = f"a@d{number}.example"
            envelope = Envelope(f"message-{number:010d}", "a@b.example", (Recipient(address),))
            await store.queue.submit(
                [Submission(envelope, b"A: b\r\n\r\n", (Expansion(remote=(address,)),))]
            )
        await store.queue.hold(QueueFilter(destination="d4.example"))
        leased = await store.queue.lease(limit=2, seconds=60, wait=0, worker="w")
        deferred = leased[0]
        said = RecipientReport(
            deferred.envelope.recipients[0].address, DeliveryOutcome.DEFERRED, "4.0.0"
        )
        await store.queue.report([ItemReport(deferred.lease_id, deferred.fence, (said,))], {})
        clock.now += 10
        await Gauges(store.core, lambda _: path.stat().st_size).look()
        assert items() == {"ready": 2, "leased": 1, "deferred": 1, "held": 1}
        assert REGISTRY.get_sample_value("netmail_nmap_queue_oldest_due_seconds") == 10
        await store.queue.remove(QueueFilter(), bounce=False, senders={})
        await Gauges(store.core, lambda _: path.stat().st_size).look()
        assert items() == dict.fromkeys(("ready", "leased", "deferred", "held"), 0)
    assert (REGISTRY.get_sample_value("netmail_nmap_store_bytes") or 0) > 0
