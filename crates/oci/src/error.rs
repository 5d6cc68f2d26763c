//! The error codes of the distribution-spec ("Error Codes"), in one table, and the JSON that carries them.

use serde::{Deserialize, Serialize};

/// A code that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// The four from here on are not in the spec, but in the registry that most others follow.
    Unknown,
    Unavailable,
    PaginationNumberInvalid,
    RangeInvalid,
}

/// Code, text on the wire, status to answer with by default, message by default.
const TABLE: &[(ErrorCode, &str, u16, &str)] = &[
    (ErrorCode::BlobUnknown, "BLOB_UNKNOWN", 404, "blob unknown to registry"),
    (ErrorCode::BlobUploadInvalid, "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"),
    (ErrorCode::BlobUploadUnknown, "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"),
    (ErrorCode::DigestInvalid, "DIGEST_INVALID", 400, "provided digest is not a valid digest"),
    (
        ErrorCode::ManifestBlobUnknown,
        "MANIFEST_BLOB_UNKNOWN",
        404,
        "manifest references a blob unknown to registry",
    ),
    (ErrorCode::ManifestInvalid, "MANIFEST_INVALID", 400, "manifest invalid"),
    (ErrorCode::ManifestUnknown, "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"),
    (ErrorCode::NameInvalid, "NAME_INVALID", 400, "invalid repository name"),
    (ErrorCode::NameUnknown, "NAME_UNKNOWN", 404, "repository name not known to registry"),
    (ErrorCode::SizeInvalid, "SIZE_INVALID", 400, "provided length did not match content length"),
    (ErrorCode::Unauthorized, "UNAUTHORIZED", 401, "authentication required"),
    (ErrorCode::Denied, "DENIED", 403, "requested access to the resource is denied"),
    (ErrorCode::Unsupported, "UNSUPPORTED", 405, "the operation is unsupported"),
    (ErrorCode::TooManyRequests, "TOOMANYREQUESTS", 429, "too many requests"),
    (ErrorCode::Unknown, "UNKNOWN", 500, "unknown error"),
    (ErrorCode::Unavailable, "UNAVAILABLE", 503, "service unavailable"),
    (
        ErrorCode::PaginationNumberInvalid,
        "PAGINATION_NUMBER_INVALID",
        400,
        "invalid number of results requested",
    ),
    (ErrorCode::RangeInvalid, "RANGE_INVALID", 416, "invalid content range"),
];

impl ErrorCode {
    /// Every code, in order of declaration.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        TABLE.iter().map(|row| row.0)
    }

    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status that goes with it unless the answer has a better one.
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// What to say when there is nothing more precise to say.
    pub fn message(self) -> &'static str {
        self.row().3
    }

    /// The code a text stands for.
    pub fn find(text: &str) -> Option<ErrorCode> {
        TABLE.iter().find(|row| row.1 == text).map(|row| row.0)
    }

    fn row(self) -> &'static (ErrorCode, &'static str, u16, &'static str) {
        // The table is in the order of the enum, as a test holds.
        &TABLE[self as usize]
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One error of an answer: its code, a message (empty: the code's own), and a detail.
pub type Item<'a> = (ErrorCode, &'a str, Option<&'a str>);

/// The body of an error answer, to be sent as `application/json`: without that type Docker shows it raw.
pub fn body(errors: &[Item<'_>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        errors: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        code: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    }
    let errors = errors
        .iter()
        .map(|&(code, message, detail)| {
            let message = if message.is_empty() { code.message() } else { message };
            Entry { code: code.as_str(), message, detail }
        })
        .collect();
    // Texts in, text out: serde_json fails on maps with other keys and on failing writers only.
    serde_json::to_vec(&Body { errors }).unwrap_or_default()
}

/// An error of an upstream, for the log and to tell one refusal from another: never sent on as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamError {
    /// At most [`MAX_CODE`] characters, none of them a control character.
    pub code: String,
    /// At most [`MAX_MESSAGE`] characters, none of them a control character.
    pub message: String,
}

/// Bytes of an upstream's error body at most; a longer one is not read.
pub const MAX_BODY: usize = 64 * 1024;
/// Errors kept at most of one body.
pub const MAX_ERRORS: usize = 16;
pub const MAX_CODE: usize = 64;
pub const MAX_MESSAGE: usize = 512;

/// Reads an upstream's error body. What is not the spec's JSON (HTML, plain text) holds no errors.
pub fn parse(bytes: &[u8]) -> Vec<UpstreamError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    if bytes.len() > MAX_BODY {
        return Vec::new();
    }
    let Ok(body) = serde_json::from_slice::<Body>(bytes) else {
        return Vec::new();
    };
    body.errors
        .into_iter()
        .take(MAX_ERRORS)
        .map(|entry| UpstreamError {
            code: clip(&entry.code.unwrap_or_default(), MAX_CODE),
            message: clip(&entry.message.unwrap_or_default(), MAX_MESSAGE),
        })
        .collect()
}

