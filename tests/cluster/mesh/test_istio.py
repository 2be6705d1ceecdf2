"""In Istio, by both ways of gRPC security: the six stages, the table of roles, failing closed.

The tests stand in the order in which they need the release: later ones take things away from it.
"""

import json
import poplib
import smtplib
import time
from collections.abc import Callable

import pytest
from netmail_common.roles import METHOD_ROLES, Role

from tests.cluster.mesh.support import (
    NOT_SERVED,
    Answer,
    agent_of,
    ask,
    kill_proxy,
    methods,
    open_network,
    outsider,
)
from tests.cluster.support import CommandFailed, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.stages import (
    ask_to_relay,
    forget_logins,
    play,
    pop3_login,
    refused_politely,
    relay,
    traced,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

AGENTS = [role for role in Role if role is not Role.ADMIN]
FORGED = [
    (
        "x-forwarded-client-cert",
        f'By=x;Hash=00;Subject="";URI=spiffe://cluster.local/ns/{{namespace}}/sa/netmail-{one}',
    )
    for one in ("cli",)
]
HARMLESS = (
    "/netmail.connmgr.v1.ConnectionManagerService/ListLogins",
    "/netmail.nmap.v1.DirectoryService/GetUser",
    "/netmail.nmap.v1.QueueService/ListQueue",
)


def test_every_pod_has_its_proxy_and_is_restricted(meshed: Release) -> None:
    pods = meshed.get("pods", "-l", f"app.kubernetes.io/instance={meshed.name}")["items"]
    components = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in pods
        if any(one["name"] == "istio-proxy" for one in pod["spec"].get("initContainers", ()))
    }
    assert components == {"connmgr", "nmap", "smtp", "deliver", "pop-imap", "cli"}


