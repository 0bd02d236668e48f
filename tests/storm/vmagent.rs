//! vmagent as an anchor: what a core of it takes of the same samples, from a socket to a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ward_tests::Watched;
use ward_tests::process::{Process, free_port};

const PROGRAM: &str = "/usr/bin/vmagent";
/// How long a start may take, and how long the last samples may be on their way.
const START_LIMIT: Duration = Duration::from_secs(20);
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// Samples that it takes and passes on in a second of a core's time; nothing where it isn't installed. `requests` are
/// remote-write requests, with how many samples each holds.
pub(crate) fn samples_a_core(requests: &[(Vec<u8>, u64)]) -> Result<Option<f64>> {
    if !Path::new(PROGRAM).exists() {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let (sink, port) = (TcpListener::bind("127.0.0.1:0")?, free_port("127.0.0.1".parse()?));
    let mut command = Command::new(PROGRAM);
    command.args([
        &format!("-httpListenAddr=127.0.0.1:{port}"),
        &format!("-remoteWrite.url=http://{}/api/v1/write", sink.local_addr()?),
        &format!("-remoteWrite.tmpDataPath={}", folder.path().join("queue").display()),
    ]);
    std::thread::spawn(move || {
        for stream in sink.incoming().flatten() {
            std::thread::spawn(move || swallow(stream));
        }
    });
    let _process = Process::spawn(&mut command, &folder.path().join("vmagent.log"));
    let began = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if began.elapsed() > START_LIMIT => return Err(error).context("vmagent doesn't listen"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let watched = Watched::child("vmagent")?;
    let before = watched.cpu_s()?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for (body, _) in requests {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nhost: vmagent\r\ncontent-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n\
             x-prometheus-remote-write-version: 0.1.0\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let (status, _) = read_message(&mut answers)?.context("vmagent has ended the connection")?;
        ensure!(status.contains(" 204 ") || status.contains(" 200 "), "vmagent: {status}");
    }
    // What it has taken it passes on by and by.
    let pending = |text: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with("vmagent_remotewrite_pending_"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let began = Instant::now();
    loop {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: vmagent\r\n\r\n")?;
        let (_, metrics) = read_message(&mut answers)?.context("vmagent has ended the connection")?;
        if pending(&String::from_utf8_lossy(&metrics)) == 0.0 {
            break;
        }
        ensure!(began.elapsed() < DRAIN_LIMIT, "vmagent doesn't pass on what it has taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    let samples: u64 = requests.iter().map(|(_, samples)| samples).sum();
    Ok(Some(samples as f64 / (watched.cpu_s()? - before)))
}

/// Takes everything and keeps nothing.
fn swallow(stream: TcpStream) -> Result<()> {
    let mut asked = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while read_message(&mut asked)?.is_some() {
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
    Ok(())
}

/// The first line and the body of a message; nothing where the connection ends.
fn read_message(from: &mut impl BufRead) -> Result<Option<(String, Vec<u8>)>> {
    let mut first = String::new();
    if from.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse()?;
        }
        is_chunked |= line == "transfer-encoding: chunked";
    }
    let mut body = Vec::new();
    if !is_chunked {
        from.take(length).read_to_end(&mut body)?;
        return Ok(Some((first, body)));
    }
    loop {
        let mut size = String::new();
        from.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16)?;
        from.take(size).read_to_end(&mut body)?;
        from.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(Some((first, body)));
        }
    }
}
