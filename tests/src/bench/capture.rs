//! How fast captures of packets are replayed.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::time::{Duration, Instant};

use agent_monitor::commands::replay::replay;
use anyhow::{Result, ensure};

use super::Extent;
use super::judge::{Estimate, Row};

/// Bytes of the capture that is replayed.
const SIZE: usize = 200_000_000;
/// Connections at a time.
const CONNECTIONS: u32 = 64;
/// What each downloads: segments of the size that Ethernet allows, each second one acknowledged.
const SEGMENTS: u32 = 200;
const PAYLOAD: usize = 1448;
/// What each of the others says, in turns with its server, so that each packet ends
/// a burst: words that make packets of 100 bytes.
const WORDS: u32 = 400;
const WORD: usize = 60;

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// Two captures as tcpdump would have written them, of downloads over HTTP and of
/// short words to and fro: written before the clock starts, read from the page
/// cache, on one core.
///
/// # Errors
/// A capture cannot be written or replayed.
pub fn replayed(extent: Extent) -> Result<[Row; 2]> {
    Ok([
        row(
            "replay",
            &format!("packets of {PAYLOAD} bytes and their acknowledgements"),
            extent,
            downloads,
        )?,
        row(
            "replay, at worst",
            &format!("packets of {} bytes, each of which ends a burst", WORD + 40),
            extent,
            words,
        )?,
    ])
}

/// What a round of connections, numbered so, puts into the capture.
type Round = fn(&mut Capture<'_>, Range<u32>) -> Result<()>;

fn row(what: &str, of: &str, extent: Extent, round: Round) -> Result<Row> {
    let budget = "≥ 300 MB/s of pcap on one core";
    let file = tempfile::Builder::new().suffix(".pcap").tempfile()?;
    let size = write(file.as_file(), round)?;
    let mut rates = Vec::new();
    let begun = Instant::now();
    let least = Duration::from_secs(extent.seconds);
    while rates.len() < 3 || begun.elapsed() < least {
        let pass = Instant::now();
        let mut closed = 0;
        replay(file.path(), 0, |event| {
            closed += u64::from(event.body.kind() == "flow");
            Ok(())
        })?;
        ensure!(closed > 0, "no flow was seen");
        // Nanoseconds a megabyte: at most what the rate allows.
        rates.push(pass.elapsed().as_nanos() as f64 / (size as f64 / 1e6));
    }
    let Some(estimate) = Estimate::of(&rates) else {
        return Ok(Row::at_most(what, budget, 0.0, "", None));
    };
    let figure = format!("{:.0} MB/s of {of}", 1e9 / estimate.mean);
    Ok(Row::new(
        what,
        budget,
        figure,
        estimate.at_most(1e9 / 300.0),
    ))
}

/// Writes a capture; gives its size.
fn write(file: &File, round: Round) -> Result<usize> {
    let mut to = Capture {
        to: BufWriter::new(file),
        size: 0,
        micros: 0,
    };
    let head = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101];
    for word in head {
        to.to.write_all(&word.to_le_bytes())?;
    }
    let mut first = 0;
    while to.size < SIZE {
        round(&mut to, first..first + CONNECTIONS)?;
        first += CONNECTIONS;
    }
    to.to.flush()?;
    Ok(to.size)
}

fn downloads(to: &mut Capture<'_>, all: Range<u32>) -> Result<()> {
    for n in all.clone() {
        to.begin(n)?;
        let request = b"GET /file HTTP/1.1\r\nHost: files.example.net\r\n\r\n";
        to.packet(n, true, ACK, 1, 1, request)?;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 289600\r\n\r\n";
        to.packet(n, false, ACK, 1, 50, head)?;
    }
    for segment in 0..SEGMENTS {
        for n in all.clone() {
            let place = 45 + segment * PAYLOAD as u32;
            to.packet(n, false, ACK, place, 50, &[b'x'; PAYLOAD])?;
            if segment % 2 == 1 {
                to.packet(n, true, ACK, 50, place + PAYLOAD as u32, b"")?;
            }
        }
    }
    let end = 45 + SEGMENTS * PAYLOAD as u32;
    all.into_iter().try_for_each(|n| to.end(n, 50, end))
}

fn words(to: &mut Capture<'_>, all: Range<u32>) -> Result<()> {
    let place = |words: u32| 1 + words * WORD as u32;
    for n in all.clone() {
        to.begin(n)?;
    }
    for word in 0..WORDS {
        for n in all.clone() {
            to.packet(n, true, ACK, place(word), place(word), &[b'x'; WORD])?;
            to.packet(n, false, ACK, place(word), place(word + 1), &[b'y'; WORD])?;
        }
    }
    let end = place(WORDS);
    all.into_iter().try_for_each(|n| to.end(n, end, end))
}

struct Capture<'a> {
    to: BufWriter<&'a File>,
    size: usize,
    micros: u32,
}

impl Capture<'_> {
    fn begin(&mut self, n: u32) -> Result<()> {
        self.packet(n, true, SYN, 0, 0, b"")?;
        self.packet(n, false, SYN | ACK, 0, 1, b"")
    }

    /// Closes connection `n`, whose agent and server are at these places.
    fn end(&mut self, n: u32, agent: u32, server: u32) -> Result<()> {
        self.packet(n, false, FIN | ACK, server, agent, b"")?;
        self.packet(n, true, FIN | ACK, agent, server + 1, b"")
    }

    /// A segment of connection `n`, from the agent or to it.
    fn packet(
        &mut self,
        n: u32,
        out: bool,
        flags: u8,
        sequence: u32,
        acknowledged: u32,
        data: &[u8],
    ) -> Result<()> {
        let [_, high, middle, low] = n.to_be_bytes();
        let (agent, server) = ([10, high, middle, low], [198, 51, 100, 1]);
        let (from, to, ports) = match out {
            true => (agent, server, [40_000u16, 80]),
            false => (server, agent, [80, 40_000]),
        };
        let length = 40 + data.len();
        let mut head = vec![0x45, 0];
        head.extend(u16::try_from(length)?.to_be_bytes());
        head.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        head.extend(from);
        head.extend(to);
        head.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        head.extend(sequence.to_be_bytes());
        head.extend(acknowledged.to_be_bytes());
        head.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
        self.micros += 5;
        let length = u32::try_from(length)?;
        for word in [
            self.micros / 1_000_000,
            self.micros % 1_000_000,
            length,
            length,
        ] {
            self.to.write_all(&word.to_le_bytes())?;
        }
        self.to.write_all(&head)?;
        self.to.write_all(data)?;
        self.size += 16 + length as usize;
        Ok(())
    }
}
