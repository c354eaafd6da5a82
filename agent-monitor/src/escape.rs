//! Text that comes from agents, made safe to show.

use std::borrow::Cow;

/// Shows what a terminal would obey, reorder or hide as `\u{…}`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, which may be commands to the terminal; and of Unicode 16
/// what reorders text (`Bidi_Control`), takes no room (`Default_Ignorable_Code_Point`),
/// ends lines, or is blank without being a space.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in ["", "ls -l /tmp", "größe 文件 🦀", r"C:\path 'quoted' $HOME"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(
            escape("\x1b[2Jgone\r\n\x07"),
            r"\u{1b}[2Jgone\u{d}\u{a}\u{7}"
        );
        assert_eq!(escape("\u{9b}31m\x7f"), r"\u{9b}31m\u{7f}");
    }

    #[test]
    fn what_reorders_or_hides_is_shown() {
        assert_eq!(escape("\u{202e}txt.exe"), r"\u{202e}txt.exe");
        for c in [
            '\u{202a}',
            '\u{2066}',
            '\u{2069}',
            '\u{200b}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert_eq!(escape(&c.to_string()), c.escape_unicode().to_string());
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_whatever_the_text(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(is_unsafe));
        }
    }
}
