"""A Connection Manager that goes on with another configuration."""

from dataclasses import dataclass, replace

from netmail_common.config import Installation
from netmail_common.networks import AddressRules

from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.grpc_service import ConnectionManagerService
from netmail_connmgr.app.abuse import AbuseProtection
from netmail_connmgr.app.addresses import SharedAddresses
from netmail_connmgr.app.connections import ConnectionRules, check_rules
from netmail_connmgr.app.front_ends import FrontEnds, prepare

__all__ = ["LiveManager"]


@dataclass(frozen=True, slots=True)
class LiveManager:
    """The parts of a Connection Manager that a configuration says something to.

    Attributes:
        name: its name.
        service: answers agents.
        shared: what is known of addresses.
        connections: the rules about connections.
        abuse: what counts failed logins and mail.
        front_ends: in this process; None: workers serve them.
    """

    name: str
    service: ConnectionManagerService
    shared: SharedAddresses
    connections: ConnectionRules
    abuse: AbuseProtection
    front_ends: FrontEnds | None

    async def use(self, installation: Installation) -> None:
        """Goes on with a configuration.

        Raises: ConfigError; nothing has changed then, unless it says that a front end's address
        cannot be had.
        """
        config = installation.connection_manager(self.name)
        configured = AddressRules.of_installation(installation, self.name)
        rules = self._with_what_is_learnt(configured)
        check_rules(config, rules)
        setup = FrontEndSetup(installation, self.name, rules, self.service.desk)
        prepare(setup)
        self.shared.configure(configured)
        self.connections.use(config, rules)
        self.abuse.use(installation, config)
        self.service.go_on_with(
            login_lifetime=config.login_lifetime,
            max_users_per_network=config.max_users_per_network,
        )
        if self.front_ends is not None:
            await self.front_ends.use(setup)

    def _with_what_is_learnt(self, rules: AddressRules) -> AddressRules:
        known = self.shared.rules
        return replace(
            rules,
            own_addresses=known.own_addresses,
            cluster_networks=known.cluster_networks,
        )
