//! Names from outside made safe to show: process, cgroup, pod and container names are whatever somebody chose.
//!
//! What could move a terminal's cursor, change its colours or reorder a line is written as an escape in plain letters.
//! The result is for reading; JSON carries the value itself.

use std::fmt::{self, Display, Formatter, Write};

/// Displays a text without any character that a terminal could take for an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Most names are plain, and need not be looked at character by character.
        if is_plain(self.0) {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|c| match c {
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            c if is_unsafe(c) && c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c)),
            c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
            c => f.write_char(c),
        })
    }
}

/// Only characters of ASCII that are shown as they are: as many of them as bytes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether a terminal could act on the character instead of showing it: control characters (C0, DEL, C1), line and
/// paragraph separators, and the invisible ones that reorder or hide what stands beside them.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The text as [`Escaped`] shows it, at most about `max` characters: the middle of a longer one is left out.
///
/// Beginning and end are kept because cgroup paths differ at the end and pod names at both.
pub fn escaped_within(text: &str, max: usize) -> String {
    if text.len() <= max && is_plain(text) {
        return text.to_owned();
    }
    let escaped = Escaped(text).to_string();
    let count = escaped.chars().count();
    if count <= max {
        return escaped;
    }
    let tail = max / 2;
    let head: String = escaped.chars().take(max - tail - 1).collect();
    head.chars().chain(['…']).chain(escaped.chars().skip(count - tail)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        assert_eq!(Escaped(text).to_string(), shown);
    }

    #[test]
    fn what_a_terminal_could_act_on_is_spelled_out() {
        check("java", "java");
        check("kube-proxy é 日本", "kube-proxy é 日本");
        check(r"system-foo\x2dbar.slice", r"system-foo\x2dbar.slice");
        check("a\nb\rc\td", r"a\nb\rc\td");
        check("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m");
        check("\x07\x00\x7f", r"\x07\x00\x7f");
        check("\u{9b}31m", r"\u{9b}31m");
        check("abc\u{202e}fdp.exe", r"abc\u{202e}fdp.exe");
        check("\u{2028}\u{feff}", r"\u{2028}\u{feff}");
    }

    #[test]
    fn a_long_text_keeps_its_ends() {
        assert_eq!(escaped_within("abcdefghij", 10), "abcdefghij");
        assert_eq!(escaped_within("abcdefghijk", 10), "abcd…ghijk");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_comes_out(text in any::<String>(), max in 1_usize..100) {
            let shown = Escaped(&text).to_string();
            prop_assert!(!shown.contains(is_unsafe), "{shown:?}");
            let cut = escaped_within(&text, max);
            prop_assert!(!cut.contains(is_unsafe), "{cut:?}");
            prop_assert!(cut.chars().count() <= max);
        }

        #[test]
        fn harmless_text_is_unchanged(text in "[ -~]{0,64}") {
            prop_assert_eq!(Escaped(&text).to_string(), text);
        }
    }
}