def test_the_six_stages_work_and_clients_addresses_arrive(
    meshed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    play(meshed, sink, *hosts[:3])


def test_helm_test_passes_in_the_mesh(meshed: Release) -> None:
    said = meshed.helm("test", meshed.name, "--logs", "--timeout", "10m")
    assert "everything is as it should be" in said


def test_istioctl_finds_nothing_to_say(meshed: Release) -> None:
    words = ("analyze", "--namespace", meshed.namespace, "--output", "json")
    assert json.loads(meshed.cluster.do("addon", "istio", "exec", "istioctl", *words)) == []


def refused(answer: Answer, security: str, method: str, role: Role) -> bool:
    """Whether whoever must refuse a call did: the mesh, or the agent where it sees the call.

    An agent sees its own pod's calls: Istio's redirection leaves alone what goes to the pod itself.
    """
    if security == "mesh":
        return answer.by_mesh
    agent = agent_of(method)
    connects = agent == role.value or any(
        role in roles
        for name, roles in METHOD_ROLES.items()
        if name.startswith("/netmail.") and agent_of(name) == agent
    )
    if not connects:  # Without any method of that agent's the mesh does not let it through.
        return answer.status == "UNAVAILABLE"
    return answer.by_agent or (method in NOT_SERVED and answer.status == "UNIMPLEMENTED")


@pytest.mark.parametrize("role", AGENTS)
def test_a_pod_with_another_service_account_is_denied_each_method_that_is_not_its_own(
    meshed: Release, security: str, role: Role
) -> None:
    open_network(meshed)
    answers = ask(meshed, role, methods(role, allowed=False))
    wrong = {
        name: answer
        for name, answer in answers.items()
        if not refused(answer, security, name, role)
    }
    print(f"{role.value}, {security}: {len(answers)} methods denied")
    assert not wrong


@pytest.mark.parametrize("role", AGENTS)
def test_its_own_methods_are_not_denied(meshed: Release, role: Role) -> None:
    open_network(meshed)
    own = [
        name
        for name in methods(role, allowed=True)
        if name.startswith("/netmail.") and not name.endswith(("Lease", "WatchLogins"))
    ]
    denied = {
        name: answer
        for name, answer in ask(meshed, role, own, seconds=3).items()
        if answer.status in {"PERMISSION_DENIED", "UNAVAILABLE"}
    }
    assert not denied


def test_a_name_that_a_client_claims_itself_counts_nothing(meshed: Release, security: str) -> None:
    open_network(meshed)
    headers = [(key, text.format(namespace=meshed.namespace)) for key, text in FORGED]
    answers = ask(meshed, Role.SMTP, HARMLESS, headers=headers)
    assert all(one.by_mesh if security == "mesh" else one.by_agent for one in answers.values())


@pytest.mark.parametrize("inside", [False, True], ids=["outside the mesh", "in the mesh"])
def test_a_pod_that_is_no_agent_gets_nothing_even_with_the_administrators_certificate(
    meshed: Release, security: str, *, inside: bool
) -> None:
    open_network(meshed)
    headers = [(key, text.format(namespace=meshed.namespace)) for key, text in FORGED]
    with outsider(meshed, meshed=inside, security=security) as pod:
        script_role = Role.ADMIN
        if security == "mesh" and not inside:
            # It has no proxy to wait for, so it asks by hand.
            answers = plain_answers(meshed, pod)
        else:
            answers = ask(meshed, script_role, HARMLESS, pod=pod, headers=headers)
    assert answers
    for answer in answers.values():
        assert answer.by_mesh if inside and security == "mesh" else answer.status == "UNAVAILABLE"


PLAIN = """
import asyncio, grpc, json, sys
async def main():
    found = {}
    for method, target in json.loads(sys.argv[1]):
        async with grpc.aio.insecure_channel(target) as channel:
            try:
                await channel.unary_unary(method)(b"", timeout=5, metadata=json.loads(sys.argv[2]))
                found[method] = ["OK", "", ""]
            except grpc.aio.AioRpcError as error:
                found[method] = [error.code().name, error.details() or "", ""]
    print(json.dumps(found))
asyncio.run(main())
"""


def plain_answers(release: Release, pod: str) -> dict[str, Answer]:
    """What a pod without a proxy gets that speaks plain text and claims a name."""
    ports = {"connmgr": 7700, "nmap": 7710}
    asked = [
        (name, f"{release.name}-{agent_of(name)}:{ports[agent_of(name)]}") for name in HARMLESS
    ]
    headers = [(key, text.format(namespace=release.namespace)) for key, text in FORGED]
    said = release.kubectl(
        "exec", "-i", pod, "--", "python3", "-", json.dumps(asked), json.dumps(headers), stdin=PLAIN
    )
    return {name: Answer(*one) for name, one in json.loads(said.splitlines()[-1]).items()}


@pytest.mark.parametrize("component", ["connmgr", "smtp", "nmap"])
def test_after_a_restart_of_a_proxy_logins_are_followed_again_and_nobody_relayed_meanwhile(
    meshed: Release, sink: Sink, hosts: list[Outside], component: str
) -> None:
    alice, _, stranger, _ = hosts
    doors = Doors.of(meshed)
    forget_logins(meshed)
    kill_proxy(meshed, component)
    killed = time.monotonic()
    wrong: list[str] = []

    def known_again() -> bool:
        reply = safely(lambda: ask_to_relay(stranger, doors.smtp, "alice"))
        if reply.startswith("250"):
            wrong.append(reply)
        try:
            pop3_login(alice, doors.pop3s, "alice")
        except (OSError, EOFError, poplib.error_proto):
            return False
        return safely(lambda: ask_to_relay(alice, doors.smtp, "alice")).startswith("250")

    eventually(known_again, 120)
    print(f"proxy of {component}: {time.monotonic() - killed:.1f} s until a login counted")
    assert not wrong
    traced(relay(alice, doors.smtp, "alice", sink), "alice", alice.address)
    forget_logins(meshed)
    refused_politely(ask_to_relay(alice, doors.smtp, "alice"))


def safely(work: Callable[[], object]) -> str:
    """What WORK gives, or the error's text."""
    try:
        return str(work())
    except (OSError, EOFError, AssertionError, smtplib.SMTPException, poplib.error_proto) as error:
        return f"{type(error).__name__}: {error}"


def test_a_policy_that_was_forgotten_opens_nothing(meshed: Release, security: str) -> None:
    if security == "mtls":
        pytest.skip("the agents' own certificates need no policy; the tests above show it")
    open_network(meshed)
    meshed.kubectl("delete", "authorizationpolicies", "--all")
    permissive = json.dumps({"spec": {"mtls": {"mode": "PERMISSIVE"}}})
    for component in ("connmgr", "nmap"):
        name = f"peerauthentication/{meshed.name}-{component}"
        meshed.kubectl("patch", name, "--type=merge", "-p", permissive)
    with outsider(meshed, meshed=False, security=security) as pod:

        def reached() -> bool:
            answers = plain_answers(meshed, pod).values()
            return all(answer.status == "PERMISSION_DENIED" for answer in answers)

        eventually(reached, 60)
    answers = ask(meshed, Role.DELIVER, HARMLESS)
    assert all(answer.by_agent for answer in answers.values()), answers


def test_a_pod_that_is_not_injected_opens_nothing(
    meshed: Release, security: str, hosts: list[Outside]
) -> None:
    alice, door = hosts[0], Doors.of(meshed)
    pop3_login(alice, door.pop3s, "alice")
    (before,) = meshed.pods("smtp")
    labels = {"sidecar.istio.io/inject": "false"}
    patch = {"spec": {"template": {"metadata": {"labels": labels}}}}
    meshed.kubectl("patch", meshed.workload("smtp"), "--type=merge", "-p", json.dumps(patch))
    try:
        pod = eventually(
            lambda: next(
                (p for p in meshed.pods("smtp") if p.name != before.name and p.address), None
            ),
            60,
        )
        assert pod is not None
        if security == "mesh":
            said = eventually(
                lambda: next((t for t in logs(meshed, pod.name) if "no proxy of istio" in t), ""),
                180,
            )
            assert said
        for _ in range(20):
            reply = safely(lambda: ask_to_relay(alice, (pod.address, 2525), "alice"))
            assert not reply.startswith("250"), reply
            time.sleep(1)
        if security == "mesh":
            assert not next((p for p in meshed.pods("smtp") if p.name == pod.name), pod).ready
    finally:
        meshed.kubectl("rollout", "undo", meshed.workload("smtp"))


def logs(release: Release, pod: str) -> list[str]:
    """Lines of a pod's container, of the one before too."""
    lines: list[str] = []
    for flags in ([], ["--previous"]):
        try:
            lines += release.kubectl("logs", pod, "-c", "smtp", *flags).splitlines()
        except CommandFailed:
            continue
    return lines
