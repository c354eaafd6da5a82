//! A shell at the end that began the flow: it sends a prompt, takes a line, sends
//! what comes of it, and a prompt again. That is what is seen of a reverse shell
//! whose program has a terminal or a pipe for its input, so that no socket shows
//! when it is started. One that is not interactive sends no prompt: the lines that it
//! is sent are told of, for who sees what is run then.

use super::{Answer, Fact as AnyFact, Input, Parser, Side, Wants};

/// Bytes of each side that are looked at until a prompt has come.
const LOOKED_AT: usize = 2_048;
/// The same of who began it, once it was sent a line: what commands give may be long.
/// No more than the kernel sends of each flow.
const ANSWERED: usize = 4 * LOOKED_AT;
/// Longest prompt.
const PROMPT_MAX: usize = 120;
/// Longest line that is told of; longer ones are no commands that somebody types.
const LINE_MAX: usize = 256;

/// What is seen of a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Somebody else has a shell of the end that began the flow.
    Dialogue {
        /// The prompt.
        prompt: String,
        /// The first line that it was given.
        line: String,
    },
    /// The end that began the flow was sent a line of text.
    Line(String),
}

impl Fact {
    /// The fact in a few words, if it says something by itself.
    pub fn in_words(&self) -> Option<String> {
        match self {
            Self::Dialogue { prompt, line } => Some(format!(
                "the shell of who began it: after {prompt:?} it was told {line:?}"
            )),
            Self::Line(_) => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Start,
    /// A prompt has come.
    Prompted,
    /// A line followed.
    Told,
    Found,
}

/// Follows one flow.
pub struct Shell {
    stage: Stage,
    seen: [usize; 2],
    /// The first line of who began it has ended.
    is_begun: bool,
    /// The last line of who began it, not ended yet.
    last: Vec<u8>,
    prompt: Vec<u8>,
    line: Vec<u8>,
    /// What it was sent of a line so far; nothing when that was too long for one.
    sent: Option<Vec<u8>>,
    /// It was sent a line.
    is_sent: bool,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            stage: Stage::Start,
            seen: [0; 2],
            is_begun: false,
            last: Vec::new(),
            prompt: Vec::new(),
            line: Vec::new(),
            sent: Some(Vec::new()),
            is_sent: false,
        }
    }
}

impl Parser for Shell {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<AnyFact>) -> Answer {
        match (input, side) {
            _ if self.stage == Stage::Found => Answer::Found,
            (Input::Bytes(bytes), Side::Initiator) => self.says(bytes, facts),
            (Input::Bytes(bytes), Side::Responder) => self.is_told(bytes, facts),
            (Input::Skipped(0), _) => Answer::NeedMore,
            (Input::Skipped(_) | Input::Gap, _) => Answer::NotThis,
        }
    }

    fn held(&self) -> usize {
        let sent = self.sent.as_ref().map_or(0, Vec::capacity);
        self.last.capacity() + self.prompt.capacity() + self.line.capacity() + sent
    }

    fn wants(&self) -> Wants {
        Wants::Nothing
    }
}

impl Shell {
    fn says(&mut self, bytes: &[u8], facts: &mut Vec<AnyFact>) -> Answer {
        if !is_text(bytes) || self.is_over(0, bytes.len()) {
            return Answer::NotThis;
        }
        let line_end = bytes.iter().position(|byte| *byte == b'\n');
        if !self.is_begun {
            // What begins a request is no shell's; most flows end here.
            let line = &bytes[..line_end.unwrap_or(bytes.len())];
            let new = self.last.len().saturating_sub(b"HTTP/1".len() - 1);
            self.last.extend_from_slice(line);
            let is_http = memchr::memmem::find(&self.last[new..], b"HTTP/1").is_some();
            if is_http || self.last.starts_with(b"{") {
                return Answer::NotThis;
            }
            self.last.truncate(self.last.len() - line.len());
            self.is_begun = line_end.is_some();
        }
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => self.last = bytes[end + 1..].to_vec(),
            None => self.last.extend_from_slice(bytes),
        }
        if self.last.len() > LOOKED_AT {
            return Answer::NotThis;
        }
        // Looking for these costs less than leaving out what is not shown.
        if memchr::memchr3(b'$', b'#', b'%', &self.last).is_none() {
            return Answer::NeedMore;
        }
        let shown = visible(&self.last);
        if !is_prompt(&shown) {
            return Answer::NeedMore;
        }
        match self.stage {
            // The directory may have changed: the end says enough.
            Stage::Told if shown[shown.len() - 2..] == self.prompt[self.prompt.len() - 2..] => {
                self.stage = Stage::Found;
                let text = |bytes: &[u8]| super::text(bytes, PROMPT_MAX);
                facts.push(AnyFact::Shell(Fact::Dialogue {
                    prompt: text(&self.prompt),
                    line: text(self.line.trim_ascii()),
                }));
                Answer::Found
            }
            Stage::Start | Stage::Told => {
                self.stage = Stage::Prompted;
                self.prompt = shown;
                self.line.clear();
                Answer::NeedMore
            }
            Stage::Prompted | Stage::Found => Answer::NeedMore,
        }
    }

    fn is_told(&mut self, bytes: &[u8], facts: &mut Vec<AnyFact>) -> Answer {
        if !is_text(bytes) || self.is_over(1, bytes.len()) {
            return Answer::NotThis;
        }
        self.lines(bytes, facts);
        if self.stage == Stage::Prompted {
            let room = LINE_MAX - self.line.len();
            self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
                self.stage = Stage::Told;
            }
        }
        Answer::NeedMore
    }

    /// Tells of each line that ends in these bytes.
    fn lines(&mut self, bytes: &[u8], facts: &mut Vec<AnyFact>) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let sent = self.sent.as_mut();
            if sent
                .as_ref()
                .is_some_and(|sent| sent.len() + piece.len() > LINE_MAX)
            {
                self.sent = None;
            } else if let Some(sent) = sent {
                sent.extend_from_slice(piece);
            }
            if !piece.ends_with(b"\n") && !piece.ends_with(b"\r") {
                continue;
            }
            let line = self.sent.replace(Vec::new()).unwrap_or_default();
            let line = line.trim_ascii();
            if !line.is_empty() {
                self.is_sent = true;
                facts.push(AnyFact::Shell(Fact::Line(super::text(line, LINE_MAX))));
            }
        }
    }

    /// Counts; whether a side has said more than anybody before a prompt.
    fn is_over(&mut self, side: usize, bytes: usize) -> bool {
        self.seen[side] += bytes;
        let looked_at = match self.stage {
            Stage::Start if self.is_sent && side == 0 => ANSWERED,
            Stage::Start => LOOKED_AT,
            _ => 8 * LOOKED_AT,
        };
        self.seen[side] > looked_at
    }
}

