//! Every target, fed with what ward writes itself, bent and cut, and with what nobody wrote.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ward_fuzz::TARGETS;
use ward_fuzz::memory::Counting;

#[global_allocator]
static MEMORY: Counting = Counting;

/// How often each sample is bent.
const BENT: usize = 40;
/// How many inputs nobody wrote.
const RANDOM: usize = 500;

/// Payloads of every kind with and without their frames, files, and packets.
fn samples() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut samples = Vec::new();
    for file in fs::read_dir(root.join("shared/golden")).expect("the golden files") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("readable");
        for line in text.lines() {
            let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
            let bytes: Vec<u8> = line.trim().as_bytes().chunks(2).map(pair).collect();
            // Version and kind before it, the checksum after it.
            samples.extend(bytes.get(2..bytes.len().saturating_sub(4)).map(<[u8]>::to_vec));
            samples.push(bytes);
        }
    }
    for file in ["systemd/agent.example.toml", "systemd/collector.example.toml"] {
        samples.push(fs::read(root.join(file)).expect("an example"));
    }
    let texts = [
        "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\nvake-atm-1,\"ATM, 1\",vake,V,t,T,atm,10.1.1.1\n",
        "2026-11-23T18:00:00.5+04:00",
        "ward/1/vake/live",
        "id,status,rtt_ms",
        "{ devices(first: 2) { ...d } } fragment d on DevicePage { nodes { id ...e } } fragment e on Device { name }",
        "1795442400000.7.1.42",
        "1h30m",
        "{\"type\":\"watch\",\"devices\":[\"vake-atm-1\"]}",
        "HTTP/1.1 204 No Content\r",
        "collector.bank.example:8884/0123-4567-89AB-CDEF-GHJK-MNPQ-RSTV-WXYZ-0123-4567-89AB-CDEF-GHJK-MNPQ",
    ];
    samples.extend(texts.map(|text| text.as_bytes().to_vec()));
    // An echo reply as a raw socket shows it, one of IPv6, a neighbour as the kernel tells it, and an answer of ARP.
    samples.push([&[0x45; 20][..], &[0, 0, 0, 0, 7, 7, 0, 1], &[9; 56]].concat());
    samples.push([&[129, 0, 0, 0, 7, 7, 0, 1][..], &[9; 56]].concat());
    let head = [52, 0, 0, 0, 28, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 1];
    samples.push([&head[..], &[8, 0, 1, 0, 10, 0, 0, 7], &[10, 0, 2, 0, 2, 0, 0, 0, 0, 7, 0, 0], &[4, 0, 9, 0]].concat());
    samples.push([&[0, 1, 8, 0, 6, 4, 0, 2][..], &[2; 6], &[10, 0, 0, 7], &[4; 6], &[10, 0, 0, 1]].concat());
    samples
}

/// One change of a sample, of a kind that a bad line, a bad card or a bad neighbour makes.
fn bend(sample: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..4) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.random()),
        2 => drop(bytes.drain(at / 2..at)),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.random()),
    }
    bytes
}

#[test]
fn no_decoder_fails_on_bytes_that_are_bent_cut_or_made_up() {
    let samples = samples();
    assert!(samples.len() > 30, "only {} samples", samples.len());
    for (name, target) in TARGETS {
        let seed = rand::random::<u64>();
        #[expect(clippy::print_stderr, reason = "shown where it fails")]
        {
            eprintln!("{name}, seed {seed}");
        }
        let mut random = SmallRng::seed_from_u64(seed);
        for sample in &samples {
            target(sample);
            (0..BENT).for_each(|_| target(&bend(sample, &mut random)));
        }
        for _ in 0..RANDOM {
            let bytes: Vec<u8> = (0..random.random_range(0..200)).map(|_| random.random()).collect();
            target(&bytes);
        }
    }
}
