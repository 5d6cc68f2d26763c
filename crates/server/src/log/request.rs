//! The line of one request. There is one for each, so it is spelt by hand: as an event it would cost more than the rest of
//! a hit.

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use entrepot_core::event::RequestLog;
use entrepot_core::time::Wall;

use super::LINES;

const TARGET: &str = "entrepot::request";

/// The line of one request. What clients wrote has been made fit for a log by core.
pub(crate) fn request(log: &RequestLog) {
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    let Some(lines) = LINES.get() else {
        tracing::info!(target: TARGET, "request{}", Terminal(log));
        return;
    };
    LINE.with_borrow_mut(|line| {
        line.begin();
        fields(log, |name, value| line.field(name, value));
        line.end();
        lines.push(&line.text);
    });
}

enum Value<'a> {
    Text(&'a str),
    Number(u64),
    /// In milliseconds, with three decimals: a line says no more than it knows.
    Time(Duration),
    Address(IpAddr),
    Flag(bool),
}

/// What a line says, each under its name as JSON spells it. What is absent is left out, but for the client.
fn fields<'l>(log: &'l RequestLog, mut say: impl FnMut(&'static str, Value<'l>)) {
    say(",\"client\":", Value::Text(log.client.as_deref().unwrap_or("-")));
    say(",\"address\":", Value::Address(log.address));
    say(",\"method\":", Value::Text(log.method.label()));
    say(",\"route\":", Value::Text(log.route.label()));
    say(",\"path\":", Value::Text(log.target.as_str()));
    if let Some(agent) = &log.user_agent {
        say(",\"user_agent\":", Value::Text(agent.as_str()));
    }
    if let Some(source) = &log.source {
        say(",\"source\":", Value::Text(source));
    }
    say(",\"status\":", Value::Number(log.status.into()));
    if let Some(verdict) = log.verdict {
        say(",\"verdict\":", Value::Text(verdict.label()));
    }
    if let Some(reason) = log.reason {
        say(",\"reason\":", Value::Text(reason.label()));
    }
    if let Some(internal) = &log.internal {
        say(",\"detail\":", Value::Text(internal.as_str()));
    }
    say(",\"bytes\":", Value::Number(log.bytes));
    say(",\"upstream_bytes\":", Value::Number(log.upstream_bytes));
    say(",\"first_byte_ms\":", Value::Time(log.first_byte));
    say(",\"total_ms\":", Value::Time(log.total));
    say(",\"aborted\":", Value::Flag(log.aborted));
}

thread_local! {
    static LINE: RefCell<Line> = const { RefCell::new(Line::new()) };
}

/// A line of JSON, and the memory that the next is written into.
struct Line {
    text: Vec<u8>,
    /// The second that was written last, and how.
    second: u64,
    date: String,
}

impl Line {
    const fn new() -> Line {
        Line { text: Vec::new(), second: 0, date: String::new() }
    }

    fn begin(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != now.as_secs() || self.date.is_empty() {
            self.second = now.as_secs();
            self.date = Wall(self.second.saturating_mul(1000)).rfc3339();
        }
        self.text.clear();
        self.push("{\"timestamp\":\"");
        self.text.extend_from_slice(self.date.trim_end_matches('Z').as_bytes());
        self.text.push(b'.');
        self.digits(now.subsec_micros().into(), 6);
        self.push("Z\",\"level\":\"INFO\",\"message\":\"request\"");
    }

    fn end(&mut self) {
        self.field(",\"target\":", Value::Text(TARGET));
        self.push("}\n");
    }

    fn push(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// `name` is spelt already, with what stands before and behind it.
    fn field(&mut self, name: &str, value: Value<'_>) {
        self.push(name);
        match value {
            Value::Text(text) => self.quoted(text),
            Value::Number(number) => self.digits(number, 1),
            Value::Time(duration) => self.time(duration),
            Value::Address(address) => self.address(address),
            Value::Flag(flag) => self.push(if flag { "true" } else { "false" }),
        }
    }

    fn quoted(&mut self, text: &str) {
        self.text.push(b'"');
        // Looks at every byte, without a way out in between: that takes many at a time.
        let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
            self.push(text);
        } else {
            for byte in text.bytes() {
                match byte {
                    b'"' | b'\\' => self.text.extend([b'\\', byte]),
                    // Writing to memory cannot fail.
                    0..b' ' => drop(write!(self.text, "\\u{byte:04x}")),
                    _ => self.text.push(byte),
                }
            }
        }
        self.text.push(b'"');
    }

