//! Whose address counts where proxies stand in front. Pure.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "must be an address or a network, such as 10.0.0.1 or 10.0.0.0/8";
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(wrong)?,
        };
        Ok(Self { address, bits })
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(u32::from(a) ^ u32::from(b)) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => u128::from(a) ^ u128::from(b),
            _ => return false,
        };
        differ.leading_zeros() >= self.bits
    }
}

/// Who asks: `peer`, unless that is a proxy of ours; then whom it names last in `X-Forwarded-For`, and so on from right to
/// left. What stands further left anybody may have written.
pub fn client<'a>(ours: &[Network], peer: IpAddr, forwarded: impl Iterator<Item = &'a [u8]>) -> IpAddr {
    let is_ours = |address: IpAddr| ours.iter().any(|network| network.holds(address));
    let mut client = peer.to_canonical();
    let named: Vec<&[u8]> = forwarded.flat_map(|line| line.split(|byte| *byte == b',')).collect();
    for text in named.into_iter().rev() {
        if !is_ours(client) {
            break;
        }
        let Some(next) = std::str::from_utf8(text).ok().and_then(|text| address(text.trim())) else { break };
        client = next;
    }
    client
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip()).ok();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ours: &str, peer: &str, forwarded: &[&[u8]], expected: &str) {
        let ours: Vec<Network> = ours.split_whitespace().map(|text| text.parse().expect("a network")).collect();
        let found = client(&ours, peer.parse().expect("an address"), forwarded.iter().copied());
        assert_eq!(found.to_string(), expected, "{ours:?} {peer} {forwarded:?}");
    }

    #[test]
    fn whom_our_own_proxy_names_counts_and_nobody_elses_word() {
        check("", "10.0.0.1", &[b"1.2.3.4"], "10.0.0.1");
        check("10.0.0.2", "10.0.0.1", &[b"1.2.3.4"], "10.0.0.1");
        check("10.0.0.1", "10.0.0.1", &[b"1.2.3.4"], "1.2.3.4");
        check("10.0.0.1", "10.0.0.1", &[], "10.0.0.1");
        // The client has written the first one itself.
        check("10.0.0.1", "10.0.0.1", &[b"9.9.9.9, 1.2.3.4"], "1.2.3.4");
        check("10.0.0.1", "10.0.0.1", &[b"9.9.9.9", b"1.2.3.4"], "1.2.3.4");
        // Two proxies.
        check("10.0.0.0/8", "10.0.0.1", &[b"9.9.9.9, 1.2.3.4, 10.7.7.7"], "1.2.3.4");
        check("10.0.0.0/8", "10.0.0.1", &[b"10.1.1.1, 10.7.7.7"], "10.1.1.1");
        // What is no address ends it.
        check("10.0.0.0/8", "10.0.0.1", &[b"1.2.3.4, unknown, 10.7.7.7"], "10.7.7.7");
        check("10.0.0.1", "10.0.0.1", &[b""], "10.0.0.1");
        // What a client writes before it can't hide it.
        check("10.0.0.1", "10.0.0.1", &[b"\xff\xfe, 1.2.3.4"], "1.2.3.4");
        check("10.0.0.1", "10.0.0.1", &[b"1.2.3.4:567"], "1.2.3.4");
        check("fd00::/8 127.0.0.1", "fd12::1", &[b"[2001:db8::1]:443"], "2001:db8::1");
        check("fd00::/8 127.0.0.1", "::ffff:127.0.0.1", &[b"[2001:db8::1]"], "2001:db8::1");
        check("0.0.0.0/0", "10.0.0.1", &[b"1.2.3.4"], "1.2.3.4");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
