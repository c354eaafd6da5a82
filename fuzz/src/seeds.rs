//! What targets begin from: what real tools said, as far as it is in tests/data.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use agent_monitor::capture::recording::{Frame, Reader};
use agent_monitor::protocol::{Input, Side};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::Target;
use crate::sessions::push;

/// Records of a recording that are seeds: the first ones are of every kind.
const RECORDS: usize = 40;
/// Captures that are seeds: the shortest ones.
const SHORTEST: usize = 12;
/// Longest seed: a fuzzer makes little of more.
const LONGEST: usize = 64 << 10;

/// Writes the seeds of a target into a directory.
///
/// # Errors
/// The directory cannot be written to.
pub fn write(target: &Target, dir: &Path) -> io::Result<()> {
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(dir.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files of a directory of the repository, by name.
fn files(dir: &str) -> Vec<Vec<u8>> {
    let dir = repository().join(dir);
    let mut paths: Vec<PathBuf> = (fs::read_dir(&dir).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    (paths.iter().map(fs::read))
        .map(|bytes| bytes.expect("the repository can be read"))
        .collect()
}

/// Sessions over TCP of every protocol.
pub fn streams() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = files("tests/data/ssh")
        .iter()
        .step_by(6)
        .map(|it| session(it))
        .collect();
    all.extend(files("tests/data/dns").iter().map(|it| session(it)));
    for dir in ["tests/data/carried", "tests/data/stratum-v2"] {
        all.extend(files(dir).iter().map(|it| session(it)));
    }
    for file in files("tests/data/stratum") {
        let mut to = Vec::new();
        for line in String::from_utf8_lossy(&file).lines() {
            let side = match line.get(..2) {
                Some("> ") => Side::Initiator,
                Some("< ") => Side::Responder,
                _ => continue,
            };
            let line = format!("{}\n", &line[2..]);
            push(&mut to, side, Input::Bytes(line.as_bytes()));
        }
        all.push(to);
    }
    let one = |side, bytes: &[u8]| {
        let mut to = Vec::new();
        push(&mut to, side, Input::Bytes(bytes));
        to
    };
    for file in files("tests/data/tls") {
        let text = String::from_utf8_lossy(&file);
        all.push(one(Side::Initiator, &hex(text.trim())));
    }
    let said: [&[u8]; 9] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chisel-v3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"CONNECT b.example:443 HTTP/1.1\r\n\r\n",
        b"\x05\x01\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00host.example\x00",
        b"\x82\x85\x01\x02\x03\x04\x69\x67\x6f\x68\x6e",
        b"{\"Hello\":0}\0",
        b"o\0\0\0\0\0\0\0\x18{\"version\":\"0.61.0\"}",
    ];
    all.extend(said.iter().map(|bytes| one(Side::Initiator, bytes)));
    all
}

/// Datagrams, a part each.
pub fn datagrams() -> Vec<Vec<u8>> {
    let dirs = ["dns", "quic", "wireguard"];
    let files = dirs
        .iter()
        .flat_map(|dir| files(&format!("tests/data/{dir}")));
    files.map(|it| session(&it)).collect()
}

/// Echoes that carry packets, and that only resemble such.
pub fn echoes() -> Vec<Vec<u8>> {
    let packet = b"\x45\0\0\x28\0\0\0\0\x40\x06\0\0\xc0\0\x02\x01\xc6\x33\x64\x02\
        \x03\xe8\0\x50\0\0\0\x64\0\0\0\0\x50\x02\x01\0\0\0\0\0";
    let said: [&[u8]; 3] = [packet, b"\xd5\x20\x08\x80\0\0\0\0", b"abcdefghijklmnop"];
    let echo = |said: &[u8]| {
        let mut to = Vec::new();
        for side in [Side::Initiator, Side::Responder] {
            // The header of an echo comes first (RFC 792).
            push(
                &mut to,
                side,
                Input::Bytes(&[&[8, 0, 0, 0, 0, 1, 0, 1], said].concat()),
            );
            push(&mut to, side, Input::Bytes(said));
        }
        to
    };
    said.iter().map(|said| echo(said)).collect()
}

/// Frames of QUIC's Initial packets: a hello in two pieces, and what may be beside it.
pub fn quic() -> Vec<Vec<u8>> {
    let hello = hex(include_str!("../../tests/data/tls/curl.hex").trim());
    // Behind the record's header.
    let (first, second) = hello[5..].split_at(200);
    let frame = |offset: u16, piece: &[u8]| {
        let length = 0x4000 | u16::try_from(piece.len()).expect("it is short");
        let (offset, length) = ((0x4000 | offset).to_be_bytes(), length.to_be_bytes());
        [&[6][..], &offset, &length, piece].concat()
    };
    let ack = b"\x02\x05\x00\x01\x00\x01\x01";
    vec![
        [frame(0, first), frame(200, second)].concat(),
        [
            frame(200, second),
            ack.to_vec(),
            vec![0; 40],
            frame(0, first),
        ]
        .concat(),
    ]
}

/// A list of segments or datagrams: `side`, and `hex` or the length of what is `encrypted`.
fn session(json: &[u8]) -> Vec<u8> {
    let list: Vec<Value> = serde_json::from_slice(json).expect("it is a list");
    let mut to = Vec::new();
    for part in list {
        let side = match part["side"].as_str() {
            Some("responder") => Side::Responder,
            _ => Side::Initiator,
        };
        if let Some(text) = part["hex"].as_str() {
            push(&mut to, side, Input::Bytes(&hex(text)));
        }
        if let Some(length) = part["encrypted"].as_u64() {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            push(&mut to, side, Input::Skipped(length));
        }
    }
    to
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.filter_map(byte).collect()
}

/// Captures of packets, one of each kind of file and link.
pub fn captures() -> Vec<Vec<u8>> {
    let packet = b"\x45\0\0\x28\0\0\0\0\x40\x06\0\0\xc0\0\x02\x01\xc6\x33\x64\x02\
        \x03\xe8\0\x50\0\0\0\x64\0\0\0\0\x50\x02\x01\0\0\0\0\0";
    let mut pcap = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101, 3, 7, 40, 40] {
        pcap.extend(word.to_le_bytes());
    }
    pcap.extend(packet);
    let mut pcapng = Vec::new();
    for word in [0x0a0d_0d0au32, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28] {
        pcapng.extend(word.to_le_bytes());
    }
    for word in [1u32, 20, 101, 0, 20, 6, 72, 0, 0, 9, 40, 40] {
        pcapng.extend(word.to_le_bytes());
    }
    pcapng.extend(packet);
    pcapng.extend(72u32.to_le_bytes());
    let mut all = vec![pcap, pcapng];
    all.extend(unpacked(".pcap.gz"));
    all
}

