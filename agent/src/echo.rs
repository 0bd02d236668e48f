//! ICMP echo for any number of targets: one socket a family and way out, no task a probe, replies read in batches.
//!
//! surge-ping opens and binds the sockets. Its own reader hands out the first packet with the right number, shows no payload,
//! and takes its times when it gets round to it; with one wake-up a packet that is what a probe costs. So replies are read
//! here: some at a time, dated by the kernel, and believed only when source, identifier, number and nonce are those of a
//! probe that waits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::message::Via;
use socket2::{SockFilter, Socket};
use surge_ping::{AsyncSocket, ICMP};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::clock;
use crate::monitor::Outcome;
use crate::probe::{GRACE, Late};

/// Bytes of the payload after the nonce and the run's mark, as much as ping(8) sends in all.
const FILLING: [u8; 40] = *b"ward echo: if you read this, it works.  ";
/// Bytes after the ICMP header.
const PAYLOAD_BYTES: usize = 16 + FILLING.len();
/// Bytes of an ICMP header.
const HEAD_BYTES: usize = 8;
/// Room for packets that wait to be read or sent, in bytes. The kernel's default holds 256 replies.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Packets that are read with one call.
const BATCH: usize = 64;
/// Most bytes of a packet that are looked at: what a router quotes of ours fits in.
const PACKET_BYTES: usize = 256;
/// Time between two looks at the sockets while somebody waits, in ms. The kernel dates replies, so a later look costs no accuracy.
const LOOK_MS: u64 = 50;
/// The same while so many wait that their replies may not find room.
const BUSY_LOOK_MS: u64 = 5;
/// So many.
const CROWD: usize = 100;
/// The same after some looks in vain: what is still waited for is slow or dead.
const SLOW_LOOK_MS: u64 = 100;
/// Looks in vain after which looks become slow.
const VAIN_LOOKS: u32 = 10;
/// How long a probe waits for room in the socket before it tries again.
const ROOM_WAIT: Duration = Duration::from_millis(10);

/// How the machine lets us send ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A datagram socket, permitted by `net.ipv4.ping_group_range`.
    Datagram,
    /// A raw socket, permitted by `CAP_NET_RAW`.
    Raw,
}

impl SocketKind {
    /// The kind and what permits it, for the log.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Datagram => "datagram socket, permitted by net.ipv4.ping_group_range",
            Self::Raw => "raw socket, permitted by CAP_NET_RAW",
        }
    }
}

/// Echo requests of one family by one way out.
pub struct Echo {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

struct Shared {
    socket: Socket,
    form: Form,
    /// Tells this run's requests from those of every other.
    mark: u64,
    state: Mutex<State>,
    /// Somebody waits again.
    wanted: Notify,
    strays: AtomicU64,
    drops: AtomicU64,
}

/// How packets look on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// They are of ICMP, else of ICMPv6.
    pub is_v4: bool,
    /// A raw socket shows more of them.
    pub kind: SocketKind,
    /// On a raw socket every process sees every reply: the identifier tells two agents on one host apart. On a datagram
    /// socket the kernel gives one out and sees to that.
    pub identifier: u16,
}

struct State {
    waiting: HashMap<(IpAddr, u16), Waiting>,
    /// The number of the next request.
    next: u16,
    /// When the kernel was last seen to have dropped packets, by the monotonic clock in ns.
    dropped_at: Option<u64>,
    room: Box<Room>,
}

struct Waiting {
    nonce: u64,
    /// By the monotonic clock, in ns.
    sent: u64,
    outcome: oneshot::Sender<Heard>,
}

/// What a waiting probe is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// The reply, with its round trip in ns.
    Reply(u64),
    /// Word that the target can't be reached.
    Unreachable,
}

/// A packet that is about one of our requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Its reply.
    Reply {
        /// The request's number.
        number: u16,
        /// The mark of the run that it carries.
        mark: u64,
        /// The nonce that it carries.
        nonce: u64,
    },
    /// Somebody says that a request came to nothing.
    Unreachable {
        /// To whom it was sent.
        target: IpAddr,
        /// Its number.
        number: u16,
    },
}

impl Echo {
    /// Opens a socket.
    ///
    /// # Errors
    /// When neither a datagram nor a raw socket is permitted, or the way out can't be taken.
    pub fn open(is_v4: bool, via: Option<&Via>) -> io::Result<Self> {
        Self::open_as(is_v4, via, None)
    }

