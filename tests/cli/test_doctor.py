"""Doctor: what it makes of a cluster's objects, of the addresses that arrived, and of answers."""

from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_cli.doctor.addresses import judge_addresses, judge_cluster
from netmail_cli.doctor.cluster import Objects
from netmail_cli.doctor.findings import Level
from netmail_cli.doctor.mesh import judge_mesh
from netmail_cli.doctor.outside import BadToken, Target, read_token, write_token
from netmail_cli.doctor.services import Door, doors_of, judge_services
from netmail_common.config import Installation, parse_config

LABELS = {"app.kubernetes.io/name": "netmail", "app.kubernetes.io/component": "smtp"}


def door(**changes: Any) -> Door:
    fields = {
        "name": "mx",
        "server": "mail",
        "kind": "smtp",
        "port": 2525,
        "tls": "starttls",
        "proxy_protocol": False,
        "vouches": True,
    }
    return Door(**{**fields, **changes})


def service(ingress: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
    """As the API server gives one of type LoadBalancer."""
    given = [{"ip": "192.168.100.200", "ipMode": "VIP"}] if ingress is None else ingress
    return {
        "metadata": {"name": "netmail-smtp", "namespace": "netmail", "labels": LABELS},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.12.9",
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ports": [
                {
                    "name": "smtp",
                    "port": 25,
                    "protocol": "TCP",
                    "targetPort": "smtp",
                    "nodePort": 30025,
                }
            ],
            "selector": LABELS,
            **spec,
        },
        "status": {"loadBalancer": {"ingress": given}},
    }


def pod(*, sidecar: str = "", annotations: dict[str, str] | None = None, **port: Any) -> Any:
    one = {"name": "smtp", "containerPort": 2525, "protocol": "TCP", **port}
    containers = [{"name": "smtp", "ports": [one]}]
    return {
        "metadata": {"name": "netmail-smtp-1", "labels": LABELS, "annotations": annotations or {}},
        "spec": {
            "containers": containers,
            "initContainers": [{"name": sidecar}] if sidecar else [],
        },
        "status": {"phase": "Running"},
    }


def endpoints(*, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "netmail-smtp-x7",
            "labels": {"kubernetes.io/service-name": "netmail-smtp"},
        },
        "endpoints": [
            {"addresses": ["10.244.1.7"], "conditions": {"ready": ready, "serving": ready}}
        ],
        "ports": [{"name": "smtp", "port": 2525, "protocol": "TCP"}],
    }


def objects(*services: Any, pods: Any = None, ready: bool = True, routes: Any = ()) -> Objects:
    return Objects(
        services=services,
        slices=[endpoints(ready=ready)],
        pods=[pod()] if pods is None else pods,
        routes=routes,
    )


@pytest.mark.parametrize(
    ("one", "doors", "level", "said"),
    [
        (service(), door(), Level.GOOD, "externalTrafficPolicy Local keeps it"),
        (service(type="NodePort"), door(), Level.GOOD, "node ports"),
        (
            service(externalTrafficPolicy="Cluster"),
            door(),
            Level.BAD,
            "a node may put its own address in place",
        ),
        (
            service(externalTrafficPolicy="Cluster"),
            door(vouches=False),
            Level.WARNING,
            "a node may put",
        ),
        (
            service(externalTrafficPolicy="Cluster"),
            door(proxy_protocol=True),
            Level.GOOD,
            "by PROXY protocol",
        ),
        (service(type="ClusterIP"), door(), Level.BAD, "through a proxy"),
        (
            service([{"ip": "192.0.2.1", "ipMode": "Proxy"}]),
            door(),
            Level.BAD,
            "connections of its own (ipMode Proxy)",
        ),
        (service([]), door(), Level.WARNING, "no load balancer has taken"),
    ],
)
def test_a_service_is_judged_by_what_it_does_to_the_address(
    one: Any, doors: Door, level: Level, said: str
) -> None:
    (finding,) = judge_services([doors], objects(one))
    assert finding.level is level
    assert said in finding.said
    port = 30025 if one["spec"]["type"] == "NodePort" else 25
    assert finding.about == f"mail mx, Service netmail-smtp:{port}"
    assert bool(finding.do) is (level is not Level.GOOD)


def test_a_service_without_ready_pods_is_bad() -> None:
    found = list(judge_services([door()], objects(service(), ready=False)))
    assert [one.level for one in found] == [Level.GOOD, Level.BAD]
    assert "no ready pod" in found[1].said


def test_a_service_whose_pods_are_gone_is_bad() -> None:
    (finding,) = judge_services([door()], objects(service(), pods=[], ready=False))
    assert (finding.level, finding.about) == (Level.BAD, "Service netmail-smtp")
    assert finding.said == "no pod is behind it"


def test_a_listener_that_nothing_leads_to_is_said_and_a_host_port_is_found() -> None:
    (finding,) = judge_services([door()], objects())
    assert (finding.level, "2525" in finding.said) == (Level.WARNING, True)
    (finding,) = judge_services([door()], objects(pods=[pod(hostPort=25)]))
    assert (finding.level, finding.about) == (Level.GOOD, "mail mx, hostPort 25")


def test_routes_hide_the_address_but_for_proxy_protocol_and_udp_always() -> None:
    def route(kind: str) -> dict[str, Any]:
        refs = [{"name": "netmail-smtp", "port": 25}]
        return {
            "kind": kind,
            "metadata": {"name": "smtp"},
            "spec": {"rules": [{"backendRefs": refs}]},
        }

    behind = service(type="ClusterIP")
    for proxy, level in ((False, Level.BAD), (True, Level.GOOD)):
        found = judge_services(
            [door(proxy_protocol=proxy)], objects(behind, routes=[route("TCPRoute")])
        )
        assert [one.level for one in found if one.about == "TCPRoute smtp"] == [level]
    found = judge_services([door(proxy_protocol=True)], objects(routes=[route("UDPRoute")]))
    (udp,) = [one for one in found if one.about == "UDPRoute smtp"]
    assert udp.level is Level.BAD
    assert "UDP 689" in udp.said


