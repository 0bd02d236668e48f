//! A world of network namespaces: a centre with one bridge, branches behind WAN links, devices behind the branches.
//!
//! The centre is 10.77.0.1; the agent of branch 1 is 10.77.1.2, its devices are 192.168.1.10 and on. Worlds don't see
//! one another, so each has the same addresses.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::{inside, remove_leftovers, run};
use crate::now_ms;

/// Last byte of the first device's address.
const FIRST_DEVICE: u8 = 10;

/// Which groups may open unprivileged ICMP sockets.
const PING_GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

/// Drops echo requests to a silent device. The kernel goes on answering ARP, so that nothing becomes unreachable.
const SILENCE: &str = "\
table inet lab {
  set silent { type ipv4_addr; }
  set silent6 { type ipv6_addr; }
  chain input {
    type filter hook input priority 0;
    icmp type echo-request ip daddr @silent drop;
    icmpv6 type echo-request ip6 daddr @silent6 drop;
  }
}";

/// Drops whatever passes a cut WAN link, as a provider's outage does: nobody is told.
const CUT: &str = "\
table bridge lab {
  set cut { type ifname; }
  chain from { type filter hook prerouting priority 0; iifname @cut drop; }
  chain to { type filter hook postrouting priority 0; oifname @cut drop; }
}";

/// How long a packet may wait before a slow WAN link, in ms.
pub const QUEUE_MS: u32 = 400;

/// IP bytes that a WAN link has carried, headers included, and the few of ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// From the branch to the centre.
    pub up_bytes: u64,
    /// From the centre to the branch.
    pub down_bytes: u64,
}

/// Bytes of a frame that are not the packet's.
const ETHERNET_BYTES: u64 = 14;

/// When something was done to the world: between these two moments.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// UTC in ms just before.
    pub before_ms: i64,
    /// UTC in ms just after.
    pub after_ms: i64,
}

impl Change {
    fn of<T>(change: impl FnOnce() -> T) -> Self {
        let before_ms = now_ms();
        let _ = change();
        Self { before_ms, after_ms: now_ms() }
    }
}

/// The centre's side of all WAN links, for neighbours that need not ask.
const CENTRE_MAC: &str = "02:00:00:00:00:00";

/// A branch's side of its WAN link.
fn branch_mac(b: u8) -> String {
    format!("02:00:00:00:01:{b:02x}")
}

/// One such world. Its namespaces end with it.
pub struct Net {
    name: String,
    branches: u8,
    devices: u8,
}