    /// Opens a socket whose requests may take so many hops.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_ttl(is_v4: bool, via: Option<&Via>, ttl: u8) -> io::Result<Self> {
        Self::open_as(is_v4, via, Some(ttl))
    }

    fn open_as(is_v4: bool, via: Option<&Via>, ttl: Option<u8>) -> io::Result<Self> {
        let family = if is_v4 { ICMP::V4 } else { ICMP::V6 };
        let config = surge_ping::Config::builder().kind(family);
        let config = match ttl {
            None => config,
            Some(ttl) => config.ttl(ttl.into()),
        };
        let config = match via {
            None => config,
            Some(Via::Source(address)) => config.bind(SocketAddr::new(*address, 0)),
            Some(Via::Interface(name)) => config.interface(name),
        };
        let opened = AsyncSocket::new(&config.build())?;
        let kind = if opened.get_type() == socket2::Type::RAW { SocketKind::Raw } else { SocketKind::Datagram };
        // The descriptor belongs to `opened`, which outlives this borrow.
        #[expect(unsafe_code, reason = "surge-ping exposes its socket only as a number")]
        let borrowed = unsafe { BorrowedFd::borrow_raw(opened.get_native_sock()) };
        // A copy of our own: the runtime watches surge-ping's, and would wake up for each packet.
        let socket = Socket::from(borrowed.try_clone_to_owned()?);
        drop(opened);
        let form = Form { is_v4, kind, identifier: rand::random() };
        prepare(&socket, form)?;
        let state = State { waiting: HashMap::new(), next: rand::random(), dropped_at: None, room: Box::default() };
        let shared = Arc::new(Shared {
            socket,
            form,
            mark: rand::random(),
            state: Mutex::new(state),
            wanted: Notify::new(),
            strays: AtomicU64::new(0),
            drops: AtomicU64::new(0),
        });
        let reader = tokio::spawn(read(Arc::clone(&shared)));
        Ok(Self { shared, reader })
    }

    /// Which kind of socket the machine permitted.
    pub fn kind(&self) -> SocketKind {
        self.shared.form.kind
    }

    /// Replies since the start that the kernel dropped for want of room.
    pub fn drops(&self) -> u64 {
        self.shared.drops.load(Ordering::Relaxed)
    }

    /// Replies since the start that answer no probe: too late, twice, or not what was sent.
    pub fn strays(&self) -> u64 {
        self.shared.strays.load(Ordering::Relaxed)
    }

    /// Sends one request and waits for its reply.
    pub async fn probe(&self, address: IpAddr, timeout: Duration) -> Outcome {
        self.ask(address, timeout).await.0
    }

    /// The same; where none came in time, with what tells of one that comes late.
    pub async fn ask(&self, address: IpAddr, timeout: Duration) -> (Outcome, Option<Late>) {
        let shared = &self.shared;
        let (mut ticket, mut heard) = Ticket::new(shared, address);
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            match shared.send(&ticket) {
                Ok(sent) => {
                    ticket.sent = sent;
                    break;
                }
                Err(error) if is_full(&error) && tokio::time::Instant::now() + ROOM_WAIT < deadline => {
                    tokio::time::sleep(ROOM_WAIT).await;
                }
                Err(error) => {
                    tracing::trace!(%address, %error, "a probe could not be sent");
                    return (Outcome::SendError, None);
                }
            }
        }
        shared.wanted.notify_one();
        let told = match tokio::time::timeout(timeout, &mut heard).await {
            Ok(told) => told.ok(),
            Err(_) => {
                // It may lie in the socket since before: a program that comes late must not make a device silent.
                shared.look();
                heard.try_recv().ok()
            }
        };
        match told {
            Some(Heard::Reply(ns)) if u128::from(ns) <= timeout.as_nanos() => (Outcome::Reply { rtt_us: whole_us(ns) }, None),
            Some(Heard::Reply(ns)) => (Outcome::Timeout, Some(Box::pin(std::future::ready(Some(whole_us(ns)))))),
            Some(Heard::Unreachable) => (Outcome::Unreachable, None),
            // What the kernel dropped may have been the reply: nothing is known.
            None if shared.lock().dropped_at.is_some_and(|at| at >= ticket.sent) => (Outcome::SendError, None),
            None => (Outcome::Timeout, Some(Box::pin(late(ticket, heard)))),
        }
    }
}