/// The shortest of the real tools' captures or recordings, unpacked and cut.
fn unpacked(suffix: &str) -> Vec<Vec<u8>> {
    let dir = repository().join("tests/data/captures");
    let mut paths: Vec<PathBuf> = (fs::read_dir(dir).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    paths.sort();
    let unpack = |path: &PathBuf| {
        let mut bytes = Vec::new();
        let file = fs::File::open(path).expect("the repository can be read");
        (GzDecoder::new(file).read_to_end(&mut bytes)).expect("it is whole");
        bytes.truncate(LONGEST);
        bytes
    };
    let mut all: Vec<Vec<u8>> = paths.iter().map(unpack).collect();
    all.sort_by_key(Vec::len);
    all.truncate(SHORTEST);
    all
}

/// What can be replayed.
pub fn replays() -> Vec<Vec<u8>> {
    let mut all = captures();
    all.extend(unpacked(".agmr.gz"));
    all
}

/// What there is to configure, as it is shipped and as it is by default.
pub fn configs() -> Vec<Vec<u8>> {
    let mut all = vec![agent_monitor::config::reference::commented().into_bytes()];
    all.extend(fs::read(repository().join("deploy/config.toml")));
    all.push(
        b"[[sink]]\nkind = \"splunk\"\nname = \"soc\"\nurl = \"https://splunk.example.net:8088\"\n\
        token = { env = \"TOKEN\" }\nfilter = { min_severity = \"medium\" }\n"
            .to_vec(),
    );
    all
}

/// Arguments, a line each.
pub fn command_lines() -> Vec<Vec<u8>> {
    let lines = [
        "ssh\n-fNR\n9000:127.0.0.1:8000\nhost",
        "ssh\n-oRemoteForward=9000 [::1]:8000\n-p22\nhost",
        "autossh\n-M\n0\n-R/path:host:1\nhost",
        "dbclient\n-R\n1:a:2\nhost",
        "plink\n-batch\n-R\n1:a:2\nhost",
        "python3\n-c\nexec(compile(stdin.read(1785), 'assembler.py', 'exec'))",
    ];
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// Recordings, cut.
pub fn recordings() -> Vec<Vec<u8>> {
    let mut all = files("tests/data/recordings");
    all.iter_mut().for_each(|it| it.truncate(LONGEST));
    all
}

/// Records of recordings.
pub fn records() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in files("tests/data/recordings") {
        let frames = Reader::new(&file[..]).into_iter().flatten().flatten();
        let records = frames.filter_map(|frame| match frame {
            Frame::Record(bytes) => Some(bytes.to_vec()),
            Frame::Agent(_) | Frame::Usage(_) | Frame::Holding(_) => None,
        });
        all.extend(records.take(RECORDS));
    }
    all
}

/// The default pack.
pub fn rules() -> Vec<Vec<u8>> {
    files("rules")
}

/// Texts with characters that mean something to a receiver.
pub fn texts() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "|=\\\"]",
        "\x1b[2J\r\n",
        "\u{202e}\u{9b}",
        "{\"a\": 1}",
        "plain",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
