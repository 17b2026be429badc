//! Names of merchants' hosts, resolved to addresses that are allowed, and to no other: what is connected to is the
//! very address that was checked.
//!
//! DNS is asked from here and not through the system's `getaddrinfo`, which holds a thread of few until it gives up by
//! itself: names whose servers keep silent would hold up every merchant's webhooks.

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

/// Two tries of this length end before a usual `connect_timeout`.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers are kept for as long as they say, up to this.
const MAX_POSITIVE_TTL: Duration = Duration::from_secs(300);
/// That there is nothing is soon asked again: a merchant may be setting up its name.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);
const MAX_CACHED_ANSWERS: u64 = 1024;
/// A name with very many records is tried at so many of them.
const MAX_ADDRESSES: usize = 16;

impl CheckedResolver {
    /// Asks these servers, or where there are none those of `/etc/resolv.conf`, or a local one, as the system does.
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
            // As it stands: a search list is for people who type, and leads into the network that we are in.
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

/// The very addresses that are connected to, one after another.
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
