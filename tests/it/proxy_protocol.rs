//! Clients whose address a proxy sends before TLS or HTTP (PROXY protocol, version 2).