fn whole_us(ns: u64) -> u32 {
    u32::try_from(ns.div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// Waits on for a reply that is too late to count.
async fn late(_ticket: Ticket, heard: oneshot::Receiver<Heard>) -> Option<u32> {
    match tokio::time::timeout(GRACE, heard).await {
        Ok(Ok(Heard::Reply(ns))) => Some(whole_us(ns)),
        Ok(Ok(Heard::Unreachable) | Err(_)) | Err(_) => None,
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A probe's place among those that wait; it is given up with this.
struct Ticket {
    shared: Arc<Shared>,
    address: IpAddr,
    number: u16,
    nonce: u64,
    sent: u64,
}

impl Ticket {
    fn new(shared: &Arc<Shared>, address: IpAddr) -> (Self, oneshot::Receiver<Heard>) {
        let (outcome, heard) = oneshot::channel();
        let nonce = rand::random();
        let mut state = shared.lock();
        // Two probes of one target may be under way, for a verdict and for a witness: each has a number of its own.
        let mut number = state.next;
        while state.waiting.contains_key(&(address, number)) {
            number = number.wrapping_add(1);
        }
        state.next = number.wrapping_add(1);
        state.waiting.insert((address, number), Waiting { nonce, sent: 0, outcome });
        drop(state);
        (Self { shared: Arc::clone(shared), address, number, nonce, sent: 0 }, heard)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&(self.address, self.number));
    }
}

/// Reads while somebody waits.
async fn read(shared: Arc<Shared>) {
    let mut in_vain = 0;
    loop {
        if shared.lock().waiting.is_empty() {
            // What came meanwhile is late: it is counted with the next look.
            shared.wanted.notified().await;
            in_vain = 0;
        }
        let wait = match shared.lock().waiting.len() {
            CROWD.. => BUSY_LOOK_MS,
            _ if in_vain < VAIN_LOOKS => LOOK_MS,
            _ => SLOW_LOOK_MS,
        };
        tokio::select! {
            () = tokio::time::sleep(clock::until_tick(wait)) => {}
            // Somebody waits whose reply may be quick.
            () = shared.wanted.notified(), if in_vain >= VAIN_LOOKS => {
                in_vain = 0;
                continue;
            }
        }
        in_vain = if shared.look() == 0 { in_vain + 1 } else { 0 };
    }
}

/// Whether a packet found no room on its way out.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request; when, by the monotonic clock in ns.
    fn send(&self, ticket: &Ticket) -> io::Result<u64> {
        let packet = request(self.form, ticket.number, self.mark, ticket.nonce);
        let to = SocketAddr::new(ticket.address, 0).into();
        let sent = clock::monotonic_ns();
        // Before it is sent: on loopback the reply is there when the call returns.
        if let Some(waiting) = self.lock().waiting.get_mut(&(ticket.address, ticket.number)) {
            waiting.sent = sent;
        }
        self.socket.send_to(&packet, &to)?;
        Ok(sent)
    }

    /// Takes in what lies in the socket; how many packets that were.
    fn look(&self) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let mut packets = 0;
        loop {
            let got = state.room.fill(self.socket.as_raw_fd());
            let now = clock::Instants::now();
            for at in 0..got {
                let (source, packet, stamp) = state.room.packet(at);
                if !hand_over(&mut state.waiting, self.form, self.mark, source, packet, &|sent| now.elapsed_ns(sent, stamp)) {
                    self.strays.fetch_add(1, Ordering::Relaxed);
                }
            }
            packets += got;
            if got < BATCH {
                break;
            }
        }
        let dropped = drops(self.socket.as_raw_fd());
        if self.drops.swap(dropped, Ordering::Relaxed) != dropped {
            state.dropped_at = Some(clock::monotonic_ns());
        }
        packets
    }
}

/// Hands a packet to the probe that it is about; whether there is one, or it is nobody's business.
fn hand_over(
    waiting: &mut HashMap<(IpAddr, u16), Waiting>,
    form: Form,
    mark: u64,
    source: Option<IpAddr>,
    packet: &[u8],
    elapsed_ns: &dyn Fn(u64) -> u64,
) -> bool {
    let (Some(word), Some(source)) = (parse(form, packet), source) else { return true };
    match word {
        Word::Reply { number, mark: told, nonce } => {
            let key = (source, number);
            if told != mark || waiting.get(&key).is_none_or(|waiting| waiting.nonce != nonce || waiting.sent == 0) {
                return false;
            }
            let Some(waiting) = waiting.remove(&key) else { return false };
            // Whoever waited may have gone.
            let _ = waiting.outcome.send(Heard::Reply(elapsed_ns(waiting.sent)));
            true
        }
        Word::Unreachable { target, number } => {
            let Some(waiting) = waiting.remove(&(target, number)) else { return false };
            let _ = waiting.outcome.send(Heard::Unreachable);
            true
        }
    }
}

/// An echo request.
fn request(form: Form, number: u16, mark: u64, nonce: u64) -> [u8; HEAD_BYTES + PAYLOAD_BYTES] {
    // RFC 792 and RFC 4443.
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REQUEST_V6: u8 = 128;
    let mut packet = [0; HEAD_BYTES + PAYLOAD_BYTES];
    packet[0] = if form.is_v4 { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    packet[4..6].copy_from_slice(&form.identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    packet[8..16].copy_from_slice(&mark.to_be_bytes());
    packet[16..24].copy_from_slice(&nonce.to_be_bytes());
    packet[24..].copy_from_slice(&FILLING);
    if form.is_v4 {
        // The kernel sees to that of ICMPv6, which covers addresses that only it knows.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum & 0xffff).unwrap_or(0)
}

/// What a packet says of one of our requests; nothing where it is about something else.
pub fn parse(form: Form, packet: &[u8]) -> Option<Word> {
    const REPLY: u8 = 0;
    const UNREACHABLE: u8 = 3;
    const REPLY_V6: u8 = 129;
    const UNREACHABLE_V6: u8 = 1;
    // A raw socket of IPv4 shows the IP header as well.
    let icmp = if form.is_v4 && form.kind == SocketKind::Raw { packet.get(ip_head_bytes(packet)?..)? } else { packet };
    let short = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let is_ours = |id: u16| form.kind == SocketKind::Datagram || id == form.identifier;
    match (form.is_v4, *icmp.first()?) {
        (true, REPLY) | (false, REPLY_V6) => {
            let long = |at: usize| Some(u64::from_be_bytes(icmp.get(at..at + 8)?.try_into().ok()?));
            is_ours(short(icmp, 4)?).then_some(())?;
            // One that is too short to carry what was sent is no answer to it.
            Some(Word::Reply { number: short(icmp, 6)?, mark: long(8).unwrap_or(0), nonce: long(16).unwrap_or(0) })
        }
        (true, UNREACHABLE) => {
            let quoted = icmp.get(HEAD_BYTES..)?;
            let target: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
            let ours = quoted.get(ip_head_bytes(quoted)?..)?;
            (*ours.first()? == 8 && is_ours(short(ours, 4)?)).then_some(())?;
            Some(Word::Unreachable { target: Ipv4Addr::from(target).into(), number: short(ours, 6)? })
        }
        (false, UNREACHABLE_V6) => {
            let quoted = icmp.get(HEAD_BYTES..)?;
            let target: [u8; 16] = quoted.get(24..40)?.try_into().ok()?;
            let ours = quoted.get(40..)?;
            (*ours.first()? == 128 && is_ours(short(ours, 4)?)).then_some(())?;
            Some(Word::Unreachable { target: Ipv6Addr::from(target).into(), number: short(ours, 6)? })
        }
        (true | false, _) => None,
    }
}

fn ip_head_bytes(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4).filter(|bytes| *bytes >= 20)
}

/// Buffers, filters and times of a socket.
fn prepare(socket: &Socket, form: Form) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
    if form.kind == SocketKind::Raw {
        if form.is_v4 {
            // Everything but echo replies and word of unreachable targets.
            const ICMP_FILTER: i32 = 1;
            set_option(socket, libc::SOL_RAW, ICMP_FILTER, &!(1u32 | 1 << 3))?;
            socket.attach_filter(&of_identifier(form.identifier))?;
        } else {
            const ICMPV6_FILTER: i32 = 1;
            let mut blocked = [u32::MAX; 8];
            blocked[0] &= !(1 << 1);
            blocked[129 / 32] &= !(1 << (129 % 32));
            set_option(socket, libc::SOL_ICMPV6, ICMPV6_FILTER, &blocked)?;
        }
    }
    Ok(())
}

/// A filter that drops echo replies of IPv4 to other programs: each would wake nobody up, and take the room of ours.
fn of_identifier(identifier: u16) -> [SockFilter; 7] {
    let code = |code: u32, k: u32| SockFilter::new(u16::try_from(code).unwrap_or(0), 0, 0, k);
    let is = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap_or(0);
    let jump = |k: u32, yes, no| SockFilter::new(is, yes, no, k);
    [
        // The length of the IP header, then the type after it.
        code(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0),
        code(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0),
        jump(0, 0, 2),
        code(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 4),
        jump(identifier.into(), 0, 1),
        code(libc::BPF_RET | libc::BPF_K, u32::MAX),
        code(libc::BPF_RET | libc::BPF_K, 0),
    ]
}

fn set_option<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the descriptor is open, and `value` points to `size` bytes that the kernel only reads.
    #[expect(unsafe_code, reason = "no safe wrapper sets these options")]
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Packets that the kernel has dropped since a socket was opened, for want of room.
fn drops(socket: RawFd) -> u64 {
    const SO_MEMINFO: i32 = 55;
    const DROPS: usize = 8;
    let mut told = [0u32; 9];
    let mut size = libc::socklen_t::try_from(size_of_val(&told)).unwrap_or(0);
    // SAFETY: the kernel writes at most `size` bytes, which is what `told` has.
    #[expect(unsafe_code, reason = "no safe wrapper reads this option")]
    let done = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, SO_MEMINFO, told.as_mut_ptr().cast(), &raw mut size) };
    if done == 0 { told[DROPS].into() } else { 0 }
}

