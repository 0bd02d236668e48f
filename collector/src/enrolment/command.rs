//! The commands for branches, mosquitto and backups. They work beside a running collector, which follows within seconds.
#![expect(clippy::print_stdout, reason = "a command speaks on its terminal")]

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use shared::{BranchId, Millis};

use super::authority::Authority;
use super::{desk, mosquitto};
use crate::clock;
use crate::settings::{BrokerChoice, Enrolment, Settings};
use crate::store::{self, Store};

const MINUTE_MS: i64 = 60_000;

/// What can be done with branches.
#[derive(Subcommand)]
pub enum Branch {
    /// Print a code by which one machine becomes this branch's box.
    Add {
        /// The branch's id.
        branch: BranchId,
        /// Adds the branch to the inventory, in this region, if it isn't there.
        #[arg(long)]
        region: Option<BranchId>,
        /// The branch's name, if it isn't in the inventory; its id without this.
        #[arg(long)]
        name: Option<String>,
        /// How long the code works.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=10_080))]
        minutes: i64,
    },
    /// Take a branch's certificates and codes back: its box is heard no more.
    Revoke {
        /// The branch's id.
        branch: BranchId,
    },
    /// List the branches' certificates.
    List,
}

/// Does what was asked with branches.
///
/// # Errors
/// When the file can't be read or written, or the branch isn't there.
pub fn branch(settings: &Settings, what: Branch) -> anyhow::Result<()> {
    let mut store = Store::open(&settings.data_dir)?;
    let now = clock::now();
    match what {
        Branch::Add { branch, region, name, minutes } => {
            let (enrolment, broker_port) = enrolment(settings)?;
            if let Some(why) = desk::reserved(&branch) {
                bail!("{branch}: {why}");
            }
            let authority = Authority::open(&settings.data_dir, now)?;
            let code = store.transaction(|db| {
                if let Some(region) = &region
                    && !store::has_branch(db, branch.as_str())?
                {
                    store::add_branch(db, &branch, name.as_deref().unwrap_or(branch.as_str()), region)?;
                }
                if !store::has_branch(db, branch.as_str())? {
                    return Ok(None);
                }
                store::forget_ended(db, now)?;
                desk::new_code(db, &authority, &enrolment.terms(broker_port), &branch, now, minutes * MINUTE_MS).map(Some)
            })?;
            let Some(code) = code else {
                bail!("the inventory has no branch {branch}: import it, or name its --region");
            };
            println!("On the branch's box, within {minutes} minutes:\n\n    sudo ward-agent join {code}\n");
        }
        Branch::Revoke { branch } => {
            let revoked = store.transaction(|db| {
                store::drop_codes(db, &branch)?;
                store::note(db, now, store::CLI, ("box.revoke", branch.as_str(), "{}"))?;
                store::revoke(db, &branch, now)
            })?;
            anyhow::ensure!(revoked > 0, "branch {branch} has no certificate that counts");
            println!("{revoked} certificates of {branch} are revoked; a running collector shuts its box out within a minute");
        }
        Branch::List => {
            for row in store::certificates(store.connection())? {
                let state = match row.revoked {
                    Some(at) => format!("revoked {}", date(at)),
                    None if row.until <= now => format!("over since {}", date(row.until)),
                    None => format!("until {}", date(row.until)),
                };
                println!("{:<24} {}  {state}", row.branch.to_string(), row.serial);
            }
        }
    }
    Ok(())
}

fn enrolment(settings: &Settings) -> anyhow::Result<(Enrolment, u16)> {
    match (&settings.enrolment, &settings.broker) {
        (Some(enrolment), BrokerChoice::External(broker)) => Ok((enrolment.clone(), broker.port)),
        _ => bail!("boxes can't join: the config has no [enrolment]"),
    }
}

fn date(at: Millis) -> String {
    at.to_string().chars().take(10).collect()
}

/// Prints mosquitto's config.
///
/// # Errors
/// When the collector's config has no enrolment.
pub fn mosquitto_conf(settings: &Settings, folder: Option<PathBuf>) -> anyhow::Result<()> {
    let (_, port) = enrolment(settings)?;
    print!("{}", mosquitto::conf(port, folder.as_deref().unwrap_or(Path::new(mosquitto::FOLDER))));
    Ok(())
}

/// Prints mosquitto's ACL.
pub fn mosquitto_acl() {
    print!("{}", mosquitto::acl());
}

/// Copies what the collector can't do without into a folder that isn't there yet, while it runs.
///
/// # Errors
/// When the folder is there, or something can't be copied.
pub fn backup(settings: &Settings, folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let what = || format!("making {}", folder.display());
    // A backup that is half done must not look like one.
    let fresh = PathBuf::from(format!("{}.part", folder.display()));
    anyhow::ensure!(!folder.exists(), "{} is there already", folder.display());
    let _ = std::fs::remove_dir_all(&fresh);
    std::fs::DirBuilder::new().mode(0o700).create(&fresh).with_context(what)?;
    store::backup(&settings.data_dir, &fresh)?;
    for name in ["authority", "api-token"] {
        copy(&settings.data_dir.join(name), &fresh.join(name))?;
    }
    if let Some(token) = &settings.api.token_file {
        copy(token, &fresh.join("api-token"))?;
    }
    std::fs::rename(&fresh, folder).with_context(what)?;
    println!(
        "{}: the ledger, the authority's keys and the API's token; keep it as safe as the collector itself",
        folder.display()
    );
    Ok(())
}

/// Copies a file or a folder of files with their modes, if it is there.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let what = || format!("copying {}", from.display());
    if from.is_dir() {
        std::fs::create_dir_all(to).with_context(what)?;
        for entry in std::fs::read_dir(from).with_context(what)? {
            let entry = entry.with_context(what)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if from.exists() {
        std::fs::copy(from, to).with_context(what)?;
        std::fs::File::open(to).and_then(|file| file.sync_all()).with_context(what)?;
    }
    Ok(())
}
