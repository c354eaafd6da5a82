//! What is run.

use std::path::Path;

use agent_monitor::capture::packets::{Packets, file};
use agent_monitor::capture::recording::Reader;
use agent_monitor::commands::pretty::Pretty;
use agent_monitor::commands::replay::{Options, replay_from};
use agent_monitor::config::Config;
use agent_monitor::decode::{self, ProcessKey};
use agent_monitor::detect::{ssh_command, tool};
use agent_monitor::event::Process;
use agent_monitor::flow::stream::{Next, Stream};
use agent_monitor::protocol::datagram::DATAGRAM_PROTOCOLS;
use agent_monitor::protocol::layers::Layers;
use agent_monitor::protocol::{Answer, Fact, Input, PROTOCOLS, Parser, Side};
use agent_monitor::rules::problem::{Problems, Source};
use agent_monitor::rules::set::RuleSet;
use bytes::Bytes;

use crate::sessions::parts;

/// Bytes of memory that one direction of a stream may take: what it keeps of its
/// begin, and what waits.
const STREAM_MOST: usize = 64 << 10;
/// For captures: to clear the usual one takes longer than all else.
const BUFFER: usize = 16 << 10;

/// One protocol's parser, as a flow feeds it.
pub fn parser(name: &str, data: &[u8]) {
    let protocol = PROTOCOLS.iter().find(|protocol| protocol.name == name);
    let protocol = protocol.expect("targets are named after protocols");
    (protocol.begins)(data);
    feed((protocol.parser)().as_mut(), parts(data));
}

fn feed<'a>(parser: &mut dyn Parser, inputs: impl Iterator<Item = (Side, Input<'a>)>) {
    let mut facts = Vec::new();
    for (side, input) in inputs {
        let answer = parser.feed(side, input, &mut facts);
        drop(parser.carried());
        if answer == Answer::NotThis {
            break;
        }
        let _ = (parser.wants(), parser.is_framed());
    }
    in_words(&facts);
}

fn in_words(facts: &[Fact]) {
    for fact in facts {
        let _ = (fact.in_words(), fact.server_name());
    }
}

/// Frames of a WebSocket, after the handshake that begins it.
pub fn websocket(data: &[u8]) {
    let protocol = PROTOCOLS.iter().find(|protocol| protocol.name == "http");
    let protocol = protocol.expect("HTTP is a protocol");
    let request = b"GET /chat HTTP/1.1\r\nHost: ws.example.net\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let handshake = [
        (Side::Initiator, Input::Bytes(request)),
        (Side::Responder, Input::Bytes(answer)),
    ];
    feed(
        (protocol.parser)().as_mut(),
        handshake.into_iter().chain(parts(data)),
    );
}

/// All protocols, one inside the other.
pub fn layers(data: &[u8]) {
    let mut layers = Layers::default();
    let mut facts = Vec::new();
    for (side, input) in parts(data) {
        layers.feed(side, input, &mut facts);
        let _ = (layers.protocol(), layers.wants());
    }
    in_words(&facts);
}

/// One protocol of datagrams.
pub fn datagram(name: &str, data: &[u8]) {
    let protocol = DATAGRAM_PROTOCOLS.iter().find(|it| it.name == name);
    let mut parser = (protocol.expect("targets are named after protocols").parser)();
    let mut facts = Vec::new();
    for (side, input) in parts(data) {
        if let Input::Bytes(bytes) = input {
            let length = u32::try_from(bytes.len()).expect("parts are short");
            if parser.datagram(side, bytes, length, &mut facts) == Answer::NotThis {
                break;
            }
        }
    }
    in_words(&facts);
}

/// All protocols of datagrams.
pub fn datagrams(data: &[u8]) {
    let mut parsers: Vec<_> = DATAGRAM_PROTOCOLS.iter().map(|it| (it.parser)()).collect();
    let mut facts = Vec::new();
    for (side, input) in parts(data) {
        if let Input::Bytes(bytes) = input {
            let length = u32::try_from(bytes.len()).expect("parts are short");
            parsers.retain_mut(|parser| {
                parser.datagram(side, bytes, length, &mut facts) != Answer::NotThis
            });
        }
    }
    in_words(&facts);
}

/// Frames in a packet of QUIC whose keys anybody knows: the fuzzer cannot encrypt.
pub fn quic(data: &[u8]) {
    // The id, the key schedule and the padding are a real client's.
    const ID: &[u8] = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08";
    for version in [rustls::quic::Version::V1, rustls::quic::Version::V2] {
        let mut parsers: Vec<_> = DATAGRAM_PROTOCOLS.iter().map(|it| (it.parser)()).collect();
        let mut facts = Vec::new();
        for (number, frames) in data.chunks(1100).take(4).enumerate() {
            let packet = initial(version, ID, number, frames);
            let length = u32::try_from(packet.len()).expect("it is short");
            for parser in &mut parsers {
                parser.datagram(Side::Initiator, &packet, length, &mut facts);
            }
        }
        in_words(&facts);
    }
}

