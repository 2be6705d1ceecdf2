"""Bodies of large messages in an object store outside the cluster, that several agents share.

The last of this folder: a store that has bodies there is not opened without it again.
"""

import secrets
import smtplib

import pytest

from tests.cluster.ha.faults import Scene
from tests.cluster.support import USERS
from tests.cluster.support.doors import Doors
from tests.cluster.support.load import REMOTE
from tests.cluster.support.outside import Outside
from tests.cluster.support.release import DOMAIN
from tests.cluster.support.stages import in_mailbox
from tests.support.object_store import ACCESS_KEY, ObjectServer, Place, object_server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_SECRET = "netmail-objects"
_LINES = 20_000
"""Of 76 octets each: more than `nmap.store.objects.min_size`."""


def keep_bodies_there(scene: Scene, server: ObjectServer, bucket: str) -> None:
    """Gives the installation an object store."""
    keys = {"access-key": ACCESS_KEY, "secret-key": server.secret_key}
    scene.release.make_secret(_SECRET, keys)
    objects = {
        "url": f"s3://{bucket}/mail",
        "endpoint": server.endpoint,
        "existingSecret": _SECRET,
        "ports": [server.port],
    }
    scene.install({"nmap": {"objectStore": objects}})
    scene.wait_until_whole()


def place_of(host: Outside) -> Place:
    """A host outside as the place of a server."""
    return Place(
        host.address, host.place.command([]), lambda port: host.reaches(host.address, port, 1)
    )


def send(scene: Scene, subject: str, lines: int, to: str) -> str:
    """Submits a message as alice; its body."""
    body = "".join(f"{secrets.token_hex(37)}\r\n" for _ in range(lines))
    with scene.hosts[0].smtp(scene.release.address("smtp"), 587, starttls=True) as client:
        client.login("alice", USERS["alice"])
        client.sendmail(
            f"alice@{DOMAIN}",
            [to],
            f"From: alice@{DOMAIN}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{body}",
        )
    return body


def test_large_messages_go_through_the_object_store_and_wait_while_it_is_away(
    scene: Scene,
) -> None:
    scene.wait_until_whole()
    with object_server(place_of(scene.cluster.outside("198.51.100.77"))) as server:
        bucket = server.bucket()
        keep_bodies_there(scene, server, bucket)
        _play(scene, server, bucket)


def _play(scene: Scene, server: ObjectServer, bucket: str) -> None:
    doors, bob = Doors.of(scene.release), f"bob@{DOMAIN}"
    body = send(scene, "large object", _LINES, bob)
    assert len(server.objects(bucket)) == 1
    for pod in scene.ready("nmap"):
        scene.kill(pod)
        found = in_mailbox(scene.hosts[1], doors.imaps, "bob", "large object", 120)
        assert found.endswith(body)
    scene.wait_until_whole()
    body = send(scene, "large and on its way", _LINES, REMOTE[0])
    assert scene.sink.message_with("large and on its way", 120).rstrip().endswith(body.rstrip())
    send(scene, "small object", 10, bob)
    before = len(server.objects(bucket))
    server.stop()
    try:
        with pytest.raises(smtplib.SMTPResponseException, match=r"45\d"):
            send(scene, "large in vain", _LINES, bob)
        send(scene, "small in between", 10, bob)
        in_mailbox(scene.hosts[1], doors.imaps, "bob", "small in between")
    finally:
        server.start()
    eventually(lambda: _sent_again(scene, bob), 60)
    in_mailbox(scene.hosts[1], doors.imaps, "bob", "large once more", 120)
    print(
        f"\nobject store: {before} objects before it was away, {len(server.objects(bucket))} after"
    )


def _sent_again(scene: Scene, to: str) -> bool:
    try:
        return bool(send(scene, "large once more", _LINES, to))
    except smtplib.SMTPResponseException:
        return False
