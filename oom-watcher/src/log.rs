//! The agent's own log: one line per event on standard error, for whatever shows it.
//!
//! Values in it come from outside: file names, answers of an API, messages of the system. Each is escaped, so that none can
//! reach the terminal or pass for a line of its own. (The subscriber's own formatter does so for messages and errors, and lets
//! other values pass.)

use std::{
    error::Error,
    fmt::{self, Debug},
    io,
};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    filter::ParseError,
    fmt::{FormatFields, format::Writer},
};

use crate::{error::chain, escape::Escaped};

/// What `text`, `RUST_LOG`'s, lets pass. The value of a field is compared as it stands: as a regular expression it could take seconds
/// to compile.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(text)
}

/// Begins to log what `filter` lets pass.
pub(crate) fn start(filter: EnvFilter) {
    // No colours, at a terminal neither: they would be the only escape sequences that it is sent.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    log.fmt_fields(Fields).init();
}

/// `message name=value name=value`, all on one line.
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, first: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        if self.result.is_err() {
            return;
        }
        let space = if std::mem::take(&mut self.first) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{space}{}", Escaped(value)),
            name => write!(self.writer, "{space}{}={}", name.trim_start_matches("r#"), Escaped(value)),
        };
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.write(field, &chain(value));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::{escape::is_unsafe, sinks::samples::HOSTILE, state::StateError};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(write: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .fmt_fields(Fields);
        tracing::subscriber::with_default(subscriber.finish(), write);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_says_what_happened_and_why() {
        let error = StateError::Read { path: "/x".into(), source: io::Error::other("gone") };
        let shown = logged(|| {
            tracing::warn!(error = &error as &dyn Error, count = 3, name = "a b", dir = %Path::new("/x").display(), "It failed");
        });
        let expected = "It failed error=cannot read /x: gone count=3 name=\"a b\" dir=/x\n";
        assert_eq!(shown.split_once(": ").map(|(_, line)| line), Some(expected), "{shown}");
    }

    #[test]
    fn no_value_breaks_the_line_or_reaches_the_terminal() {
        let error = io::Error::other(HOSTILE);
        let shown = logged(|| {
            let dir = Path::new(HOSTILE).display();
            tracing::warn!(error = &error as &dyn Error, %error, ?error, %dir, text = HOSTILE, "{HOSTILE}");
        });
        assert_eq!(shown.lines().count(), 1, "{shown:?}");
        assert!(!shown.trim_end_matches('\n').contains(is_unsafe), "{shown:?}");
        assert_eq!(shown.matches(r"[2J").count(), 6, "none is left out: {shown}");
    }
}
