//! Fetches secrets from files and from the environment.

use std::fs::File;
use std::io::Read;

use entrepot_core::config::SecretRef;

/// The largest secret, in bytes; certificates and lists of tokens are among them.
const MAX_SECRET: u64 = 64 << 10;

/// The content of a file without one line break at its end, or the value of a variable.
///
/// # Errors
/// Why it cannot be had, in words that follow a colon. They never quote the secret.
pub(crate) fn fetch(reference: &SecretRef) -> Result<String, String> {
    match reference {
        SecretRef::File(path) => file(path),
        SecretRef::Env(name) => variable(name),
    }
}

fn file(path: &str) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(format!("it is larger than {} KiB", MAX_SECRET >> 10));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn variable(name: &str) -> Result<String, String> {
    // A name with `=` or a zero byte is none, and asking for it would panic on some systems.
    if name.contains(['=', '\0']) {
        return Err("that is not the name of a variable".into());
    }
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Err("it is not set".into()),
        Err(std::env::VarError::NotUnicode(_)) => Err("it is not UTF-8 text".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(content: &[u8]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, content).unwrap();
        fetch(&SecretRef::File(path.to_str().unwrap().to_owned()))
    }

    #[test]
    fn one_line_break_at_the_end_does_not_count() {
        assert_eq!(of_file(b"s3cret\n").as_deref(), Ok("s3cret"));
        assert_eq!(of_file(b"s3cret\r\n").as_deref(), Ok("s3cret"));
        assert_eq!(of_file(b" s3cret \n\n").as_deref(), Ok(" s3cret \n"));
        assert_eq!(of_file(b"").as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_secret() {
        assert!(of_file(&[b'x'; (64 << 10) + 1]).is_err_and(|why| why.contains("64 KiB")));
        assert!(of_file(&[b'x'; 64 << 10]).is_ok());
        assert!(of_file(b"\xff").is_err_and(|why| why.contains("UTF-8")));
        assert!(fetch(&SecretRef::File("/nowhere/at/all".into())).is_err());
        assert!(fetch(&SecretRef::File("/".into())).is_err());
        for name in ["ENTREPOT_NO_SUCH_VARIABLE", "", "a=b", "a\0b"] {
            assert!(fetch(&SecretRef::Env(name.into())).is_err(), "{name:?}");
        }
    }
}