impl Net {
    /// A world of `branches` with as many devices each, all answering. Branches count from 1, devices from 0.
    pub fn new(branches: u8, devices_per_branch: u8) -> Self {
        assert!(branches <= 250 && devices_per_branch <= 240, "the addresses have one byte for each");
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let name = format!("ward{}x{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let net = Self { name, branches, devices: devices_per_branch };
        let centre = net.centre();
        run("ip", &["netns", "add", &centre], "");
        // Nobody asks for addresses or routers on a WAN link: it carries what agents cost.
        let mut links = format!(
            "link set lo up\nlink add br0 address {CENTRE_MAC} type bridge\nlink set br0 addrgenmode none\n\
             addr add {}/16 dev br0\nlink set br0 up\n",
            Self::CENTRE
        );
        for b in 1..=branches {
            run("ip", &["netns", "add", &net.branch(b)], "");
            run("ip", &["netns", "add", &net.lan(b)], "");
            let _ = writeln!(links, "link add wan{b} type veth peer name wan address {} netns {}", branch_mac(b), net.branch(b));
            let _ = writeln!(links, "link set wan{b} addrgenmode none");
            let _ = writeln!(links, "neigh add 10.77.{b}.2 lladdr {} dev br0 nud permanent", branch_mac(b));
            let _ = writeln!(links, "link set wan{b} master br0 gso_max_segs 1 up");
        }
        run("ip", &["-n", &centre, "-batch", "-"], &links);
        run("ip", &["netns", "exec", &centre, "nft", "-f", "-"], CUT);
        (1..=branches).for_each(|b| net.furnish(b));
        net
    }

    fn furnish(&self, b: u8) {
        let (branch, lan) = (self.branch(b), self.lan(b));
        let links = format!(
            "link set lo up\naddr add 10.77.{b}.2/16 dev wan\nlink set wan addrgenmode none gso_max_segs 1 up\n\
             neigh add {centre} lladdr {CENTRE_MAC} dev wan nud permanent\nlink add lan type veth peer name lan netns {lan}\n\
             addr add 192.168.{b}.1/24 dev lan\nlink set lan up\n",
            centre = Self::CENTRE
        );
        run("ip", &["-n", &branch, "-batch", "-"], &links);
        let mut addresses = "link set lo up\nlink set lan up\n".to_owned();
        for i in 0..self.devices {
            let _ = writeln!(addresses, "addr add {}/24 dev lan", self.address(b, i));
        }
        run("ip", &["-n", &lan, "-batch", "-"], &addresses);
        run("ip", &["netns", "exec", &lan, "nft", "-f", "-"], SILENCE);
        // A new namespace lets nobody open an unprivileged ICMP socket.
        inside(&branch, || fs::write(PING_GROUPS, "0 2147483647")).expect("root may set a namespace's limits");
    }

    /// The centre's address in the eyes of the branches.
    pub const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    /// Runs a test's body at the centre: sockets it opens and programs it starts are there.
    pub fn at_the_centre(&self, body: impl AsyncFnOnce() + Send) {
        inside(&self.centre(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs an epoll and a pipe").block_on(body());
        });
    }

    /// The namespace where the agent of branch `b` runs.
    pub fn branch(&self, b: u8) -> String {
        format!("{}-b{b}", self.name)
    }

    /// The address of device `i` of branch `b`.
    pub fn address(&self, b: u8, i: u8) -> Ipv4Addr {
        assert!((1..=self.branches).contains(&b) && i < self.devices, "there is no device {i} in branch {b}");
        Ipv4Addr::new(192, 168, b, FIRST_DEVICE + i)
    }

    /// How many branches there are.
    pub fn branches(&self) -> u8 {
        self.branches
    }

    /// How many devices each branch has.
    pub fn devices_per_branch(&self) -> u8 {
        self.devices
    }

    /// Makes a device answer no more. It stays reachable: it is silent, as a hung one is.
    pub fn silence(&self, b: u8, i: u8) -> Change {
        self.set(&self.lan(b), "add", "inet lab silent", &self.address(b, i).to_string())
    }

    /// Gives a branch IPv6 beside IPv4: each device has an address, and the agent a gateway that it knows by its link alone.
    pub fn add_ipv6(&self, b: u8) {
        let mut far = "addr add fe80::1/64 dev lan nodad\n".to_owned();
        for i in 0..self.devices {
            let _ = writeln!(far, "addr add {}/64 dev lan nodad", self.address_v6(b, i));
        }
        // A pulled cable would take the devices' addresses away.
        inside(&self.lan(b), || fs::write("/proc/sys/net/ipv6/conf/lan/keep_addr_on_down", "1")).expect("root may set it");
        run("ip", &["-n", &self.lan(b), "-batch", "-"], &far);
        let near = format!("addr add fd77:{b:x}::1/64 dev lan nodad\nroute add default via fe80::1 dev lan\n");
        run("ip", &["-6", "-n", &self.branch(b), "-batch", "-"], &near);
    }

    /// The address of device `i` of branch `b` in IPv6.
    pub fn address_v6(&self, b: u8, i: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, b.into(), 0, 0, 0, 0, 0, self.address(b, i).octets()[3].into())
    }

    /// Makes a device answer no more by IPv6.
    pub fn silence_v6(&self, b: u8, i: u8) -> Change {
        self.set(&self.lan(b), "add", "inet lab silent6", &self.address_v6(b, i).to_string())
    }

    /// Makes it answer again.
    pub fn restore_v6(&self, b: u8, i: u8) -> Change {
        self.set(&self.lan(b), "delete", "inet lab silent6", &self.address_v6(b, i).to_string())
    }

    /// Makes a silenced device answer again.
    pub fn restore(&self, b: u8, i: u8) -> Change {
        self.set(&self.lan(b), "delete", "inet lab silent", &self.address(b, i).to_string())
    }

    /// Unplugs a device: nobody answers for its address any more, not even by ARP.
    pub fn unplug(&self, b: u8, i: u8) -> Change {
        self.at_address("del", b, i)
    }

    /// Plugs it in again.
    pub fn plug(&self, b: u8, i: u8) -> Change {
        self.at_address("add", b, i)
    }

    fn at_address(&self, verb: &str, b: u8, i: u8) -> Change {
        let address = format!("{}/24", self.address(b, i));
        Change::of(|| run("ip", &["-n", &self.lan(b), "addr", verb, &address, "dev", "lan"], ""))
    }

    /// Puts a box into a branch that no inventory knows, at `192.168.b.last`; its address.
    pub fn add_stranger(&self, b: u8, last: u8) -> Ipv4Addr {
        let address = Ipv4Addr::new(192, 168, b, last);
        run("ip", &["-n", &self.lan(b), "addr", "add", &format!("{address}/24"), "dev", "lan"], "");
        address
    }