/// Where the kernel writes packets with their senders and times.
struct Room {
    packets: [[u8; PACKET_BYTES]; BATCH],
    lengths: [usize; BATCH],
    sources: [libc::sockaddr_storage; BATCH],
    controls: [Control; BATCH],
}

/// Room for one time of arrival, aligned as its header has to be.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; 64]);

impl Default for Room {
    fn default() -> Self {
        // SAFETY: zeroes are a valid socket address, of no family.
        #[expect(unsafe_code, reason = "the C type has no other constructor")]
        let source: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Self {
            packets: [[0; PACKET_BYTES]; BATCH],
            lengths: [0; BATCH],
            sources: [source; BATCH],
            controls: [Control([0; 64]); BATCH],
        }
    }
}

impl Room {
    /// Reads what lies in the socket; how many packets that were.
    fn fill(&mut self, socket: RawFd) -> usize {
        // SAFETY: zeroes are valid headers that point to nothing; each is then pointed to room of its own, which outlives the
        // call, with its true size.
        #[expect(unsafe_code, reason = "no safe wrapper reads many packets with their times")]
        unsafe {
            let mut parts: [libc::iovec; BATCH] = std::mem::zeroed();
            let mut heads: [libc::mmsghdr; BATCH] = std::mem::zeroed();
            for at in 0..BATCH {
                parts[at] = libc::iovec { iov_base: self.packets[at].as_mut_ptr().cast(), iov_len: PACKET_BYTES };
                let head = &mut heads[at].msg_hdr;
                head.msg_name = (&raw mut self.sources[at]).cast();
                head.msg_namelen = u32::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
                head.msg_iov = &raw mut parts[at];
                head.msg_iovlen = 1;
                head.msg_control = self.controls[at].0.as_mut_ptr().cast();
                head.msg_controllen = self.controls[at].0.len() as _;
            }
            let flags = libc::MSG_DONTWAIT as _;
            let got = libc::recvmmsg(socket, heads.as_mut_ptr(), BATCH as u32, flags, std::ptr::null_mut());
            let got = usize::try_from(got).unwrap_or(0);
            for (at, head) in heads.iter().take(got).enumerate() {
                self.lengths[at] = (head.msg_len as usize).min(PACKET_BYTES);
                if head.msg_hdr.msg_controllen == 0 {
                    self.controls[at].0.fill(0);
                }
            }
            got
        }
    }

