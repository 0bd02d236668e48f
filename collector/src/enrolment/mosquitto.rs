//! What mosquitto needs: its config, the ACL that holds each branch to its own topics, certificates, and what was taken back.

use std::path::Path;

use anyhow::Context;
use shared::wire::PACKET_LIMIT_BYTES;
use shared::{Lane, Millis, topic};

use super::authority::{Authority, COLLECTOR, write_secret};
use crate::store::CertificateRow;

/// Where `ward-mosquitto.service` copies the files to.
pub const FOLDER: &str = "/etc/mosquitto/ward";

/// The ACL: the collector may do all, a branch only what is its own. `%u` is the common name of the client's certificate.
pub fn acl() -> String {
    let mut text = format!("# Written by ward-collector mosquitto-acl.\nuser {COLLECTOR}\ntopic readwrite {}/#\n\n", topic::ROOT);
    for lane in Lane::ALL {
        let may = match lane {
            Lane::Up | Lane::Live | Lane::Presence | Lane::Answer => "write",
            Lane::Ack | Lane::Config | Lane::Ask => "read",
        };
        text += &format!("pattern {may} {}/%u/{}\n", topic::ROOT, lane.as_str());
    }
    text
}

/// The config of a listener for agents and the collector.
pub fn conf(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "# Written by ward-collector mosquitto-conf.
listener {port}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/crl.pem
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
# The common name is the client's id, too: nobody takes another's place.
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/ward.acl
max_packet_size {PACKET_LIMIT_BYTES}
"
    )
}

/// Writes what is the same for as long as the collector runs; the list of what was taken back comes last, by [`write_list`].
///
/// # Errors
/// When a file can't be written.
pub fn write_files(authority: &Authority, folder: &Path, host: &str, port: u16, now: Millis) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let broker = authority.server(host, now)?;
    write_secret(&folder.join("ca.pem"), authority.certificate_pem().as_bytes())?;
    write_secret(&folder.join("broker.pem"), broker.chain_pem.as_bytes())?;
    write_secret(&folder.join("broker.key"), broker.key_pem.as_bytes())?;
    write_secret(&folder.join("ward.acl"), acl().as_bytes())?;
    write_secret(&folder.join("ward.conf"), conf(port, Path::new(FOLDER)).as_bytes())
}

/// Writes the list of certificates that were taken back. A path unit waits for it.
///
/// # Errors
/// When it can't be written.
pub fn write_list(authority: &Authority, folder: &Path, rows: &[CertificateRow], now: Millis) -> anyhow::Result<()> {
    write_secret(&folder.join("crl.pem"), authority.revoked(rows, now)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acl_names_each_lane_once_and_no_branch_may_write_what_it_reads() {
        let acl = acl();
        for lane in Lane::ALL {
            assert_eq!(acl.matches(&format!("/%u/{}\n", lane.as_str())).count(), 1, "{lane:?}");
        }
        assert!(!acl.contains("pattern readwrite") && acl.contains("pattern read ward/1/%u/config\n"));
        assert!(acl.contains("user collector\ntopic readwrite ward/1/#\n"));
    }
}
