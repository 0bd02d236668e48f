//! The commands of `ward-agent`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its terminal")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::Pulses;
use crate::manner::{Kind, Manner, statuses};
use crate::monitor::Outcome;
use crate::names::look_up;
use crate::plan::check_target;
use crate::probe::{Asked, Network, PERMIT_HINT, Prober};
use crate::settings::Settings;
use crate::surroundings::{Routes, carrier};
use crate::update::Present;
use crate::{enrol, guardian, journal, launch, service, shadow, status};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use shared::enrolment::JoinCode;
use shared::message::{Host, Probe, Via, check_address};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Time between two probes of `ward-agent probe`.
const PAUSE: Duration = Duration::from_millis(500);

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
    /// Probe as the running agent does, report nothing, and say at the end what is up and down, as JSON.
    Shadow {
        /// Config file.
        #[arg(long, default_value = "/etc/ward/agent.toml")]
        config: PathBuf,
        /// For how long.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
    },
    /// Say how the agent on this machine is: devices, link, buffer, clock, and what it costs.
    Status {
        /// The agent's config file, which names its state folder.
        #[arg(long, default_value = "/etc/ward/agent.toml")]
        config: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Probe an address and explain what came of it. The words are those of the config.
    Probe {
        /// The address, or a name.
        address: String,
        /// What is asked: icmp, tcp, http, https or dns.
        #[arg(long, default_value = "icmp")]
        kind: Kind,
        /// The port; needed for tcp.
        #[arg(long)]
        port: Option<u16>,
        /// The path of an HTTP request.
        #[arg(long)]
        path: Option<String>,
        /// Which HTTP statuses count as an answer, such as 200-399.
        #[arg(long, value_parser = statuses)]
        status: Option<(u16, u16)>,
        /// The name that a DNS server is asked for; needed for dns.
        #[arg(long)]
        query: Option<String>,
        /// By the way of this address of the machine.
        #[arg(long, conflicts_with = "interface")]
        source: Option<IpAddr>,
        /// By the way of this interface.
        #[arg(long)]
        interface: Option<String>,
        /// How many probes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
        count: u16,
        /// How long a reply may take, in ms.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
        timeout: u64,
    },
    /// Make this machine a branch's box: with a code that `ward-collector branch add` has printed.
    Join {
        /// The code; asked for if it isn't given. It works once.
        code: Option<String>,
        /// The config file that is written.
        #[arg(long, default_value = "/etc/ward/agent.toml")]
        config: PathBuf,
        /// Where the agent keeps its key, its certificate and its buffer.
        #[arg(long, default_value = "/var/lib/ward-agent")]
        state_dir: PathBuf,
        /// Even if this machine has joined before.
        #[arg(long)]
        again: bool,
        /// Don't start the agent.
        #[arg(long)]
        no_start: bool,
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
        Command::Shadow { config, seconds } => shadow(&config, Duration::from_secs(seconds)),
        Command::Check { file } => check(&file),
        Command::Status { config, json } => status(&config, json),
        Command::Join { code, config, state_dir, again, no_start } => join(code, &config, &state_dir, again, !no_start),
        Command::Probe { address, kind, port, path, status, query, source, interface, count, timeout } => {
            let via = source.map(Via::Source).or(interface.map(Via::Interface));
            let manner = Manner::asking(kind, port, path, status, query, via);
            probe(&address, &manner, count, Duration::from_millis(timeout))
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

fn check(file: &Path) -> anyhow::Result<()> {
    let settings = settings(file)?;
    println!("{}: good, branch {}", file.display(), settings.branch);
    Ok(())
}

fn status(config: &Path, json: bool) -> anyhow::Result<()> {
    let report = status::ask(&settings(config)?.state_dir)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", status::table(&report));
    }
    Ok(())
}

fn join(code: Option<String>, config: &Path, state_dir: &Path, again: bool, start: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        again || !config.exists(),
        "{} is there: this machine has joined before. With --again it joins anew",
        config.display()
    );
    let code = match code {
        Some(code) => code,
        None => {
            eprint!("Join code: ");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).context("reading the join code")?;
            line
        }
    };
    let code: JoinCode = code.parse()?;
    let before = settings(config).ok().map(|before| before.branch);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let (grant, key) = runtime.block_on(enrol::join(&code))?;
    enrol::settle(&code, &grant, &key, before.as_ref(), config, state_dir)?;
    println!("this machine speaks for branch {} now; its config is {}", grant.branch, config.display());
    if start && Path::new("/run/systemd/system").exists() {
        let done = std::process::Command::new("systemctl").args(["restart", "ward-agent"]).status().context("systemctl")?;
        anyhow::ensure!(done.success(), "the agent could not be started: see systemctl status ward-agent");
        println!("ward-agent has started; `ward-agent status` shows the branch's devices");
    } else {
        println!("start it: ward-agent run --config {}", config.display());
    }
    Ok(())
}

