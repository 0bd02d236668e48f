//! Tables of the kernel, asked for over netlink: no permission is needed for that.

use std::io::{self, Read};

use netlink_packet_core::{
    Emitable, NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NlasIterator,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of a message's own header.
const HEADER_BYTES: usize = 16;
/// Bytes of what precedes the attributes of a route or a neighbour.
pub const HEAD_BYTES: usize = 12;
/// Room for what the kernel hands out at once, in bytes: it hands out no more.
const ROOM_BYTES: usize = 32 * 1024;
/// Most entries of a table that are read: a kernel keeps fewer neighbours, and a box in a branch is no router of the world.
const ENTRIES_LIMIT: usize = 100_000;

/// Reads a table: `request` asks for it, and each entry that comes as a message of the kind `entry` is handed on without
/// the message's header.
///
/// # Errors
/// When the kernel can't be asked, refuses, or says less or more than a whole table.
pub fn table(request: u16, entry: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    // The kernel has an answer ready when a call returns: this never waits.
    socket.set_nonblocking(true)?;
    socket.send(&question(request))?;
    let mut room = vec![0; ROOM_BYTES];
    let mut entries = 0;
    loop {
        let got = (&socket).read(&mut room)?;
        let is_whole = messages(&room[..got], entry, |payload| {
            entries += 1;
            each(payload);
        })?;
        if is_whole {
            return Ok(());
        }
        if got == 0 || entries > ENTRIES_LIMIT {
            return Err(io::Error::other("the kernel's table has no end"));
        }
    }
}

/// A request for a whole table, of all families.
fn question(request: u16) -> [u8; HEADER_BYTES + HEAD_BYTES] {
    let mut bytes = [0; HEADER_BYTES + HEAD_BYTES];
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(bytes.len()).unwrap_or(0);
    header.message_type = request;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.emit(&mut bytes);
    bytes
}

/// Hands the entries of a datagram on; whether the table ends with it.
///
/// # Errors
/// When the kernel says that it failed, or what lies there is no message.
pub fn messages(datagram: &[u8], entry: u16, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest).map_err(|_| io::ErrorKind::InvalidData)?;
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = message.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            kind if kind == entry => each(message.payload()),
            _ => {}
        }
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// The value of an attribute.
pub fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(attributes).map_while(Result::ok).find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..length)
}

/// A number of four bytes, in the machine's order.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this kind.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(HEADER_BYTES + payload.len()).expect("short");
        header.message_type = kind;
        let mut bytes = vec![0; HEADER_BYTES];
        header.emit(&mut bytes);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn entries(datagram: &[u8]) -> (Vec<Vec<u8>>, io::Result<bool>) {
        let mut entries = Vec::new();
        let end = messages(datagram, 28, |payload| entries.push(payload.to_vec()));
        (entries, end)
    }

    #[test]
    fn a_table_comes_in_parts_and_says_where_it_ends() {
        let part = [message(28, b"one"), message(24, b"another table's"), message(28, b"two")].concat();
        let (found, end) = entries(&part);
        assert_eq!((found, end.expect("well-formed")), (vec![b"one".to_vec(), b"two".to_vec()], false));
        let (found, end) = entries(&[message(28, b"three"), message(NLMSG_DONE, &[0; 4]), message(28, b"later")].concat());
        assert_eq!((found, end.expect("well-formed")), (vec![b"three".to_vec()], true));
        let refused = entries(&message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes())).1;
        assert_eq!(refused.expect_err("it is an error").raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn what_is_cut_off_or_says_a_wrong_length_is_no_message() {
        let whole = message(28, b"an entry");
        for len in 1..whole.len() {
            let (found, end) = entries(&whole[..len]);
            assert!(found.is_empty() && end.is_err(), "{len} bytes");
        }
        for length in [0u32, 1, 15, u32::MAX] {
            let mut bent = whole.clone();
            bent[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(entries(&bent).1.is_err(), "{length}");
        }
    }

    #[test]
    fn an_attribute_is_found_behind_others_and_not_behind_what_is_broken() {
        let attributes = [5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 2, 0, 1, 2, 3, 4];
        assert_eq!((attribute(&attributes, 1), attribute(&attributes, 2)), (Some(&[7][..]), Some(&[1, 2, 3, 4][..])));
        assert_eq!(attribute(&attributes, 3), None);
        assert_eq!(attribute(&[&[3, 0, 1, 0][..], &attributes].concat(), 2), None);
        assert_eq!(attribute(&attributes[..15], 2), None);
    }
}
