//! Numbers, sizes, times and arguments, as people read them.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// `1234567` as `1,234,567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 event`, `2,000 events`.
pub fn count(how_many: u64, what: &str) -> String {
    format!(
        "{} {what}{}",
        number(how_many),
        if how_many == 1 { "" } else { "s" }
    )
}

/// Bytes in decimal units: `17 B`, `1.2 kB`, `34 MB`.
pub fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        // 999.5 and above would be shown as 1000.
        if size < 999.5 {
            break;
        }
        size /= 1000.0;
        unit = larger;
    }
    if unit != "B" && size < 9.95 {
        format!("{size:.1} {unit}")
    } else {
        format!("{size:.0} {unit}")
    }
}

/// `17ms`, `3.2s`, `1h 2m 3s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.9995 {
        format!("{:.0}ms", seconds * 1000.0)
    } else if seconds < 59.95 {
        format!("{seconds:.1}s")
    } else {
        // Seconds, so that no fraction is shown; an i64 holds those of any Duration of
        // nanoseconds in a u64.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        format!("{:#}", jiff::SignedDuration::from_secs(seconds))
    }
}

/// Arguments as one would type them into a shell.
pub fn command_line<'a>(argv: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for argument in argv {
        if !line.is_empty() {
            line.push(' ');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            line.push_str(argument);
        } else {
            line.push('\'');
            line.push_str(&argument.replace('\'', r"'\''"));
            line.push('\'');
        }
    }
    line
}

/// The text in exactly so many columns: padded, or cut with `…`.
pub fn column(text: &str, width: usize) -> String {
    let mut column = cut(text, width).unwrap_or_else(|| text.to_owned());
    let used = column.width();
    column.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    column
}

/// The text cut to so many columns with `…`, or nothing when it fits.
pub fn cut(text: &str, width: usize) -> Option<String> {
    if text.width() <= width {
        return None;
    }
    let ellipsis = if width > 0 { "…" } else { "" };
    Some(prefix(text, width.saturating_sub(1)).to_owned() + ellipsis)
}

/// The text in lines of at most so many columns, broken at spaces, or where it
/// must be in a word that is longer; all lines but the first are indented.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut lines = Vec::new();
    let mut line = String::new();
    for mut word in text.split_inclusive(' ') {
        loop {
            let room = width.saturating_sub(line.width());
            if word.trim_end().width() <= room {
                line.push_str(word);
                break;
            }
            let is_blank = line.trim_start().is_empty();
            if is_blank {
                // At least a character, so that this ends.
                let part = match prefix(word, room) {
                    "" => &word[..word.chars().next().map_or(0, char::len_utf8)],
                    part => part,
                };
                line.push_str(part);
                word = &word[part.len()..];
                if word.trim_end().is_empty() {
                    break;
                }
            }
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
        }
    }
    lines.push(line);
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

/// As much of the text as fits into so many columns.
pub fn prefix(text: &str, width: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or_default();
        used > width
    });
    end.map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (given, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(given), shown);
        }
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        for (given, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (34_500_000, "34 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(given), shown);
        }
        assert_eq!(bytes(999_600), "1.0 MB");
    }

    #[test]
    fn durations_are_as_fine_as_they_are_short() {
        for (given, shown) in [
            (0, "0ms"),
            (17, "17ms"),
            (999, "999ms"),
            (3200, "3.2s"),
            (3_723_400, "1h 2m 3s"),
        ] {
            assert_eq!(duration(Duration::from_millis(given)), shown);
        }
    }

    #[test]
    fn arguments_are_quoted_as_a_shell_wants_them() {
        let argv = ["ssh", "-R", "0:localhost:22", "a b", "", "it's", "$HOME"];
        assert_eq!(
            command_line(argv.into_iter()),
            r"ssh -R 0:localhost:22 'a b' '' 'it'\''s' '$HOME'"
        );
    }

    #[test]
    fn columns_count_what_a_terminal_shows() {
        assert_eq!(column("ab", 4), "ab  ");
        assert_eq!(column("abcdef", 4), "abc…");
        assert_eq!(column("文件名字", 5), "文件…");
        assert_eq!(column("文件名字", 6), "文件… ");
        assert_eq!(cut("abc", 3), None);
        assert_eq!(cut("abc", 0), Some(String::new()));
    }

    #[test]
    fn long_text_is_wrapped_at_spaces() {
        assert_eq!(wrap("fits", 10), ["fits"]);
        assert_eq!(wrap("- one two three", 9), ["- one two", "  three"]);
        assert_eq!(
            wrap("a 0123456789abc d", 9),
            ["a", "  0123456", "  789abc", "  d"]
        );
        assert_eq!(wrap("", 9), [""]);
        assert_eq!(wrap("文件", 0), ["文", "  件"]);
    }
}
