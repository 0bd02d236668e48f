//! The commands of `ward-collector`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its terminal")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::api::auth::Token;
use crate::api::openapi::describe;
use crate::clock;
use crate::collector::Collector;
use crate::demo::Demo;
use crate::enrolment;
use crate::feed::Notes;
use crate::inventory::{Inventory, parse_csv};
use crate::memory;
use crate::settings::Settings;
use crate::store::{CLI, Store, StoreError, import_by};
use crate::updates;
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use ward_agent::{journal, service};

#[derive(Parser)]
#[command(name = "ward-collector", version, about = "Keeps the ledger of a fleet's devices and answers for it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Collect and answer until told to stop.
    Run {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/collector.toml")]
        config: PathBuf,
    },
    /// Name each mistake in a config file; exit 1 if there is any.
    Check {
        /// Config file.
        file: PathBuf,
    },
    /// Take an inventory over from a CSV, as a whole or not at all. A running collector follows.
    Import {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/collector.toml")]
        config: PathBuf,
        /// The CSV.
        file: PathBuf,
    },
    /// Join codes and certificates of branches.
    Branch {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/collector.toml", global = true)]
        config: PathBuf,
        #[command(subcommand)]
        what: enrolment::command::Branch,
    },
    /// Builds of the agent: stage one, offer it, see what the boxes run.
    Update {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/collector.toml", global = true)]
        config: PathBuf,
        #[command(subcommand)]
        what: updates::command::Update,
    },
    /// Print the ACL that holds each branch to its own topics.
    MosquittoAcl,
    /// Print mosquitto's config. A running collector keeps it, with certificates, in the folder `mosquitto` of its data.
    MosquittoConf {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/collector.toml")]
        config: PathBuf,
        /// Where mosquitto reads certificates and the ACL.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Copy the ledger, the authority's keys and the API's token into a new folder, while the collector runs.
    Backup {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/collector.toml")]
        config: PathBuf,
        /// The folder, which must not be there yet.
        folder: PathBuf,
    },
    /// Show everything in one process: nothing to install, an estate under real ICMP, faults by a script.
    Demo {
        /// Where the page and the API listen.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// API token for scripts; without it the demo makes one.
        #[arg(long)]
        token: Option<String>,
        /// Another estate than the demo's own: a CSV as for `import`.
        #[arg(long)]
        estate: Option<PathBuf>,
        /// Changes of devices in a second, beside the story's: for measuring.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=2_000))]
        churn: u32,
    },
    /// Print the API's description in OpenAPI.
    Openapi,
}

/// What the program understands, for its manual and its completions.
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { config } => run(&config),
        Command::Check { file } => settings(&file).map(|_| println!("{}: good", file.display())),
        Command::Import { config, file } => import(&config, &file),
        Command::Branch { config, what } => settings(&config).and_then(|settings| enrolment::command::branch(&settings, what)),
        Command::Update { config, what } => settings(&config).and_then(|settings| updates::command::update(&settings, what)),
        Command::MosquittoAcl => {
            enrolment::command::mosquitto_acl();
            Ok(())
        }
        Command::MosquittoConf { config, folder } => {
            settings(&config).and_then(|settings| enrolment::command::mosquitto_conf(&settings, folder))
        }
        Command::Backup { config, folder } => {
            settings(&config).and_then(|settings| enrolment::command::backup(&settings, &folder))
        }
        Command::Demo { listen, token, estate, churn } => demo(listen, token.as_deref(), estate.as_deref(), churn),
        Command::Openapi => {
            println!("{:#}", describe());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(file: &Path) -> anyhow::Result<Settings> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let text = shared::settings::text(&file.display().to_string(), bytes)?;
    Ok(Settings::parse(&file.display().to_string(), &text)?)
}

fn begin(quiet: &str) -> anyhow::Result<tokio::runtime::Runtime> {
    memory::set_up();
    journal::begin("ward-collector", quiet);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        service::ends();
        stop.cancel();
    });
    Ok(shutdown)
}

fn run(config: &Path) -> anyhow::Result<()> {
    let settings = settings(config)?;
    // The embedded broker logs each connection at INFO.
    begin("info,rumqttd=warn")?.block_on(async {
        let shutdown = stop_on_signal()?;
        let collector = Collector::bind(settings, None, Notes::default()).await?;
        tracing::info!(api = %collector.address()?, "ward-collector begins");
        let pulses = collector.pulses();
        tokio::spawn(service::report(vec![("ledger", pulses.ledger), ("api", pulses.api)]));
        collector.run(shutdown).await?;
        tracing::info!("ward-collector has ended");
        Ok(())
    })
}

/// An estate; each mistake in it is named.
fn inventory(file: &Path) -> anyhow::Result<Inventory> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let text = shared::settings::text(&file.display().to_string(), bytes)?;
    parse_csv(&file.display().to_string(), &text).map_err(|errors| {
        errors.first.iter().for_each(|error| eprintln!("{error}"));
        anyhow::anyhow!("nothing was imported; mistakes: {}", errors.total)
    })
}

fn import(config: &Path, file: &Path) -> anyhow::Result<()> {
    let settings = settings(config)?;
    let inventory = inventory(file)?;
    // A bar on a terminal, plain lines elsewhere.
    let bar = indicatif::ProgressBar::new(inventory.devices.len() as u64);
    if bar.is_hidden() {
        eprintln!("importing {} devices", inventory.devices.len());
    }
    let mut store = Store::open(&settings.data_dir)?;
    let imported =
        store.transaction(|db| import_by(db, CLI, &inventory, clock::now(), &mut |done| bar.set_position(done as u64)));
    bar.finish_and_clear();
    let changed = match imported {
        Ok(changed) => changed,
        Err(error @ StoreError::Taken { index, .. }) => {
            let line = inventory.lines.get(index).copied().unwrap_or_default();
            anyhow::bail!("{}:{line}: ip: {error}: nothing was imported", file.display());
        }
        Err(error) => return Err(error).with_context(|| format!("{}: nothing was imported", file.display())),
    };
    println!(
        "{} devices added, {} changed, {} as before; {} others are not in the file and stay",
        changed.added, changed.updated, changed.unchanged, changed.not_in_file
    );
    Ok(())
}

fn demo(listen: SocketAddr, token: Option<&str>, estate: Option<&Path>, churn: u32) -> anyhow::Result<()> {
    let token = token.map(Token::chosen).transpose()?;
    anyhow::ensure!(
        listen.ip().is_loopback(),
        "{listen} is not on loopback: the demo's token would cross the network in the clear"
    );
    let inventory = match estate {
        Some(file) => inventory(file)?,
        None => crate::demo::estate(),
    };
    begin("warn,ward_agent=error,ward_collector=warn,rumqttd=off")?.block_on(async {
        let shutdown = stop_on_signal()?;
        let demo = Demo::prepare(listen, token, inventory, churn).await?;
        println!("ward's demo is running. Open this link:\n\n    {}\n", demo.link()?);
        demo.story().iter().for_each(|note| println!("  - {note}"));
        println!("\nCtrl-C ends it.");
        demo.run(shutdown).await
    })
}
