//! The commands of `ward-agent`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::agent::Pulses;
use crate::probe::{Icmp, PERMIT_HINT};
use crate::settings::Settings;
use crate::{journal, service};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(name = "ward-agent", version, about = "Probes a branch's devices and reports what changed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Probe and report until told to stop.
    Run {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/agent.toml")]
        config: PathBuf,
    },
    /// Name each mistake in a config file; exit 1 if there is any.
    Check {
        /// Config file.
        file: PathBuf,
    },
}

/// What the program understands, for its manual and its completions.
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { config } => run(&config),
        Command::Check { file } => check(&file),
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

fn check(file: &Path) -> anyhow::Result<()> {
    let settings = settings(file)?;
    println!("{}: good, branch {}", file.display(), settings.branch);
    Ok(())
}

fn run(config: &Path) -> anyhow::Result<()> {
    journal::begin("info");
    let settings = settings(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let prober = Icmp::open().with_context(|| format!("opening an ICMP socket; to permit it: {PERMIT_HINT}"))?;
        tracing::info!(branch = %settings.branch, socket = prober.kind().explanation(), "ward-agent begins");
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("ward-agent ends");
            service::ends();
            stop.cancel();
        });
        let pulses = Pulses::default();
        tokio::spawn(service::report(vec![("watch", pulses.watch.clone()), ("keeper", pulses.keeper.clone())]));
        crate::agent::run(settings, Arc::new(prober), pulses, shutdown).await
    })
}
