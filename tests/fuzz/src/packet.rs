//! What comes from the network and from the kernel: answers of devices, and the kernel's tables.

use ward_agent::echo::{Form, SocketKind, Word};
use ward_agent::surroundings::{Neighbours, Routes};
use ward_agent::{arp as ethernet, dial, echo as icmp, netlink as kernel};

use crate::memory::bounded;

/// Most bytes that a reader of a packet may hold beside: it hands on numbers.
const FIXED: usize = 4 * 1024;

pub fn dns(bytes: &[u8]) {
    let question = dial::question(7, "atm.branch.example").expect("a name");
    bounded(bytes.len(), 1, FIXED, || dial::judge(&question, bytes));
    // The same question, and whatever follows.
    let mut ours = [&question, bytes].concat();
    ours[2] |= 0x80;
    assert_eq!(dial::judge(&question, &ours), Some(true));
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Some(asked) = dial::question(7, name)
    {
        assert_eq!(dial::judge(&asked, &asked), None, "a question is no answer");
    }
}

pub fn arp(bytes: &[u8]) {
    if let Some(answer) = bounded(bytes.len(), 1, FIXED, || ethernet::parse(bytes)) {
        assert_ne!(answer.mac, shared::Mac([0; 6]), "nobody answers as nobody");
    }
}

pub fn http(bytes: &[u8]) {
    if let Some(code) = bounded(bytes.len(), 1, FIXED, || dial::parse_status(bytes)) {
        assert!((100..600).contains(&code));
    }
}

pub fn echo(bytes: &[u8]) {
    let identifier = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    for is_v4 in [true, false] {
        for kind in [SocketKind::Raw, SocketKind::Datagram] {
            let form = Form { is_v4, kind, identifier };
            match bounded(bytes.len(), 1, FIXED, || icmp::parse(form, bytes)) {
                Some(Word::Unreachable { target, .. }) => assert_eq!(target.is_ipv4(), is_v4),
                Some(Word::Reply { .. }) | None => {}
            }
        }
    }
}

pub fn netlink(bytes: &[u8]) {
    let (mut routes, mut neighbours) = (Routes::default(), Neighbours::default());
    routes.add(bytes);
    neighbours.add(bytes);
    for kind in [libc::RTM_NEWROUTE, libc::RTM_NEWNEIGH] {
        let mut entries = 0;
        // An error is as good as an end: nothing is believed then.
        let _ = kernel::messages(bytes, kind, |entry| {
            entries += entry.len();
            routes.add(entry);
            neighbours.add(entry);
        });
        assert!(entries <= bytes.len(), "no byte is two entries'");
    }
    for address in
        [[10, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into(), std::net::IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1])]
    {
        let asked = std::net::IpAddr::into(address);
        routes.interface(&asked);
        routes.gateway_beside(&asked);
    }
    assert!(routes.own_networks().all(|(_, prefix)| prefix <= 30));
}