    /// Lets programs in a branch open raw sockets only, as on a machine whose kernel permits no other.
    pub fn raw_sockets_only(&self, b: u8) {
        inside(&self.branch(b), || fs::write(PING_GROUPS, "1 0")).expect("root may set a namespace's limits");
    }

    /// Gives a branch another line to the world, the interface `name` with the address `172.31.line.2`. At its far end is
    /// `172.31.line.1`, and behind that every address of [`Self::OUTSIDE`].
    pub fn add_line(&self, b: u8, name: &str, line: u8) {
        run("ip", &["netns", "add", &self.provider(b, line)], "");
        self.furnish_line(b, name, line);
    }

    fn furnish_line(&self, b: u8, name: &str, line: u8) {
        let provider = self.provider(b, line);
        let links = format!(
            "link add {name} type veth peer name line netns {provider}\naddr add 172.31.{line}.2/24 dev {name}\nlink set {name} up\n"
        );
        run("ip", &["-n", &self.branch(b), "-batch", "-"], &links);
        let mut far = format!("link set lo up\naddr add 172.31.{line}.1/24 dev line\nlink set line up\n");
        for address in Self::OUTSIDE {
            let _ = writeln!(far, "addr replace {address}/32 dev lo");
        }
        run("ip", &["-n", &provider, "-batch", "-"], &far);
        // What leaves by this line's own address takes this line, and so does what asks for it by name.
        let mut ways =
            format!("rule add from 172.31.{line}.2 lookup {line}\nroute add default via 172.31.{line}.1 table {line}\n");
        for address in Self::OUTSIDE {
            let _ = writeln!(ways, "route add {address} via 172.31.{line}.1 dev {name} metric {line}");
        }
        run("ip", &["-n", &self.branch(b), "-batch", "-"], &ways);
    }

    /// Somewhere behind every line of a provider.
    pub const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

    /// The provider of a line is gone: whatever is sent by it comes to nothing, and nobody is told.
    pub fn line_cut(&self, b: u8, line: u8) -> Change {
        self.at_provider(b, line, "table inet cut { chain input { type filter hook input priority 0; drop; }; }")
    }

    /// It is there again.
    pub fn line_restore(&self, b: u8, line: u8) -> Change {
        self.at_provider(b, line, "delete table inet cut")
    }

    /// The modem of a line has lost its power: the agent's interface loses its carrier.
    pub fn line_off(&self, b: u8, line: u8) -> Change {
        Change::of(|| drop(run("ip", &["-n", &self.provider(b, line), "link", "set", "line", "down"], "")))
    }

    /// It has power again.
    pub fn line_on(&self, b: u8, line: u8) -> Change {
        Change::of(|| drop(run("ip", &["-n", &self.provider(b, line), "link", "set", "line", "up"], "")))
    }

    /// The modem of a line is unplugged: its interface is gone.
    pub fn line_unplug(&self, b: u8, name: &str, line: u8) -> Change {
        Change::of(|| {
            run("ip", &["-n", &self.branch(b), "rule", "del", "lookup", &line.to_string()], "");
            run("ip", &["-n", &self.branch(b), "link", "del", name], "");
        })
    }

    /// It is plugged in again: the same name, and to the kernel another interface.
    pub fn line_plug(&self, b: u8, name: &str, line: u8) -> Change {
        Change::of(|| self.furnish_line(b, name, line))
    }

    fn at_provider(&self, b: u8, line: u8, rules: &str) -> Change {
        Change::of(|| run("ip", &["netns", "exec", &self.provider(b, line), "nft", "-f", "-"], rules))
    }

    /// Puts other boxes at the addresses of a branch's devices: their MAC is another, and the agent's kernel notices at once.
    pub fn swap_boxes(&self, b: u8, mac: &str) -> Change {
        Change::of(|| {
            run("ip", &["-n", &self.lan(b), "link", "set", "lan", "address", mac], "");
            run("ip", &["-n", &self.branch(b), "neigh", "flush", "dev", "lan"], "");
        })
    }

    /// The same, and nobody tells the agent's kernel.
    pub fn swap_boxes_quietly(&self, b: u8, mac: &str) -> Change {
        Change::of(|| drop(run("ip", &["-n", &self.lan(b), "link", "set", "lan", "address", mac], "")))
    }

