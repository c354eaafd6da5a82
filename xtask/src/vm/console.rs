//! What the machine's console showed, sorted.

use std::collections::BTreeMap;

use serde_json::Value;

/// Lines that begin with `@` are the script's; all others are of programs or the kernel.
#[derive(Debug, Default)]
pub struct Console {
    /// `uname -r`.
    pub kernel: Option<String>,
    /// What `doctor` found, an object a line.
    pub doctor: Vec<Value>,
    /// What the daemon says of itself when the agent is done.
    pub status: Value,
    /// What `tail` showed.
    pub events: Vec<Value>,
    /// How many instructions the verifier went through, by program.
    pub instructions: BTreeMap<String, u64>,
    /// Bytes that each end of the agent's connection received, by their own count.
    pub received: Option<String>,
    /// How the daemon ended.
    pub daemon: Option<String>,
    /// What the script could not do, and lines for the checks that cannot be read.
    pub failures: Vec<String>,
    /// Signs of trouble in the kernel or the daemon: what to show of a failure.
    pub trouble: Vec<String>,
    /// The script got to its end.
    pub ended: bool,
}

/// What the kernel says when something is wrong with it: a panic, an oops, a
/// lockup, a warning of its own code.
const TROUBLE: [&str; 5] = ["Kernel panic", "BUG:", "Oops", "WARNING:", "Call Trace"];

impl Console {
    /// Sorts the console's lines.
    pub fn read(lines: &[String]) -> Self {
        let mut console = Self::default();
        for line in lines {
            let Some((word, rest)) = line
                .strip_prefix('@')
                .map(|line| line.split_once(' ').unwrap_or((line, "")))
            else {
                if TROUBLE.iter().any(|sign| line.contains(sign)) {
                    console.trouble.push(line.clone());
                }
                continue;
            };
            match word {
                "kernel" => console.kernel = Some(rest.to_owned()),
                "doctor" => console.json(rest, |console, value| console.doctor.push(value)),
                "status" => console.json(rest, |console, value| console.status = value),
                "tail" => console.json(rest, |console, value| console.events.push(value)),
                "received" => console.received = Some(rest.to_owned()),
                "daemon" => console.daemon = Some(rest.to_owned()),
                "failed" => console.failures.push(rest.to_owned()),
                "end" => console.ended = true,
                "log" => console.log(rest),
                _ => console.failures.push(format!("not understood: {line}")),
            }
        }
        console
    }

    fn json(&mut self, text: &str, take: impl FnOnce(&mut Self, Value)) {
        match serde_json::from_str(text) {
            Ok(value) => take(self, value),
            Err(error) => self.failures.push(format!("not JSON ({error}): {text}")),
        }
    }

    /// A line of the daemon's log.
    fn log(&mut self, line: &str) {
        if let Some((program, count)) = verified(line) {
            self.instructions.insert(program.to_owned(), count);
        } else if ["error: ", " ERROR ", " WARN "]
            .iter()
            .any(|sign| line.contains(sign))
        {
            self.trouble.push(line.to_owned());
        }
    }
}

/// Reads `… loaded program="connect4" verified_instructions=672`.
pub fn verified(line: &str) -> Option<(&str, u64)> {
    let (_, program) = line.split_once("loaded program=\"")?;
    let (program, count) = program.split_once("\" verified_instructions=")?;
    Some((program, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Console {
        Console::read(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn lines_are_sorted_by_their_first_word() {
        let console = read(
            "SeaBIOS\n@kernel 6.1.0-1\n@tail {\"kind\":\"exec\"}\n@status {\"agents\":[]}\n\
             @log 2026 DEBUG loaded program=\"connect4\" verified_instructions=672\n@end\n",
        );
        assert_eq!(console.kernel.as_deref(), Some("6.1.0-1"));
        assert_eq!(console.events[0]["kind"], "exec");
        assert!(console.status["agents"].is_array());
        assert_eq!(console.instructions["connect4"], 672);
        assert!(console.ended && console.failures.is_empty() && console.trouble.is_empty());
    }

    #[test]
    fn a_line_that_the_kernel_wrote_into_is_a_failure() {
        let console = read("@tail {\"kind\":[  1.2] oops\n@tial {}\n");
        assert_eq!(console.failures.len(), 2, "{console:?}");
    }

    #[test]
    fn panics_and_refusals_are_kept_to_be_shown() {
        let console = read(
            "[    1.0] Kernel panic - not syncing\n\
             @log error: the kernel refused the program connect4: Permission denied\n",
        );
        assert_eq!(console.trouble.len(), 2);
        assert!(!console.ended);
    }
}