/// Printable, or what terminals are told.
fn is_text(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| matches!(byte, 0x07..=0x0d | 0x1b | 0x20..=0x7e | 0x80..))
}

/// Without the sequences that set colours and titles (ECMA-48, 5.4; xterm's OSC).
fn visible(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::new();
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            0x1b => match rest.next() {
                Some(b'[') => {
                    rest.find(|byte| matches!(byte, 0x40..=0x7e));
                }
                Some(b']') => {
                    rest.find(|byte| *byte == 0x07);
                }
                _ => {}
            },
            b'\r' => shown.clear(),
            0x07 => {}
            byte => shown.push(byte),
        }
    }
    shown
}

/// `$ `, `# ` or `% ` at the end of a short line, as sh, bash, zsh and csh have it. How
/// much of something is done (`45% `) is none, which log streams repeat.
fn is_prompt(line: &[u8]) -> bool {
    let ends = [b"$ ", b"# ", b"% "];
    line.len() <= PROMPT_MAX
        && ends.iter().any(|end| line.ends_with(*end))
        && !line.strip_suffix(b"% ").is_some_and(ends_in_number)
}

fn ends_in_number(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let before = text.iter().rev().find(|byte| !is_digit(byte));
    text.last().is_some_and(is_digit) && before.is_none_or(|it| b" [(".contains(it))
}

#[cfg(test)]
mod tests {
    use Side::{Initiator, Responder};

    use super::*;

    /// What is told besides lines.
    fn facts(said: &[(Side, &[u8])]) -> Vec<AnyFact> {
        let is_line = |fact: &AnyFact| matches!(fact, AnyFact::Shell(Fact::Line(_)));
        let facts = all(said).into_iter();
        facts.filter(|fact| !is_line(fact)).collect()
    }

    fn lines(said: &[(Side, &[u8])]) -> Vec<String> {
        let lines = all(said).into_iter().filter_map(|fact| match fact {
            AnyFact::Shell(Fact::Line(line)) => Some(line),
            _ => None,
        });
        lines.collect()
    }

    fn all(said: &[(Side, &[u8])]) -> Vec<AnyFact> {
        let mut shell = Shell::default();
        let mut facts = Vec::new();
        for (side, bytes) in said {
            if shell.feed(*side, Input::Bytes(bytes), &mut facts) == Answer::NotThis {
                break;
            }
        }
        facts
    }

    fn told(prompt: &str, line: &str) -> Vec<AnyFact> {
        vec![AnyFact::Shell(Fact::Dialogue {
            prompt: prompt.to_owned(),
            line: line.to_owned(),
        })]
    }

    /// `sh -i` behind pipes, and bash at a terminal of socat's, which echoes.
    const SH: &[(Side, &[u8])] = &[
        (
            Initiator,
            b"sh: 0: can't access tty; job control turned off\n# ",
        ),
        (Responder, b"id\n"),
        (Initiator, b"uid=0(root) gid=0(root) groups=0(root)\n# "),
    ];
    const BASH: &[(Side, &[u8])] = &[
        (Initiator, b"\x1b[?2004h\x1b]0;root@vm: /\x07root@vm:/# "),
        (Responder, b"id\n"),
        (Initiator, b"id\r\n\x1b[?2004l\r"),
        (Initiator, b"uid=0(root)\r\n\x1b[?2004hroot@vm:/root# "),
    ];

