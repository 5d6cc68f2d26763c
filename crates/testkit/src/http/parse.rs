use std::io;

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a header; `name` in lower case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// A head and its length, once the bytes hold all of it.
pub(super) fn head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Response::new(&mut slots);
    let status = parsed.parse(bytes).map_err(|error| {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("{error}: {shown:?}"))
    })?;
    let httparse::Status::Complete(used) = status else {
        return Ok(None);
    };
    let headers = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    Ok(Some((Head { status: parsed.code.unwrap_or(0), headers }, used)))
}

/// Every answer in a run of bytes; the last may be cut short.
pub(crate) fn all(bytes: &[u8]) -> Vec<(Head, Vec<u8>)> {
    let mut rest = bytes.to_vec();
    let mut answers = Vec::new();
    while let Ok(Some((head, used))) = head(&rest) {
        rest.drain(..used);
        let mut decoder = Decoder::new(&head, "GET");
        let mut body = Vec::new();
        while let Progress::Data(piece) = decoder.next(&mut rest) {
            body.extend_from_slice(&piece);
        }
        answers.push((head, body));
    }
    answers
}

/// Takes a body out of its framing.
#[derive(Debug)]
pub(super) enum Decoder {
    Length(u64),
    Chunked { left: u64, ended: bool, between: bool },
    UntilClose,
}

pub(super) enum Progress {
    Data(Vec<u8>),
    More,
    End,
    Broken,
}

impl Decoder {
    pub(super) fn new(head: &Head, method: &str) -> Self {
        if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
            return Decoder::Length(0);
        }
        if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Decoder::Chunked { left: 0, ended: false, between: false };
        }
        match head.header("content-length").and_then(|text| text.parse().ok()) {
            Some(length) => Decoder::Length(length),
            None => Decoder::UntilClose,
        }
    }

    pub(super) fn may_end_here(&self) -> bool {
        matches!(self, Decoder::UntilClose)
    }

    pub(super) fn next(&mut self, buffer: &mut Vec<u8>) -> Progress {
        match self {
            Decoder::Length(0) => Progress::End,
            Decoder::Length(_) | Decoder::UntilClose if buffer.is_empty() => Progress::More,
            Decoder::Length(left) => {
                let data = take(buffer, *left);
                *left -= data.len() as u64;
                Progress::Data(data)
            }
            Decoder::UntilClose => Progress::Data(std::mem::take(buffer)),
            Decoder::Chunked { left, ended, between } => loop {
                if *left > 0 {
                    if buffer.is_empty() {
                        return Progress::More;
                    }
                    let data = take(buffer, *left);
                    *left -= data.len() as u64;
                    *between = *left == 0;
                    return Progress::Data(data);
                }
                let Some(at) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
                    return Progress::More;
                };
                let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
                buffer.drain(..at + 2);
                match (*between, *ended) {
                    (true, _) if line.is_empty() => *between = false,
                    (true, _) => return Progress::Broken,
                    (false, true) if line.is_empty() => return Progress::End,
                    (false, true) => {}
                    (false, false) => {
                        let size = line.split(';').next().unwrap_or_default().trim();
                        match u64::from_str_radix(size, 16) {
                            Ok(0) => *ended = true,
                            Ok(size) => *left = size,
                            Err(_) => return Progress::Broken,
                        }
                    }
                }
            },
        }
    }
}

fn take(buffer: &mut Vec<u8>, at_most: u64) -> Vec<u8> {
    let n = (buffer.len() as u64).min(at_most) as usize;
    if n == buffer.len() {
        return std::mem::take(buffer);
    }
    buffer.drain(..n).collect()
}
