//! The form of a sample, by the grammar of OpenMetrics and not by the library that writes it: for whoever must be sure that no
//! name broke out of its label.

/// Name, labels and value.
pub(crate) type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64);

/// The line `name number` or `name{label="value",…} number`; None: it is not such a line.
pub(crate) fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(mut open) = rest.strip_prefix('{') {
        loop {
            let (label, quoted) = open.split_once("=\"")?;
            let (value, after) = unquoted(quoted)?;
            labels.push((label, value));
            if let Some(more) = after.strip_prefix(',') {
                open = more;
            } else {
                rest = after.strip_prefix('}')?;
                break;
            }
        }
    }
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    (is_name(name) && labels.iter().all(|(label, _)| is_name(label))).then_some((name, labels, value))
}

/// A value up to the quote that ends it, and what follows.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        value.push(match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            },
            '\n' => return None,
            c => c,
        });
    }
}