fn probe(place: &str, manner: &Manner, count: u16, timeout: Duration) -> anyhow::Result<()> {
    let host = place.parse().map_or_else(|_| Host::Name(place.to_owned()), Host::Address);
    if let Host::Address(address) = host {
        check_address(address).map_err(|what| anyhow::anyhow!("{address} {what}"))?;
    }
    let (question, via) = (manner.probe().map_err(anyhow::Error::msg)?, manner.via().cloned());
    check_target(&host, &question, via.as_ref()).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let (address, name) = match host {
        Host::Address(address) => (address, None),
        Host::Name(name) => {
            let address = runtime.block_on(look_up(name.clone())).1.with_context(|| format!("{name} doesn't resolve"))?;
            println!("name       {name} is {address}");
            (address, Some(name.into()))
        }
    };
    let asked = Asked { address, name, probe: question, via };
    say_way(&asked);
    let outcomes = runtime.block_on(async {
        let prober = Network::open().with_context(|| format!("opening an ICMP socket; to permit it: {PERMIT_HINT}"))?;
        if asked.probe == Probe::Icmp {
            println!("socket     {}", prober.kind().explanation());
        }
        let mut outcomes = Vec::new();
        for sequence in 1..=count {
            let outcome = prober.probe(&asked, timeout).await;
            println!("probe {sequence:<4} {}", words(&asked.probe, outcome, timeout));
            outcomes.push(outcome);
            if sequence < count {
                tokio::time::sleep(PAUSE).await;
            }
        }
        anyhow::Ok(outcomes)
    })?;
    let replies = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Reply { .. })).count();
    println!("verdict    {}", verdict(&asked.probe, replies, &outcomes));
    if replies == 0 { Err(anyhow::anyhow!("{place} did not answer")) } else { Ok(()) }
}

/// By which way a target is reached.
fn say_way(asked: &Asked) {
    let routes = Routes::read();
    match routes.interface(asked) {
        Some(interface) => {
            let cable = match carrier(interface) {
                Some(true) => "its cable is in",
                Some(false) => "it has NO CARRIER: the cable is out, or what it leads to is off",
                None => "the kernel doesn't say whether its cable is in",
            };
            println!("way        by {interface}; {cable}");
        }
        None => println!("way        not known"),
    }
    if let Some(gateway) = routes.gateway_beside(asked) {
        println!("gateway    {}", gateway.address);
    }
}

fn words(probe: &Probe, outcome: Outcome, timeout: Duration) -> String {
    let said_no = match probe {
        Probe::Icmp => "a router says that it can't be reached".to_owned(),
        Probe::Tcp { port } => format!("nobody listens at port {port}, or a router says that it can't be reached"),
        Probe::Http { port, status: (first, last), .. } => {
            format!("port {port} is closed, or what answers there isn't HTTP with a status of {first} to {last}")
        }
        Probe::Dns { name, .. } => format!("the server refuses, fails, or knows no {name}"),
    };
    match outcome {
        Outcome::Reply { rtt_us } => format!("answered after {}.{:03} ms", rtt_us / 1_000, rtt_us % 1_000),
        Outcome::Timeout => format!("no answer within {} ms", timeout.as_millis()),
        Outcome::Unreachable => said_no,
        Outcome::SendError => "could not be sent: no route, no permission, or no such way out".to_owned(),
        Outcome::NoAddress => "has no address: its name doesn't resolve".to_owned(),
    }
}

fn verdict(probe: &Probe, replies: usize, outcomes: &[Outcome]) -> &'static str {
    let is_echo = *probe == Probe::Icmp;
    if replies == outcomes.len() {
        "it is up"
    } else if replies > 0 {
        "it answers, but not always: look at the cable, the load, and whether two devices have this address"
    } else if outcomes.iter().all(|outcome| *outcome == Outcome::SendError) {
        "nothing can be said of it: no probe left this machine"
    } else if is_echo {
        "it is down, or doesn't answer ICMP: try from another machine of the branch"
    } else if outcomes.contains(&Outcome::Unreachable) {
        "the service is down; whether the device is there a probe without --kind tells"
    } else {
        "it is down or hangs; whether the device is there a probe without --kind tells"
    }
}

fn shadow(config: &Path, time: Duration) -> anyhow::Result<()> {
    let settings = settings(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let report = runtime.block_on(async {
        let prober = Network::open().with_context(|| format!("opening an ICMP socket; to permit it: {PERMIT_HINT}"))?;
        shadow::run(&settings, Arc::new(prober), time).await
    })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn run(config: &Path) -> anyhow::Result<()> {
    journal::begin("ward-agent", "info");
    let settings = settings(config)?;
    let role = launch::begin(&settings, config)?;
    let restart = role.present.restart.clone();
    if let (Some(enrolment), true) = (&settings.enrolment, role.is_guardian) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
        match runtime.block_on(guardian::run(&settings, enrolment, config)) {
            Ok(ending) => {
                role.ends(&settings);
                return if ending == guardian::Ending::Stopped { Ok(()) } else { Err(role.again()) };
            }
            // A card that takes nothing is no reason for a branch without an agent.
            Err(error) => tracing::error!(error = format!("{error:#}"), "a trial can't go on: this program probes"),
        }
    }
    probe_and_report(settings.clone(), role.present.clone())?;
    role.ends(&settings);
    // A build that is tried has a guardian, which goes on.
    if restart.is_cancelled() && !role.present.is_tried { Err(role.again()) } else { Ok(()) }
}

fn probe_and_report(settings: Settings, present: Present) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let prober = Network::open().with_context(|| format!("opening an ICMP socket; to permit it: {PERMIT_HINT}"))?;
        tracing::info!(branch = %settings.branch, socket = prober.kind().explanation(), "ward-agent begins");
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Only a guardian asks for that, and only of the program that it watches.
        let mut hangup = present.is_tried.then(|| signal(SignalKind::hangup())).transpose()?;
        let (stop, restart) = (shutdown.clone(), present.restart.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => service::ends(),
                _ = interrupt.recv() => service::ends(),
                Some(_) = async { hangup.as_mut()?.recv().await } => restart.cancel(),
            }
            tracing::info!("ward-agent ends");
            stop.cancel();
        });
        let pulses = Pulses::default();
        tokio::spawn(service::report(vec![("watch", pulses.watch.clone()), ("keeper", pulses.keeper.clone())]));
        crate::agent::run(settings, Arc::new(prober), pulses, shutdown, Some(present)).await
    })
}
