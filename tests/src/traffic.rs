//! Requests from the internet, with answers that are checked.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Sizes of the answers a scenario asks for, in bytes: from a status to a file.
pub const SIZES: [usize; 6] = [300, 2_000, 12_000, 700, 40_000, 1_000];

/// Between two requests: longer than the quiet that ends a burst, so that each
/// exchange can be seen as one.
const PACE: Duration = Duration::from_millis(40);

/// What went over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Requests that were answered, and answered rightly.
    pub exchanges: u32,
    /// Bytes of the answers' bodies.
    pub bytes: u64,
}

/// Asks the `web.py` behind `address` for bodies of `sizes` over one connection.
/// To be called inside a namespace: see [`crate::netns::Netns::run`].
///
/// # Errors
/// When it cannot connect, or an answer is not the one that was asked for.
pub fn fetch(address: SocketAddr, sizes: &[usize]) -> Result<Exchanged> {
    let timeout = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, timeout)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut done = Exchanged::default();
    for (number, size) in sizes.iter().enumerate() {
        if number > 0 {
            sleep(PACE);
        }
        let request = format!(
            "GET /bytes/{size} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: visitor/1.0\r\n\
             Cookie: session={:0>300}\r\n\r\n",
            number
        );
        stream.write_all(request.as_bytes())?;
        let body = body(&mut answers).with_context(|| format!("answer to request {number}"))?;
        ensure!(
            body == pattern(*size),
            "answer {number} is not what was asked for"
        );
        done.exchanges += 1;
        done.bytes += body.len() as u64;
    }
    Ok(done)
}

/// Reads one HTTP answer that tells its length.
fn body(answers: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = None;
    let mut lines = 0;
    loop {
        let mut line = String::new();
        ensure!(
            answers.read_line(&mut line)? > 0,
            "the connection was closed"
        );
        lines += 1;
        if lines == 1 {
            ensure!(line.contains(" 200 "), "the answer is {line:?}");
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = Some(value.trim().parse()?);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length.context("no Content-Length")?];
    answers.read_exact(&mut body)?;
    Ok(body)
}

/// The bytes `web.py` answers `/bytes/<size>` with: noise, so that a tunnel that
/// compresses carries as much as others. Repeats after 40,000.
fn pattern(size: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let noise = std::iter::repeat_with(|| {
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        state.to_le_bytes()[2]
    });
    let noise: Vec<u8> = noise.take(40_000).collect();
    noise.into_iter().cycle().take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What `fetch` of ten bytes says to a server that answers `body`.
    fn fetch_from_server_of(body: &[u8]) -> Result<Exchanged> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
                while request.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            });
            fetch(address, &[10])
        })
    }

    #[test]
    fn takes_the_right_answer() {
        let exchanged = fetch_from_server_of(&pattern(10)).unwrap();
        assert_eq!(
            exchanged,
            Exchanged {
                exchanges: 1,
                bytes: 10
            }
        );
    }

    #[test]
    fn rejects_an_answer_with_other_contents() {
        let error = fetch_from_server_of(b"0123456789").unwrap_err();
        assert!(error.to_string().contains("not what was asked"), "{error}");
    }

    #[test]
    fn rejects_an_answer_of_another_length() {
        assert!(fetch_from_server_of(&pattern(9)).is_err());
    }
}
