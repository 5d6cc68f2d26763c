//! Challenges: `WWW-Authenticate` (RFC 9110 §11.6.1), read by parameter name as clients do, whatever their order.

use std::collections::BTreeMap;

use crate::field;

/// One challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case: `bearer`, `basic`, …
    pub scheme: String,
    /// Names in lower case, values unquoted and free of control characters. Of a repeated name the first counts.
    pub params: BTreeMap<String, String>,
    /// What schemes like Negotiate send instead of parameters.
    pub token68: Option<String>,
}

/// Bytes of one header line at most; a longer one is ignored.
pub const MAX_LINE: usize = 16 * 1024;
/// Challenges read at most, from all lines together.
pub const MAX_CHALLENGES: usize = 16;
/// Parameters read at most, of one challenge.
pub const MAX_PARAMS: usize = 32;

/// Reads all `WWW-Authenticate` lines of an answer. Several challenges may share a line, and what makes no sense is left
/// out rather than spoiling the rest.
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in values.into_iter().filter(|line| line.len() <= MAX_LINE) {
        // Parameters belong to a challenge of their own line.
        let mut current: Option<Challenge> = None;
        for member in field::split(line, ',') {
            match read(member) {
                Member::Opening(challenge) => challenges.extend(current.replace(challenge)),
                Member::Param(name, value) => {
                    if let Some(challenge) = &mut current {
                        challenge.add(name, value);
                    }
                }
                Member::Nonsense => {}
            }
        }
        challenges.extend(current);
    }
    challenges.truncate(MAX_CHALLENGES);
    challenges
}

impl Challenge {
    /// A parameter's value, by its name in lower case.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    fn add(&mut self, name: String, value: String) {
        if self.params.len() < MAX_PARAMS {
            self.params.entry(name).or_insert(value);
        }
    }
}

/// What stands between two commas: a parameter, or a scheme and the first of its parameters.
enum Member {
    Opening(Challenge),
    Param(String, String),
    Nonsense,
}

fn read(member: &str) -> Member {
    if let Some((name, value)) = param(member) {
        return Member::Param(name, value);
    }
    let (scheme, rest) = member.split_once(field::OWS).unwrap_or((member, ""));
    if !field::is_token(scheme) {
        return Member::Nonsense;
    }
    let mut challenge =
        Challenge { scheme: scheme.to_ascii_lowercase(), params: BTreeMap::new(), token68: None };
    let rest = rest.trim_matches(field::OWS);
    if is_token68(rest) {
        challenge.token68 = Some(rest.to_owned());
    } else if let Some((name, value)) = param(rest) {
        challenge.add(name, value);
    }
    Member::Opening(challenge)
}

/// `name=value`, with optional whitespace around the `=`. Values that should have been quoted (URLs) are taken as they
/// are, as some registries write them.
fn param(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim_matches(field::OWS), value.trim_matches(field::OWS));
    let value = field::unquote(value)?;
    if !field::is_token(name) || value.is_empty() || value.chars().any(char::is_control) {
        return None;
    }
    Some((name.to_ascii_lowercase(), value))
}

/// RFC 9110 §11.2.
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, params: &[(&str, &str)]) -> Challenge {
        let params = params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Challenge { scheme: scheme.into(), params, token68: None }
    }

    #[test]
    fn challenges_are_read_by_name() {
        let hub = [
            ("realm", "https://auth.docker.io/token"),
            ("service", "registry.docker.io"),
            ("scope", "repository:library/busybox:pull,push"),
        ];
        let rows = [
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#,
            r#"bearer  scope="repository:library/busybox:pull,push" , SERVICE = registry.docker.io,	realm=https://auth.docker.io/token"#,
            r#"BEARER , realm="https:\/\/auth.docker.io/token", service="registry.docker.io", scope="repository:library/busybox:pull,push""#,
            r#"Bearer realm="https://auth.docker.io/token",realm="https://evil.example/",service="registry.docker.io",scope="repository:library/busybox:pull,push""#,
        ];
        for row in rows {
            assert_eq!(parse([row]), [challenge("bearer", &hub)], "{row}");
        }
    }

    #[test]
    fn several_challenges_share_a_line_or_not() {
        let expected =
            [challenge("basic", &[("realm", "a, b")]), challenge("bearer", &[("realm", "https://c/")])];
        let lines: [&[&str]; 3] = [
            &[r#"Basic realm="a, b", Bearer realm="https://c/""#],
            &[r#"Basic realm="a, b""#, r#"Bearer realm="https://c/""#],
            &[r#",,Basic realm="a, b",,"#, "", r#" Bearer realm="https://c/" ,"#],
        ];
        for line in lines {
            assert_eq!(parse(line.iter().copied()), expected, "{line:?}");
        }
    }

    #[test]
    fn tokens_of_other_schemes_do_not_spoil_the_rest() {
        let read = parse(["Negotiate YII/x+==, Basic, Bearer realm=https://a/?b=c&d=e"]);
        assert_eq!(read[0].token68.as_deref(), Some("YII/x+=="));
        assert_eq!(read[1], challenge("basic", &[]));
        assert_eq!(read[2].param("realm"), Some("https://a/?b=c&d=e"));
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn nonsense_is_left_out() {
        let rows: &[(&str, &[Challenge])] = &[
            ("", &[]),
            (",,,", &[]),
            ("realm=\"x\"", &[]),
            ("\"Bearer\" realm=\"x\"", &[]),
            ("Bea\u{e9}rer realm=\"x\"", &[]),
            ("=", &[]),
            ("Bearer realm=\"unterminated", &[challenge("bearer", &[])]),
            ("Bearer realm=\"ends in an escape\\", &[challenge("bearer", &[])]),
            ("Bearer realm=\"a\"b", &[challenge("bearer", &[])]),
            ("Bearer realm=a\"b\"", &[challenge("bearer", &[])]),
            ("Bearer realm=\"a\u{0}b\",service=c", &[challenge("bearer", &[("service", "c")])]),
            ("Bearer realm=\"a\r\nb\"", &[challenge("bearer", &[])]),
            ("Bearer realm=\"\",service=c", &[challenge("bearer", &[("service", "c")])]),
        ];
        for (line, expected) in rows {
            assert_eq!(parse([*line]), *expected, "{line:?}");
        }
        // A parameter does not reach back over a line's end.
        assert_eq!(parse(["Bearer", "realm=a"]), [challenge("bearer", &[])]);
    }

    #[test]
    fn hostile_lines_are_bounded() {
        let many = vec!["Basic realm=a"; 1000].join(",");
        assert_eq!(parse([many.as_str()]).len(), MAX_CHALLENGES);
        assert_eq!(parse(vec!["Basic realm=a"; 1000]).len(), MAX_CHALLENGES);
        let params = (0..1000).map(|n| format!("p{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(parse([format!("Bearer {params}").as_str()])[0].params.len(), MAX_PARAMS);
        let long = format!("Bearer realm=\"{}\"", "a".repeat(MAX_LINE));
        assert_eq!(parse([long.as_str(), "Basic realm=b"]), [challenge("basic", &[("realm", "b")])]);
        for line in
            ["\\".repeat(MAX_LINE), "\"".repeat(MAX_LINE), "a=".repeat(MAX_LINE / 2), " ".repeat(MAX_LINE)]
        {
            assert!(parse([line.as_str()]).len() <= 1);
        }
    }
}
