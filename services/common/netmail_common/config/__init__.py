"""The one configuration schema of all agents, and the one way to load it."""

from netmail_common.config._base import Address, Duration, NetworkRange, Section
from netmail_common.config._load import (
    ConfigError,
    listener_certificate,
    load_config,
    parse_config,
)
from netmail_common.config.connmgr import ConnectionManagerConfig, LegacyUdpConfig
from netmail_common.config.installation import (
    GrpcConfig,
    HttpConfig,
    Installation,
    LogConfig,
    MessagingServerConfig,
    SinkConfig,
    TlsConfig,
    TracingConfig,
)
from netmail_common.config.nmap import (
    Argon2Config,
    ContextConfig,
    InitialUser,
    NmapConfig,
    QueueConfig,
    StoreConfig,
)
from netmail_common.config.pop_imap import MailListenerConfig, PopImapConfig, PopImapLimits
from netmail_common.config.smtp import (
    DeliverConfig,
    RouteConfig,
    SenderBinding,
    SmtpConfig,
    SmtpLimits,
    SmtpListenerConfig,
    UbeRelayingConfig,
)

__all__ = [
    "Address",
    "Argon2Config",
    "ConfigError",
    "ConnectionManagerConfig",
    "ContextConfig",
    "DeliverConfig",
    "Duration",
    "GrpcConfig",
    "HttpConfig",
    "InitialUser",
    "Installation",
    "LegacyUdpConfig",
    "LogConfig",
    "MailListenerConfig",
    "MessagingServerConfig",
    "NetworkRange",
    "NmapConfig",
    "PopImapConfig",
    "PopImapLimits",
    "QueueConfig",
    "RouteConfig",
    "Section",
    "SenderBinding",
    "SinkConfig",
    "SmtpConfig",
    "SmtpLimits",
    "SmtpListenerConfig",
    "StoreConfig",
    "TlsConfig",
    "TracingConfig",
    "UbeRelayingConfig",
    "listener_certificate",
    "load_config",
    "parse_config",
]