    /// A packet that was read: from whom, what, and when it arrived by the machine's clock in ns, where the kernel says so.
    fn packet(&self, at: usize) -> (Option<IpAddr>, &[u8], Option<u64>) {
        (address(&self.sources[at]), &self.packets[at][..self.lengths[at]], self.controls[at].stamp())
    }
}

impl Control {
    /// The time of arrival. What else there may be is not asked for, so it stands first.
    fn stamp(&self) -> Option<u64> {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let head = HEAD.next_multiple_of(size_of::<usize>());
        let word = |at: usize| Some(usize::from_ne_bytes(self.0.get(at..at + size_of::<usize>())?.try_into().ok()?));
        let int = |at: usize| Some(i32::from_ne_bytes(self.0.get(at..at + 4)?.try_into().ok()?));
        let (level, kind) = (int(size_of::<usize>())?, int(size_of::<usize>() + 4)?);
        if word(0)? < head || (level, kind) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            return None;
        }
        let (seconds, ns) = (word(head)?, word(head + size_of::<usize>())?);
        Some(u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.saturating_add(u64::try_from(ns).ok()?))
    }
}

fn address(source: &libc::sockaddr_storage) -> Option<IpAddr> {
    // SAFETY: the family says which of the two the kernel has written, and both fit into the storage.
    #[expect(unsafe_code, reason = "the C types are told apart by their family")]
    unsafe {
        match i32::from(source.ss_family) {
            libc::AF_INET => {
                let v4 = &*std::ptr::from_ref(source).cast::<libc::sockaddr_in>();
                Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*std::ptr::from_ref(source).cast::<libc::sockaddr_in6>();
                Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RAW: Form = Form { is_v4: true, kind: SocketKind::Raw, identifier: 0x1234 };
    const DATAGRAM: Form = Form { kind: SocketKind::Datagram, ..RAW };
    const V6: Form = Form { is_v4: false, ..RAW };

    /// What a target makes of a request: it sends everything back.
    fn reply(form: Form, number: u16, mark: u64, nonce: u64) -> Vec<u8> {
        let mut packet = request(form, number, mark, nonce).to_vec();
        packet[0] = if form.is_v4 { 0 } else { 129 };
        if form.is_v4 && form.kind == SocketKind::Raw {
            let mut head = vec![0; 20];
            head[0] = 0x45;
            head.extend(packet);
            return head;
        }
        packet
    }

    /// A router's word that a request to 10.0.0.9 came to nothing.
    fn unreachable(number: u16, identifier: u16) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet.extend([3, 1, 0, 0, 0, 0, 0, 0]);
        let mut quoted = vec![0; 24];
        (quoted[0], quoted[16], quoted[19]) = (0x46, 10, 9);
        quoted.extend(request(Form { identifier, ..RAW }, number, 1, 2));
        packet.extend(quoted);
        packet
    }

    #[test]
    fn a_request_is_what_the_standard_says() {
        let packet = request(RAW, 7, 8, 9);
        assert_eq!((packet[0], packet[1], checksum(&packet)), (8, 0, 0), "its sum is right");
        assert_eq!(packet.len(), 64, "as long as that of ping(8)");
    }

    #[test]
    fn a_reply_counts_only_with_source_identifier_number_mark_and_nonce() {
        let target: IpAddr = [10, 0, 0, 1].into();
        let check = |form: Form, source: IpAddr, packet: &[u8]| {
            let (outcome, mut heard) = oneshot::channel();
            let mut waiting = HashMap::from([((target, 7), Waiting { nonce: 9, sent: 1, outcome })]);
            let is_known = hand_over(&mut waiting, form, 8, Some(source), packet, &|_| 42);
            (is_known, heard.try_recv().ok())
        };
        for form in [RAW, DATAGRAM, V6] {
            assert_eq!(check(form, target, &reply(form, 7, 8, 9)), (true, Some(Heard::Reply(42))), "{form:?}");
            assert_eq!(check(form, [10, 0, 0, 2].into(), &reply(form, 7, 8, 9)), (false, None), "another source");
            assert_eq!(check(form, target, &reply(form, 6, 8, 9)), (false, None), "an earlier number");
            assert_eq!(check(form, target, &reply(form, 7, 1, 9)), (false, None), "another run");
            assert_eq!(check(form, target, &reply(form, 7, 8, 1)), (false, None), "another nonce");
            let whole = reply(form, 7, 8, 9);
            assert_eq!(check(form, target, &whole[..whole.len() - 48]), (false, None), "cut short");
        }
        let other = Form { identifier: 1, ..RAW };
        assert_eq!(check(RAW, target, &reply(other, 7, 8, 9)), (true, None), "somebody else's");
        assert_eq!(check(RAW, target, &[]), (true, None));
    }

    #[test]
    fn a_second_reply_is_a_stray() {
        let target: IpAddr = [10, 0, 0, 1].into();
        let (outcome, _heard) = oneshot::channel();
        let mut waiting = HashMap::from([((target, 7), Waiting { nonce: 9, sent: 1, outcome })]);
        let packet = reply(RAW, 7, 8, 9);
        let mut take = || hand_over(&mut waiting, RAW, 8, Some(target), &packet, &|_| 42);
        assert_eq!((take(), take()), (true, false));
    }

    #[test]
    fn a_routers_word_is_about_the_target_that_it_quotes() {
        let target: IpAddr = [10, 0, 0, 9].into();
        assert_eq!(parse(RAW, &unreachable(7, 0x1234)), Some(Word::Unreachable { target, number: 7 }));
        assert_eq!(parse(RAW, &unreachable(7, 1)), None);
        for len in 0..unreachable(7, 0x1234).len() {
            let _ = parse(RAW, &unreachable(7, 0x1234)[..len]);
        }
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(packet in prop::collection::vec(any::<u8>(), 0..PACKET_BYTES)) {
            for form in [RAW, DATAGRAM, V6] {
                let _ = parse(form, &packet);
            }
        }
    }

    #[tokio::test]
    async fn this_machine_answers_itself_within_what_the_kernel_says() {
        for (is_v4, address) in [(true, IpAddr::from([127, 1, 2, 3])), (false, Ipv6Addr::LOCALHOST.into())] {
            let echo = Echo::open(is_v4, None).expect("the tests need an ICMP socket: run them as root, or permit it");
            let probe = || echo.probe(address, Duration::from_secs(2));
            let mut fastest_us = u32::MAX;
            for _ in 0..10 {
                let outcome = probe().await;
                let Outcome::Reply { rtt_us } = outcome else { panic!("{address}: {outcome:?}") };
                fastest_us = fastest_us.min(rtt_us);
            }
            // Sooner than a look: it isn't the reader's time that counts. A busy machine may hold some of them up.
            assert!((1..20_000).contains(&fastest_us), "{fastest_us} µs");
            let both = futures_util::future::join(probe(), probe()).await;
            assert!(matches!(both, (Outcome::Reply { .. }, Outcome::Reply { .. })), "{both:?}");
            assert_eq!((echo.drops(), echo.strays()), (0, 0));
        }
    }

    #[tokio::test]
    async fn a_reply_that_comes_after_its_time_does_not_count_and_is_told_all_the_same() {
        let echo = Echo::open(true, None).expect("the tests need an ICMP socket: run them as root, or permit it");
        let (outcome, late) = echo.ask([127, 1, 2, 3].into(), Duration::ZERO).await;
        assert_eq!(outcome, Outcome::Timeout);
        let rtt_us = late.expect("it may yet come").await;
        assert!(rtt_us.is_some_and(|rtt_us| rtt_us > 0), "{rtt_us:?}");
        assert_eq!((echo.strays(), echo.shared.lock().waiting.len()), (0, 0));
    }

    #[tokio::test]
    async fn many_replies_at_once_all_arrive() {
        let echo = Echo::open(true, None).expect("the tests need an ICMP socket: run them as root, or permit it");
        let all = (0..200u8).map(|last| echo.probe([127, 0, 1, last].into(), Duration::from_secs(2)));
        let outcomes = futures_util::future::join_all(all).await;
        let replies = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Reply { .. })).count();
        assert_eq!((replies, echo.drops()), (200, 0));
    }

    #[tokio::test]
    async fn what_the_kernel_dropped_makes_no_device_silent() {
        let echo = Echo::open(true, None).expect("the tests need an ICMP socket: run them as root, or permit it");
        echo.shared.socket.set_recv_buffer_size(1).expect("smaller is always permitted");
        // Sent without a look in between, so that the replies don't fit.
        let all = (0..200u8).map(|last| echo.probe([127, 0, 1, last].into(), Duration::from_millis(200)));
        let outcomes = futures_util::future::join_all(all).await;
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
        assert_eq!(count(|outcome| *outcome == Outcome::Timeout), 0);
        assert!(count(|outcome| *outcome == Outcome::SendError) > 100 && echo.drops() > 100, "{} dropped", echo.drops());
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_no_answer() {
        let echo = Echo::open(true, None).expect("the tests need an ICMP socket: run them as root, or permit it");
        // The kernel refuses to send to everybody, which says nothing of a device.
        assert_eq!(echo.probe([255; 4].into(), Duration::from_millis(50)).await, Outcome::SendError);
        assert!(echo.shared.lock().waiting.is_empty());
    }
}