    #[test]
    fn a_prompt_a_line_and_a_prompt_again_are_a_shell() {
        assert_eq!(facts(SH), told("# ", "id"));
        assert_eq!(facts(BASH), told("root@vm:/# ", "id"));
    }

    #[test]
    fn it_is_told_at_any_cut_and_not_before_the_second_prompt() {
        for session in [SH, BASH] {
            let expected = facts(session);
            let bytes: Vec<(Side, u8)> = session
                .iter()
                .flat_map(|(side, bytes)| bytes.iter().map(|byte| (*side, *byte)))
                .collect();
            let single: Vec<(Side, &[u8])> = bytes
                .iter()
                .map(|(side, byte)| (*side, std::slice::from_ref(byte)))
                .collect();
            assert_eq!(facts(&single), expected);
            for end in 0..single.len() {
                assert_eq!(facts(&single[..end]), [], "{end}");
            }
        }
    }

    #[test]
    fn each_line_that_it_is_sent_is_told_at_any_cut() {
        let said: &[(Side, &[u8])] = &[
            (Responder, b"id\nuname -a\r\n\n"),
            (Initiator, b"uid=0(root)\n"),
            (Initiator, &[b'x'; LOOKED_AT]),
            (Responder, b"ls -l"),
            (Responder, b" /usr\n"),
            (Responder, &[b'y'; LINE_MAX]),
            (Responder, b"\nexit\n"),
        ];
        assert_eq!(lines(said), ["id", "uname -a", "ls -l /usr", "exit"]);
        let single: Vec<(Side, &[u8])> = said
            .iter()
            .flat_map(|(side, bytes)| bytes.chunks(1).map(|byte| (*side, byte)))
            .collect();
        assert_eq!(lines(&single), lines(said));
        let before: &[(Side, &[u8])] = &[(Initiator, &[b'x'; LOOKED_AT + 1]), (Responder, b"id\n")];
        assert_eq!(lines(before), [""; 0]);
    }

    #[test]
    fn what_is_held_is_counted_and_a_line_without_end_is_not_kept() {
        let mut shell = Shell::default();
        let mut facts = Vec::new();
        shell.feed(Initiator, Input::Bytes(b"# "), &mut facts);
        let mut before = 0;
        for _ in 0..7 {
            let more = [b'x'; LOOKED_AT];
            assert_eq!(
                shell.feed(Responder, Input::Bytes(&more), &mut facts),
                Answer::NeedMore
            );
            let held = shell.held();
            assert!((LINE_MAX..4 * LINE_MAX).contains(&held), "{held}");
            assert!(before == 0 || held == before, "{held}");
            before = held;
        }
        let long = [b'y'; LOOKED_AT - 2];
        shell.feed(Initiator, Input::Bytes(&long), &mut facts);
        assert!(shell.held() >= LINE_MAX + long.len());
    }

    #[test]
    fn the_other_end_s_shell_is_none_of_this_end() {
        let telnet: Vec<_> = SH
            .iter()
            .map(|(side, bytes)| (side.other(), *bytes))
            .collect();
        assert_eq!(facts(&telnet), []);
    }

    #[test]
    fn how_much_is_done_is_no_prompt_though_lines_confirm_it() {
        for done in ["45% ", "\r 45% ", "built [7.5% ", "100% "] {
            let said: [(Side, &[u8]); 3] = [
                (Initiator, done.as_bytes()),
                (Responder, b"ok\n"),
                (Initiator, done.as_bytes()),
            ];
            assert_eq!(facts(&said), [], "{done}");
        }
        for prompt in ["% ", "vm1% ", "a@b:~/1.5% "] {
            let said: [(Side, &[u8]); 3] = [
                (Initiator, prompt.as_bytes()),
                (Responder, b"id\n"),
                (Initiator, b"uid=0(root)\n% "),
            ];
            assert_eq!(facts(&said), told(prompt, "id"));
        }
    }

    #[test]
    fn what_is_no_dialogue_of_a_shell_is_given_up_soon() {
        let cases: [&[(Side, &[u8])]; 6] = [
            &[(Initiator, b"GET / HTTP/1.1\r\n\r\n")],
            &[(Initiator, b"GET / HT"), (Initiator, b"TP/1.1\r\n")],
            &[(Initiator, b"\x16\x03\x01\x02\x00")],
            &[(Initiator, b"{\"price\": \"5 $ ")],
            &[(Responder, b"SSH\x00")],
            &[(Initiator, &[b'x'; LOOKED_AT + 1])],
        ];
        for said in cases {
            let mut shell = Shell::default();
            let mut none = Vec::new();
            let answers: Vec<_> = said
                .iter()
                .map(|(side, bytes)| shell.feed(*side, Input::Bytes(bytes), &mut none))
                .collect();
            assert_eq!(answers.last(), Some(&Answer::NotThis), "{said:?}");
        }
        let prices: [(Side, &[u8]); 3] = [
            (Initiator, b"10 $ "),
            (Responder, b"thanks"),
            (Initiator, b"11 $ "),
        ];
        assert_eq!(facts(&prices), [], "no line ended between them");
    }
}
