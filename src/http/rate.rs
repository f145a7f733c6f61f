//! The limit on the requests of each address and of each token (RATE_LIMIT). A request with a token of a client counts
//! twice: for its address, before the token is looked at, and for the token.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State as Extract};
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::problem::Problem;
use super::request::{is_of_node, is_probe};
use crate::config::RateLimit;
use crate::domain::TokenId;
use crate::tokens::Access;

/// The time between two removals of clients that sent no request for a while.
const CLEAN_UP_PERIOD: Duration = Duration::from_secs(10);

/// The address of a connection's client, or of the client behind a trusted proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) SocketAddr);

/// Counts requests by client.
#[derive(Clone, Debug)]
pub(super) struct Limiter(Option<Arc<ClientLimits>>);

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    /// The clients of an address, or of a network in IPv6.
    Address(IpAddr),
    /// The clients that show a token.
    Token(TokenId),
}

#[derive(Debug)]
struct ClientLimits {
    limiter: DefaultKeyedRateLimiter<Counted>,
    cleaned_up: Mutex<Instant>,
}

impl Limiter {
    pub(super) fn new(limit: Option<RateLimit>) -> Self {
        let clients =
            |limit| ClientLimits { limiter: RateLimiter::keyed(quota(limit)), cleaned_up: Mutex::new(Instant::now()) };
        Self(limit.map(clients).map(Arc::new))
    }

    /// The seconds after which a request may come; None for now.
    fn retry_after(&self, counted: Counted) -> Option<u64> {
        let clients = self.0.as_ref()?;
        let mut cleaned_up = clients.cleaned_up.lock();
        if cleaned_up.elapsed() > CLEAN_UP_PERIOD {
            clients.limiter.retain_recent();
            *cleaned_up = Instant::now();
        }
        drop(cleaned_up);
        let early = clients.limiter.check_key(&counted).err()?;
        Some(early.wait_time_from(DefaultClock::default().now()).as_secs() + 1)
    }
}

/// All of a period's requests may come at once.
fn quota(limit: RateLimit) -> Quota {
    let each = (limit.period / limit.requests.get()).max(Duration::from_nanos(1));
    Quota::with_period(each).expect("it is above zero").allow_burst(limit.requests)
}

/// One client of IPv6 has a whole network of addresses.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Refuses a client over its limit. Health probes pass, and so do other nodes, whose own clients are counted there.
pub(super) async fn with_rate(
    Extract(limiter): Extract<Limiter>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    let passes = is_probe(&request) || is_of_node(&request);
    let early = if passes { None } else { limiter.retry_after(Counted::Address(network(client.0.ip()))) };
    match early {
        Some(seconds) => ([(RETRY_AFTER, seconds.to_string())], Problem::rate_limited(client.0.ip())).into_response(),
        None => next.run(request).await,
    }
}

/// Refuses the clients of a token over its limit, wherever the clients are.
pub(super) async fn with_token_rate(
    Extract(limiter): Extract<Limiter>,
    access: Option<Extension<Access>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(token) = access.as_ref().and_then(|access| access.token())
        && let Some(seconds) = limiter.retry_after(Counted::Token(token.id))
    {
        let problem = Problem::rate_limited(format_args!("the token {}", token.name));
        return ([(RETRY_AFTER, seconds.to_string())], problem).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn each_client_has_its_own_share() {
        let limit = RateLimit { requests: NonZeroU32::new(3).unwrap(), period: Duration::from_secs(3600) };
        let limiter = Limiter::new(Some(limit));
        let early = |client: &str| limiter.retry_after(Counted::Address(network(client.parse().unwrap())));
        assert_eq!([early("192.0.2.1"), early("192.0.2.1"), early("::ffff:192.0.2.1")], [None; 3]);
        assert!(early("192.0.2.1").is_some_and(|seconds| (1100..=1201).contains(&seconds)));
        assert_eq!(early("192.0.2.2"), None);
        assert_eq!([early("2001:db8::1"), early("2001:db8::2"), early("2001:db8::3")], [None; 3]);
        assert!(early("2001:db8::4").is_some());
        assert_eq!(early("2001:db8:0:1::1"), None);
        let token = Counted::Token(TokenId::random());
        assert_eq!([token; 3].map(|token| limiter.retry_after(token)), [None; 3]);
        assert!(limiter.retry_after(token).is_some());
        assert_eq!(limiter.retry_after(Counted::Token(TokenId::random())), None);
    }

    #[test]
    fn without_a_limit_all_may_come() {
        let limiter = Limiter::new(None);
        let client = Counted::Address("192.0.2.1".parse().unwrap());
        assert!((0..1000).all(|_| limiter.retry_after(client).is_none()));
    }
}