/// An Initial packet as a client sends it (RFC 9001, A.2).
fn initial(version: rustls::quic::Version, id: &[u8], number: usize, frames: &[u8]) -> Vec<u8> {
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|it| it.quic_suite());
    let keys = suite
        .expect("ring has it")
        .keys(id, rustls::Side::Client, version);
    let (first, name): (u8, u32) = match version {
        rustls::quic::Version::V2 => (0xd3, 0x6b33_43cf),
        _ => (0xc3, 1),
    };
    let mut payload = frames.to_vec();
    payload.resize(payload.len().max(4), 0);
    let length = u16::try_from(4 + payload.len() + keys.local.packet.tag_len());
    let number = u32::try_from(number).expect("it is small");
    let mut packet = vec![first];
    packet.extend(name.to_be_bytes());
    packet.push(8);
    packet.extend(id);
    packet.extend([0, 0]);
    packet.extend((0x4000 | length.expect("it is short")).to_be_bytes());
    let place = packet.len();
    packet.extend(number.to_be_bytes());
    let tag = (keys.local.packet).encrypt_in_place(number.into(), &packet, &mut payload);
    packet.extend(payload);
    packet.extend(tag.expect("it is short").as_ref());
    let (head, sample) = packet.split_at_mut(place + 4);
    let (head, number) = head.split_at_mut(place);
    let sample = &sample[..keys.local.header.sample_len()];
    let protected = (keys.local.header).encrypt_in_place(sample, &mut head[0], number);
    protected.expect("the sample fits");
    packet
}

/// Pieces of a stream in any order, of which some overlap.
pub fn stream(data: &[u8]) {
    let (mut stream, mut place, mut now) = (Stream::default(), 0u32, 0u64);
    let mut expected = 0u32;
    for (side, input) in parts(data) {
        let mut hand_on = |next: Next<'_>| {
            let length = match next {
                Next::Input(Input::Bytes(bytes)) => {
                    assert!(!bytes.is_empty());
                    u32::try_from(bytes.len()).expect("parts are short")
                }
                Next::Input(Input::Skipped(bytes)) => bytes,
                Next::Input(Input::Gap) => unreachable!("streams know the size of every hole"),
                Next::Differs(..) => 0,
            };
            expected = expected.saturating_add(length);
        };
        match input {
            Input::Bytes(bytes) => {
                let length = u32::try_from(bytes.len()).expect("parts are short");
                // The responder's go back a little, and are cut.
                let (at, left) = match side {
                    Side::Initiator => (place, length),
                    Side::Responder => (place.saturating_sub(length / 2), length * 2),
                };
                stream.bytes(now, at, Bytes::copy_from_slice(bytes), left, &mut hand_on);
                place = place.max(at.saturating_add(length));
            }
            Input::Skipped(bytes) if side == Side::Initiator => {
                stream.size(now, place, bytes, &mut hand_on);
                place = place.saturating_add(bytes);
            }
            Input::Skipped(bytes) => place = place.saturating_add(bytes),
            Input::Gap => now += 200_000_000,
        }
        assert_eq!(stream.next(), expected, "what was handed on has no hole");
        assert!(stream.held() <= STREAM_MOST);
    }
    stream.flush(|_| ());
    assert!(!stream.is_waiting());
}

/// A capture of packets: file, headers, fragments, connections.
pub fn packets(data: &[u8]) {
    let mut packets = Packets::default();
    let mut records = Vec::new();
    let read = file::read(data, BUFFER, |number, frame| {
        // Other links are tried where this one's is not read.
        if packets.take(number, frame, &mut records).is_err() {
            let frame = file::Frame { link: 101, ..frame };
            let taken = packets.take(number, frame, &mut records);
            taken.expect("raw IP is read");
        }
        Ok::<_, file::Error>(())
    });
    let _ = read.map_err(|error| error.to_string());
    packets.end(&mut records);
}

/// One record of the kernel's.
pub fn record(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let _ = (decode::header(&bytes), decode::record(&bytes));
    let _ = decode::uncovered(&bytes);
}

/// A recording.
pub fn recording(data: &[u8]) {
    if let Ok(reader) = Reader::new(data) {
        for frame in reader {
            if frame.is_err() {
                break;
            }
        }
    }
}

/// A capture or a recording through the whole pipeline, detectors and rules included,
/// and what people and programs are shown of it.
pub fn replay(data: &[u8]) {
    let pretty = Pretty::for_stdout();
    let _ = replay_from(data, 0, &Options::default(), |event| {
        let json = serde_json::to_value(event).expect("an event is JSON");
        let shown = without_colours(&pretty.show(&json));
        let control = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "a control character in {shown:?}");
        Ok(())
    });
}

/// Text without what only sets colours and weights of letters: `ESC [ digits m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (style, rest) = part.split_once('m').expect("styles end");
        assert!(
            style
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b';'),
            "{text:?}"
        );
        plain.push_str(rest);
    }
    plain
}

/// A configuration.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(error) = Config::parse(&text, Path::new("fuzz.toml")) {
        assert!(!error.to_string().is_empty());
    }
}

/// Arguments of a program, a line each.
pub fn command_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let argv: Vec<String> = text.lines().map(str::to_owned).collect();
    let _ = ssh_command::remote_forward(&argv);
    let process = Process {
        argv: argv.into(),
        ..Process::default()
    };
    let _ = tool::command_line(7, &process.into(), ProcessKey::default(), 0);
}

/// A file of rules.
pub fn rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let source = Source::new(Path::new("fuzz.yaml"), text);
    if let Err(problems) = RuleSet::compile(&[vec![source]], Problems::default()) {
        assert!(!problems.to_string().is_empty());
        assert!(!problems.show(false, 80).is_empty());
    }
}