@pytest.mark.parametrize(
    ("policy", "level", "word"),
    [("Local", Level.GOOD, "keeps"), ("Cluster", Level.BAD, "passes that one on")],
)
def test_the_service_of_a_gateway_is_judged_that_routes_are_attached_to(
    policy: str, level: Level, word: str
) -> None:
    route = {
        "kind": "TCPRoute",
        "metadata": {"name": "smtp"},
        "spec": {"parentRefs": [{"name": "netmail"}], "rules": []},
    }

    def of_gateway(name: str) -> Any:
        one = service(externalTrafficPolicy=policy, selector={})
        labels = {"gateway.networking.k8s.io/gateway-name": name}
        return {**one, "metadata": {"name": f"{name}-istio", "labels": labels}}

    both = (of_gateway("netmail"), of_gateway("other"))
    found = judge_services([door(proxy_protocol=True)], objects(*both, routes=[route]))
    (finding,) = [one for one in found if "of Gateway" in one.about]
    assert finding.about == "Service netmail-istio of Gateway netmail"
    assert (finding.level, word in finding.said) == (level, True)


def installation(**settings: Any) -> Installation:
    return parse_config(
        {
            "connection_managers": [{"name": "main", "listen": ["127.0.0.1:7700"]}],
            "messaging_servers": [
                {
                    "name": "mail",
                    "host_name": "mail.example.org",
                    "domains": ["example.org"],
                    "contexts": [{"name": "users"}],
                    "connection_manager": "main",
                    "nmap": {"listen": ["127.0.0.1:7710"]},
                    "smtp": {"listeners": [{"name": "mx", "listen": ["0.0.0.0:2525"]}]},
                    "pop_imap": {
                        "listeners": [
                            {"name": "imap", "protocol": "imap", "listen": ["0.0.0.0:2143"]}
                        ]
                    },
                }
            ],
            **settings,
        }
    )


def test_every_listener_of_the_configuration_is_a_door() -> None:
    assert [(one.name, one.kind, one.port) for one in doors_of(installation())] == [
        ("mx", "smtp", 2525),
        ("imap", "imap", 2143),
    ]


def test_a_sidecar_before_a_listener_is_bad_unless_the_port_is_left_out() -> None:
    annotation = "traffic.sidecar.istio.io/excludeInboundPorts"
    for annotations, levels in (
        ({}, [Level.BAD, Level.GOOD]),
        ({annotation: "2525,2587"}, [Level.GOOD]),
    ):
        one = pod(sidecar="istio-proxy", annotations=annotations)
        found = list(judge_mesh(installation(), [door()], objects(pods=[one])))
        assert [finding.level for finding in found] == levels
    assert found[-1].said == "mutual TLS of the installation's own, inside Istio too"
    (alone,) = judge_mesh(installation(), [door()], objects())
    assert alone.said == "mutual TLS of the installation's own"


def answer(*clients: tuple[bytes, int, str], **fields: Any) -> pb.DescribeAddressesResponse:
    response = pb.DescribeAddressesResponse(**fields)
    listener = response.listeners.add(messaging_server="mail", listener="mx")
    for address, count, standing in clients:
        listener.clients.add(
            client_address=address,
            connections=count,
            grants=standing == "grants",
            standing=standing,
        )
    return response


A, B = b"\xc6\x33\x64\x01", b"\xc0\xa8\x64\x0b"
OWN = "an address of the cluster's own"


@pytest.mark.parametrize(
    ("clients", "level", "said"),
    [
        ([], Level.UNKNOWN, "nobody connected"),
        ([(A, 3, "grants")], Level.GOOD, "3 connections from 1 addresses"),
        ([(A, 300, "grants")], Level.WARNING, "maybe a proxy's"),
        ([(B, 5, OWN)], Level.BAD, "All of them are the cluster's own"),
        ([(A, 3, "grants"), (B, 5, OWN)], Level.WARNING, "5 of them came from the cluster"),
    ],
)
def test_the_addresses_of_the_last_hour_are_judged(
    clients: list[tuple[bytes, int, str]], level: Level, said: str
) -> None:
    (finding,) = judge_addresses([door()], [answer(*clients)])
    assert finding.level is level
    assert said in finding.said
    assert list(finding.clients.values()) == sorted((one[1] for one in clients), reverse=True)


def test_what_was_not_learnt_of_the_cluster_is_said() -> None:
    learnt = pb.DescribeAddressesResponse(learns=True)
    learnt.cluster.add(kind="nodes", networks=["192.0.2.1/32"], count=1)
    learnt.cluster.add(kind="pods", unknown="no podCIDR at node1")
    assert [one.level for one in judge_cluster("main", learnt, in_cluster=True)] == [
        Level.GOOD,
        Level.WARNING,
    ]
    silent = pb.DescribeAddressesResponse()
    (finding,) = judge_cluster("main", silent, in_cluster=True)
    assert "does not learn" in finding.said
    assert not list(judge_cluster("main", silent, in_cluster=False))


def test_a_token_holds_all_that_a_person_outside_needs() -> None:
    targets = [
        Target("192.0.2.1", "mx", "smtp", 25, implicit_tls=False),
        Target("mail.example.org", "imaps", "imap", 993, implicit_tls=True),
    ]
    token = write_token(targets, "probe")
    assert read_token(token) == (targets, "probe")
    for wrong in ("", "x", token[:-4], "bm9uZQ", "ä"):
        with pytest.raises(BadToken):
            read_token(wrong)
