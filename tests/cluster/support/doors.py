"""Where clients outside connect to: one address and port for each public listener."""

from dataclasses import dataclass

from tests.cluster.support.release import Release

_STANDARD = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995,
             "imap": 143, "imaps": 993}  # fmt: skip
_SMTP = ("smtp", "submission", "submissions")
_COMPONENTS = ("smtp", "pop-imap")

Door = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Doors:
    """The listeners that clients use, by the names of the ports."""

    smtp: Door
    submission: Door
    submissions: Door
    pop3: Door
    pop3s: Door
    imap: Door
    imaps: Door

    @classmethod
    def of(cls, release: Release) -> "Doors":
        """The load balancers of the public Services."""
        return cls(**{
            name: (release.address(component), port)
            for component in _COMPONENTS
            for name, port in _ports(release, component, "port").items()
        })  # fmt: skip

    @classmethod
    def at_nodes(cls, release: Release) -> "Doors":
        """The nodes' own addresses: for each Service a node that has one of its pods."""
        return cls(**{
            name: (_node(release, component), port)
            for component in _COMPONENTS
            for name, port in _ports(release, component, "nodePort").items()
        })  # fmt: skip

    @classmethod
    def at_hosts(cls, release: Release) -> "Doors":
        """The nodes' own addresses and the standard ports, as host ports have it."""
        nodes = {component: _node(release, component) for component in _COMPONENTS}
        return cls(**{
            name: (nodes["smtp" if name in _SMTP else "pop-imap"], port)
            for name, port in _STANDARD.items()
        })  # fmt: skip

    @classmethod
    def at(cls, address: str) -> "Doors":
        """Everything on one address, with the standard ports."""
        return cls(**{name: (address, port) for name, port in _STANDARD.items()})


def _node(release: Release, component: str) -> str:
    """The address of a node that has one of the component's pods."""
    name = release.ready_pods(component)[0].node
    addresses = release.get("node", name)["status"]["addresses"]
    return next(str(one["address"]) for one in addresses if one["type"] == "InternalIP")


def _ports(release: Release, component: str, key: str) -> dict[str, int]:
    ports = release.get("service", f"{release.name}-{component}")["spec"]["ports"]
    return {port["name"]: port[key] for port in ports}
