//! Resolves merchants' hosts to allowed addresses. The worker connects to the very address that was checked.
//!
//! The worker sends DNS queries itself. The system's `getaddrinfo` blocks one of few threads until it gives up, so names with
//! silent servers would delay every merchant's webhooks.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

use super::address::{AddressError, AddressPolicy};
use crate::http_client::{BoxError, Resolve};

#[derive(Clone)]
pub(super) struct CheckedResolver {
    policy: Arc<AddressPolicy>,
    dns: TokioResolver,
}

/// The timeout of a query. Two of them fit into a usual `connect_timeout`.
const PATIENCE: Duration = Duration::from_secs(2);
/// The maximum time for which an answer is cached.
const MAX_POSITIVE_TTL: Duration = Duration::from_mins(5);
/// The maximum time for which a negative answer is cached. It is short, because a merchant may be setting up its name.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);
const MAX_CACHED_ANSWERS: u64 = 1024;
/// The maximum number of addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

impl CheckedResolver {
    /// Creates a resolver with these servers. Without any it uses those of `/etc/resolv.conf`, or a local one.
    pub(super) fn new(policy: AddressPolicy, servers: &[SocketAddr]) -> Result<Self, NetError> {
        let mut builder = match TokioResolver::builder_tokio() {
            Ok(system) if servers.is_empty() => system,
            _ => TokioResolver::builder_with_config(asking(servers), TokioRuntimeProvider::default()),
        };
        let options = builder.options_mut();
        (options.timeout, options.attempts) = (PATIENCE, 1);
        (options.cache_size, options.positive_max_ttl) = (MAX_CACHED_ANSWERS, Some(MAX_POSITIVE_TTL));
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        Ok(Self { policy: Arc::new(policy), dns: builder.build()? })
    }
}

fn asking(servers: &[SocketAddr]) -> ResolverConfig {
    let local = [SocketAddr::from((Ipv4Addr::LOCALHOST, 53))];
    let servers = if servers.is_empty() { &local } else { servers };
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    ResolverConfig::from_name_servers(servers.collect())
}

impl Resolve for CheckedResolver {
    fn resolve(&self, host: String) -> BoxFuture<'static, Result<Vec<SocketAddr>, BoxError>> {
        let Self { policy, dns } = self.clone();
        Box::pin(async move {
            // Absolute, because a search list would lead into the worker's own network.
            let absolute = format!("{}.", host.trim_end_matches('.'));
            let found = dns.lookup_ip(absolute).await?;
            let allowed = allowed(&policy, &host, found.iter());
            if allowed.is_empty() {
                return Err(AddressError::NoPublicAddress.into());
            }
            Ok(allowed)
        })
    }
}

/// Returns the allowed addresses, to which the worker connects in this order.
fn allowed(policy: &AddressPolicy, host: &str, found: impl Iterator<Item = IpAddr>) -> Vec<SocketAddr> {
    let anywhere = policy.allows_host(host);
    let allowed = found.filter(|address| anywhere || policy.allows(*address));
    allowed.take(MAX_ADDRESSES).map(|address| SocketAddr::from((address, 0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_addresses_few_are_tried() {
        let inside = (0..1000_u16).map(|n| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
        let outside = (0..100).map(|n| IpAddr::from([93, 184, 215, n]));
        let allowed = allowed(&AddressPolicy::default(), "merchant.example", inside.chain(outside));
        assert_eq!(allowed.len(), MAX_ADDRESSES);
        assert_eq!(allowed[0], SocketAddr::from(([93, 184, 215, 0], 0)));
    }
}