    fn address(&mut self, address: IpAddr) {
        self.text.push(b'"');
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets().map(u64::from);
                self.digits(a, 1);
                for octet in [b, c, d] {
                    self.text.push(b'.');
                    self.digits(octet, 1);
                }
            }
            IpAddr::V6(address) => drop(write!(self.text, "{address}")),
        }
        self.text.push(b'"');
    }

    fn time(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.digits(micros / 1000, 1);
        self.text.push(b'.');
        self.digits(micros % 1000, 3);
    }

    /// `number` in decimal, with so many digits at least.
    fn digits(&mut self, number: u64, least: usize) {
        let mut digits = [b'0'; 20];
        let (mut at, mut rest) = (digits.len(), number);
        while rest > 0 || digits.len() - at < least {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.text.extend_from_slice(&digits[at..]);
    }
}

/// The fields as people read them.
struct Terminal<'a>(&'a RequestLog);

impl fmt::Display for Terminal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = Ok(());
        fields(self.0, |name, value| {
            let name = name.trim_matches([',', '"', ':']);
            let field = match value {
                Value::Text(text) => write!(f, " {name}={text:?}"),
                Value::Number(number) => write!(f, " {name}={number}"),
                Value::Time(duration) => write!(f, " {name}={:.3}", duration.as_secs_f64() * 1000.0),
                Value::Address(address) => write!(f, " {name}={address}"),
                Value::Flag(flag) => write!(f, " {name}={flag}"),
            };
            written = written.and(field);
        });
        written
    }
}

#[cfg(test)]
mod tests {
    use entrepot_core::answer::Verdict;
    use entrepot_core::event::{Method, Route, Text};
    use entrepot_core::failure::Reason;

    use super::*;

    fn log() -> RequestLog {
        RequestLog {
            client: Some("a \"quoted\"\n name".into()),
            address: [192, 0, 2, 10].into(),
            method: Method::Get,
            route: Route::Manifest,
            target: Text::new("/v2/a/manifests/ümläut\\"),
            user_agent: Some(Text::new("docker\u{7}/24")),
            source: Some("dockerhub".into()),
            status: 200,
            verdict: Some(Verdict::Hit),
            reason: Some(Reason::UpstreamTimeout),
            internal: Some(Text::new("why")),
            bytes: 0,
            upstream_bytes: u64::MAX,
            first_byte: Duration::from_micros(1_234_056),
            total: Duration::from_micros(7),
            aborted: true,
        }
    }

    fn spelt(log: &RequestLog) -> serde_json::Value {
        let mut line = Line::new();
        line.begin();
        fields(log, |name, value| line.field(name, value));
        line.end();
        let text = str::from_utf8(&line.text).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_line_is_json_and_says_what_was_asked() {
        let line = spelt(&log());
        for (name, value) in [
            ("level", serde_json::json!("INFO")),
            ("message", "request".into()),
            ("client", "a \"quoted\"\n name".into()),
            ("address", "192.0.2.10".into()),
            ("method", "GET".into()),
            ("route", "manifest".into()),
            ("path", "/v2/a/manifests/ümläut\\u{5c}".into()),
            ("user_agent", "docker\\u{7}/24".into()),
            ("source", "dockerhub".into()),
            ("status", 200.into()),
            ("verdict", "hit".into()),
            ("reason", Reason::UpstreamTimeout.label().into()),
            ("detail", "why".into()),
            ("bytes", 0.into()),
            ("upstream_bytes", u64::MAX.into()),
            ("first_byte_ms", 1234.056.into()),
            ("total_ms", 0.007.into()),
            ("aborted", true.into()),
            ("target", TARGET.into()),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        let stamp = line["timestamp"].as_str().unwrap();
        assert!(stamp.len() == "2026-11-22T14:36:19.000001Z".len() && stamp.ends_with('Z'), "{stamp}");
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let bare = RequestLog {
            client: None,
            address: "2001:db8::1".parse().unwrap(),
            user_agent: None,
            source: None,
            verdict: None,
            reason: None,
            internal: None,
            ..log()
        };
        let line = spelt(&bare);
        assert_eq!((&line["client"], &line["address"]), (&"-".into(), &"2001:db8::1".into()));
        for name in ["user_agent", "source", "verdict", "reason", "detail"] {
            assert_eq!(line.get(name), None, "{name}");
        }
        let shown = Terminal(&bare).to_string();
        assert!(shown.contains(" status=200 bytes=0 ") && shown.contains(" total_ms=0.007 "), "{shown}");
    }
}
