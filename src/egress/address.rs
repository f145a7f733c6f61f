//! Which addresses a connection may go to. Pure.
//!
//! An address is judged after its name is resolved, so a name that leads to a special address changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// What a connection may reach beside the addresses of the Internet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach<'a> {
    /// EGRESS_PRIVATE.
    pub(super) private: &'a [IpNet],
    /// Whether a rule that allows the destination is an exact name or a range.
    pub(super) is_exact: bool,
}

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Whatever the operator allows.
    #[error("the address is {0}, which no function reaches")]
    Never(&'static str),
    /// EGRESS_PRIVATE lists no range with the address.
    #[error("the address is {0}, and no range of EGRESS_PRIVATE holds the address")]
    Unlisted(&'static str),
    /// The function's rule is a pattern or `*`.
    #[error("the address is {0}, which only a rule with an exact name or a range reaches")]
    Inexact(&'static str),
}

const UNSPECIFIED: &str = "unspecified";
const LOOPBACK: &str = "loopback";
const PRIVATE: &str = "private";
const LINK_LOCAL: &str = "link-local";
const DOCUMENTATION: &str = "for documentation";
const RESERVED: &str = "reserved";
const OWN: &str = "of this machine";
const MULTICAST: &str = "multicast";
const METADATA: &str = "metadata of a cloud";

/// The special addresses of IPv4, <https://www.iana.org/assignments/iana-ipv4-special-registry>.
const SPECIAL_V4: [(Ipv4Net, &str); 17] = [
    (v4([0, 0, 0, 0], 8), "of this network"),
    (v4([10, 0, 0, 0], 8), PRIVATE),
    (v4([100, 64, 0, 0], 10), "shared by carriers"),
    (v4([127, 0, 0, 0], 8), LOOPBACK),
    (v4([169, 254, 0, 0], 16), LINK_LOCAL),
    (v4([172, 16, 0, 0], 12), PRIVATE),
    (v4([192, 0, 0, 0], 24), RESERVED),
    (v4([192, 0, 2, 0], 24), DOCUMENTATION),
    (v4([192, 31, 196, 0], 24), RESERVED),
    (v4([192, 52, 193, 0], 24), RESERVED),
    (v4([192, 88, 99, 0], 24), RESERVED),
    (v4([192, 168, 0, 0], 16), PRIVATE),
    (v4([192, 175, 48, 0], 24), RESERVED),
    (v4([198, 18, 0, 0], 15), "for benchmarks"),
    (v4([198, 51, 100, 0], 24), DOCUMENTATION),
    (v4([203, 0, 113, 0], 24), DOCUMENTATION),
    (v4([240, 0, 0, 0], 4), RESERVED),
];

/// The special addresses of IPv6, <https://www.iana.org/assignments/iana-ipv6-special-registry>.
const SPECIAL_V6: [(Ipv6Net, &str); 16] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), LOOPBACK),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "IPv4 mapped to IPv6"),
    (NAT64, "a translation to IPv4"),
    (LOCAL_NAT64, "a translation to IPv4"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discarded"),
    (TEREDO, "a tunnel of Teredo"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), RESERVED),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), DOCUMENTATION),
    (SIX_TO_FOUR, "a tunnel of 6to4"),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), RESERVED),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), DOCUMENTATION),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "of a segment"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), PRIVATE),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "of a site"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4 in an old form of IPv6"),
];

/// All other addresses of IPv6 outside this range are special, too.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const LOCAL_NAT64: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

/// Where clouds tell a machine its own secrets.
const METADATA_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(169, 254, 42, 42),
    Ipv4Addr::new(169, 254, 0, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// Whether a connection may go to an address. An address that stands for another is judged like both. `is_own` tells
/// the addresses of this machine, which are special like loopback: firewalls keep no connection from there.
pub(super) fn judge(address: IpAddr, reach: Reach<'_>, is_own: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let meanings = meanings(address);
    if let Some(kind) = meanings.iter().copied().find_map(never) {
        return Err(Refusal::Never(kind));
    }
    for address in meanings {
        match special(address).or_else(|| is_own(address).then_some(OWN)) {
            Some(kind) if !reach.is_exact => return Err(Refusal::Inexact(kind)),
            Some(kind) if !reach.private.iter().any(|range| range.contains(&address)) => {
                return Err(Refusal::Unlisted(kind));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// The addresses of IPv4 for which an address may stand, and the address itself at the end.
pub(super) fn meanings(address: IpAddr) -> Vec<IpAddr> {
    let inner = match address {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(address) => inner(address),
    };
    inner.into_iter().map(IpAddr::V4).chain([address]).collect()
}

/// The kind of an address that is never reached.
fn never(address: IpAddr) -> Option<&'static str> {
    let is_metadata = match address {
        IpAddr::V4(address) => METADATA_V4.contains(&address),
        IpAddr::V6(address) => METADATA_V6.contains(&address),
    };
    match address {
        _ if is_metadata => Some(METADATA),
        _ if address.is_unspecified() => Some(UNSPECIFIED),
        _ if address.is_multicast() => Some(MULTICAST),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("for broadcasts"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The kind of a special address.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => SPECIAL_V4.iter().find(|(range, _)| range.contains(&address)).map(|(_, kind)| *kind),
        IpAddr::V6(address) => {
            let known = SPECIAL_V6.iter().find(|(range, _)| range.contains(&address)).map(|(_, kind)| *kind);
            known.or((!GLOBAL_V6.contains(&address)).then_some(RESERVED))
        }
    }
}

/// The addresses of IPv4 for which an address of IPv6 may stand.
fn inner(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bytes = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| bytes[place]));
    let last = at([12, 13, 14, 15]);
    if SIX_TO_FOUR.contains(&address) {
        return vec![at([2, 3, 4, 5])];
    }
    if TEREDO.contains(&address) {
        // The server, and the client with all bits turned.
        return vec![at([4, 5, 6, 7]), Ipv4Addr::from_bits(!last.to_bits())];
    }
    if LOCAL_NAT64.contains(&address) {
        // The prefix of a translator has any of these lengths (RFC 6052). What begins with zero is no address, but the
        // rest of another form.
        let forms = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]].map(at);
        return forms.into_iter().filter(|form| form.octets()[0] != 0).collect();
    }
    // Mapped, translated (SIIT), compatible. Below the last stand `::` and `::1`, which are no forms of IPv4.
    let is_like_v4 = matches!(address.segments(), [0, 0, 0, 0, 0, 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _])
        || matches!(address.segments(), [0, 0, 0, 0, 0, 0, high, _] if high != 0);
    if is_like_v4 || NAT64.contains(&address) { vec![last] } else { Vec::new() }
}

#[cfg(test)]
mod tests;