fn clip(text: &str, max: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// distribution-spec, "Error Codes": code-1 to code-14.
    const SPEC: [&str; 14] = [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    ];
    /// What registry v2 adds to them.
    const REGISTRY: [&str; 4] = ["UNKNOWN", "UNAVAILABLE", "PAGINATION_NUMBER_INVALID", "RANGE_INVALID"];

    #[test]
    fn the_table_is_the_spec_s_list() {
        let ours: Vec<_> = ErrorCode::all().map(ErrorCode::as_str).collect();
        assert_eq!(ours, [SPEC.as_slice(), &REGISTRY].concat());
    }

    #[test]
    fn each_code_finds_its_own_row() {
        for (index, code) in ErrorCode::all().enumerate() {
            assert_eq!(code as usize, index, "{code}");
            assert_eq!(ErrorCode::find(code.as_str()), Some(code));
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(!code.message().is_empty(), "{code}");
        }
        assert_eq!(ErrorCode::find("blob_unknown"), None);
    }

    #[test]
    fn the_statuses_are_those_of_the_spec() {
        let of = |text| ErrorCode::find(text).unwrap().status();
        for (text, status) in [
            ("BLOB_UNKNOWN", 404),
            ("MANIFEST_UNKNOWN", 404),
            ("NAME_UNKNOWN", 404),
            ("NAME_INVALID", 400),
            ("DIGEST_INVALID", 400),
            ("MANIFEST_INVALID", 400),
            ("UNAUTHORIZED", 401),
            ("DENIED", 403),
            ("UNSUPPORTED", 405),
            ("RANGE_INVALID", 416),
            ("TOOMANYREQUESTS", 429),
            ("UNAVAILABLE", 503),
        ] {
            assert_eq!(of(text), status, "{text}");
        }
    }

    #[test]
    fn bodies_have_the_spec_s_form() {
        let text = |errors: &[Item<'_>]| String::from_utf8(body(errors)).unwrap();
        assert_eq!(
            text(&[(ErrorCode::Denied, "", None)]),
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#
        );
        assert_eq!(
            text(&[
                (ErrorCode::Denied, "a \"b\"\r\n\u{1b}[31m", Some("no_signature")),
                (ErrorCode::Unknown, "c", None)
            ]),
            concat!(
                r#"{"errors":[{"code":"DENIED","message":"a \"b\"\r\n\u001b[31m","detail":"no_signature"},"#,
                r#"{"code":"UNKNOWN","message":"c"}]}"#
            )
        );
        assert_eq!(text(&[]), r#"{"errors":[]}"#);
    }

    #[test]
    fn what_we_write_we_read() {
        for code in ErrorCode::all() {
            let expected = UpstreamError { code: code.as_str().into(), message: code.message().into() };
            assert_eq!(parse(&body(&[(code, "", Some("detail"))])), [expected]);
        }
    }

    #[test]
    fn upstream_errors_are_read_with_care() {
        let one =
            |code: &str, message: &str| vec![UpstreamError { code: code.into(), message: message.into() }];
        let rows = [
            (r#"{"errors":[{"code":"A","message":"b","detail":{"c":[1]}}]}"#, one("A", "b")),
            (r#"{"errors":[{"code":"A"}],"errorsX":1}"#, one("A", "")),
            (r#"{"errors":[{"code":null,"message":"b\r\n\u001b[0m"}]}"#, one("", "b[0m")),
            (r#"{"errors":[]}"#, vec![]),
            (r#"{"errors":null}"#, vec![]),
            (r#"{"errors":[{"code":1}]}"#, vec![]),
            (r#"{"detail":"x"}"#, vec![]),
            ("<html>429</html>", vec![]),
            ("Too Many Requests (HAP429).", vec![]),
            ("", vec![]),
            ("\u{FEFF}{}", vec![]),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse(b"{\"errors\":[{\"code\":\"\xFF\"}]}"), vec![]);
        assert_eq!(parse("[".repeat(MAX_BODY).as_bytes()), vec![]);
    }

    #[test]
    fn upstream_errors_are_bounded() {
        let many = format!(r#"{{"errors":[{}]}}"#, vec![r#"{"code":"A"}"#; 1000].join(","));
        assert_eq!(parse(many.as_bytes()).len(), MAX_ERRORS);
        let long = format!(r#"{{"errors":[{{"code":"{0}","message":"{0}"}}]}}"#, "\u{e9}".repeat(1000));
        let read = parse(long.as_bytes());
        assert_eq!((read[0].code.chars().count(), read[0].message.chars().count()), (MAX_CODE, MAX_MESSAGE));
        let padded = format!(r#"{{"errors":[{{"code":"A"}}]}}{}"#, " ".repeat(MAX_BODY));
        assert_eq!(parse(padded.as_bytes()), vec![]);
    }
}