    /// Puts a second box with that MAC on a branch's LAN, which answers for the address of one of its devices as well.
    pub fn add_twin(&self, b: u8, i: u8, mac: &str) {
        let lan = self.lan(b);
        let links = format!(
            "link add twin link lan address {mac} type macvlan mode bridge\naddr add {}/32 dev twin\nlink set twin up\n",
            self.address(b, i)
        );
        run("ip", &["-n", &lan, "-batch", "-"], &links);
        // It answers for this address alone.
        inside(&lan, || fs::write("/proc/sys/net/ipv4/conf/twin/arp_ignore", "1")).expect("root may set that");
    }

    /// Pulls the cable between a branch's agent and its devices: the agent's interface loses its carrier.
    pub fn lan_cut(&self, b: u8) -> Change {
        Change::of(|| drop(run("ip", &["-n", &self.lan(b), "link", "set", "lan", "down"], "")))
    }

    /// Plugs that cable in again.
    pub fn lan_restore(&self, b: u8) -> Change {
        Change::of(|| drop(run("ip", &["-n", &self.lan(b), "link", "set", "lan", "up"], "")))
    }

    /// Takes a branch's WAN link down: the agent's own interface loses its carrier.
    pub fn wan_cut(&self, b: u8) -> Change {
        Change::of(|| run("ip", &["-n", &self.centre(), "link", "set", &format!("wan{b}"), "down"], ""))
    }

    /// Loses every packet of a branch's WAN link: connections hang.
    pub fn wan_cut_silently(&self, b: u8) -> Change {
        self.set(&self.centre(), "add", "bridge lab cut", &format!("wan{b}"))
    }

    /// Undoes either cut.
    pub fn wan_restore(&self, b: u8) -> Change {
        let wan = format!("wan{b}");
        // Adding what may be there already is no error, deleting what isn't there would be one.
        let commands = format!("add element bridge lab cut {{ {wan} }}\ndelete element bridge lab cut {{ {wan} }}\n");
        Change::of(|| {
            run("ip", &["-n", &self.centre(), "link", "set", &wan, "up"], "");
            run("ip", &["netns", "exec", &self.centre(), "nft", "-f", "-"], &commands);
        })
    }

    /// Lets a branch's WAN link carry so many kbit/s each way, as a modem does: what is sent faster waits up to
    /// [`QUEUE_MS`], and what would wait longer is lost.
    pub fn wan_rate(&self, b: u8, kbit: u32) {
        let (rate, latency) = (format!("{kbit}kbit"), format!("{QUEUE_MS}ms"));
        for (namespace, device) in [(self.centre(), format!("wan{b}")), (self.branch(b), "wan".to_owned())] {
            let shape = ["qdisc", "replace", "dev", &device, "root", "tbf", "rate", &rate, "burst", "2kb", "latency", &latency];
            run("tc", &[&["-n", &namespace][..], &shape[..]].concat(), "");
        }
    }

    /// Lets a branch's WAN link carry whatever comes, again.
    pub fn wan_full_rate(&self, b: u8) {
        run("tc", &["-n", &self.centre(), "qdisc", "del", "dev", &format!("wan{b}"), "root"], "");
        run("tc", &["-n", &self.branch(b), "qdisc", "del", "dev", "wan", "root"], "");
    }

    /// What a branch's WAN link has carried so far.
    pub fn wan_bytes(&self, b: u8) -> Carried {
        let said = run("ip", &["-n", &self.centre(), "-stats", "-json", "link", "show", &format!("wan{b}")], "");
        let links: serde_json::Value = serde_json::from_str(&said).expect("ip writes JSON");
        let bytes = |way: &str| {
            let count = |what: &str| links[0]["stats64"][way][what].as_u64().expect("a link counts packets and bytes");
            count("bytes") - count("packets") * ETHERNET_BYTES
        };
        // What the centre receives has gone up.
        Carried { up_bytes: bytes("rx"), down_bytes: bytes("tx") }
    }

    fn set(&self, namespace: &str, verb: &str, set: &str, element: &str) -> Change {
        let command = format!("{verb} element {set} {{ {element} }}");
        Change::of(|| run("ip", &["netns", "exec", namespace, "nft", &command], ""))
    }

    fn provider(&self, b: u8, line: u8) -> String {
        format!("{}-p{b}-{line}", self.name)
    }

    fn centre(&self) -> String {
        format!("{}-c", self.name)
    }

    /// The namespace where the devices of branch `b` are.
    pub fn lan(&self, b: u8) -> String {
        format!("{}-d{b}", self.name)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let ours = format!("{}-", self.name);
        let namespaces =
            fs::read_dir("/run/netns").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        for namespace in namespaces.filter(|namespace| namespace.starts_with(&ours)) {
            // One that can't be removed stays, and there is nothing else to do about it.
            let _ = Command::new("ip").args(["netns", "del", &namespace]).stderr(Stdio::null()).status();
        }
    }
}
