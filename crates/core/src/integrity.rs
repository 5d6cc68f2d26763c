//! Whether what upstream sent is what was asked for. Bytes speak for themselves: a head is believed only where there are
//! none.

use entrepot_oci::manifest::{MAX_MANIFEST, Manifest};
use entrepot_oci::media::MediaType;
use entrepot_oci::{Algorithm, Digest, Reference};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

use crate::failure::{Failure, Reason};
use crate::upstream::Reply;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a HEAD says of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: MediaType,
}

/// Takes a manifest for what its bytes say. `headers` are those of upstream's answer.
///
/// Errors: `DigestMismatch` when the bytes are not what was asked for, or, by tag, not what the head promised;
/// `UpstreamManifestInvalid` for what is no manifest, or one that two readers could understand differently (T-BI1).
pub fn manifest(
    reference: &Reference,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<(Digest, Manifest), Failure> {
    let wanted = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => said(headers),
    };
    let digest = Digest::of(wanted.map_or(Algorithm::Sha256, |wanted| wanted.algorithm()), bytes);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        return Err(Failure::new(
            Reason::DigestMismatch,
            format!(
                "upstream sent a manifest that hashes to {digest} where {wanted} was promised; nothing was kept"
            ),
        ));
    }
    let manifest = Manifest::parse(bytes, text(headers, CONTENT_TYPE)).map_err(|error| {
        Failure::new(
            Reason::UpstreamManifestInvalid,
            format!("upstream's manifest {reference} is not one: {error}"),
        )
    })?;
    Ok((digest, manifest))
}

/// What upstream's HEAD says of a manifest. `None`: it lacks the digest, the length or a manifest's type, so that only a
/// GET can tell (wire behaviour of ECR).
///
/// Errors: `DigestMismatch` when it speaks of another manifest than the one that was asked for.
pub fn described(reference: &Reference, reply: &Reply) -> Result<Option<Described>, Failure> {
    let said = said(&reply.headers);
    let digest = match (reference, said) {
        (Reference::Digest(wanted), Some(said)) if *wanted != said => {
            return Err(Failure::new(
                Reason::DigestMismatch,
                format!("upstream says {said} where {wanted} was asked for"),
            ));
        }
        (Reference::Digest(wanted), _) => Some(*wanted),
        (Reference::Tag(_), said) => said,
    };
    let media_type = text(&reply.headers, CONTENT_TYPE)
        .and_then(|text| MediaType::parse(text).ok())
        .filter(MediaType::is_manifest);
    let size = reply.size.filter(|size| *size <= MAX_MANIFEST as u64);
    Ok(match (digest, size, media_type) {
        (Some(digest), Some(size), Some(media_type)) => Some(Described { digest, size, media_type }),
        _ => None,
    })
}

/// Holds upstream to the size that a manifest of the same repository gives for a blob (T-BI6). No bytes at all are known
/// to be wrong before they are read, which matters: an empty answer is over with its head, and cannot be broken off.
///
/// Errors: `SizeMismatch`.
pub fn blob_size(digest: &Digest, described: Option<u64>, found: u64) -> Result<(), Failure> {
    let public = match described {
        Some(described) if described != found => format!(
            "upstream has {found} bytes for {digest}, of which its manifest says {described}; nothing was kept"
        ),
        _ if found == 0 && *digest != Digest::of(digest.algorithm(), b"") => {
            format!("upstream has no bytes for {digest}, which some bytes must hash to; nothing was kept")
        }
        _ => return Ok(()),
    };
    Err(Failure::new(Reason::SizeMismatch, public))
}

/// A blob of `received` bytes that hash to something else than was asked for.
pub fn other_blob(wanted: &Digest, found: &Digest, received: u64) -> Failure {
    Failure::new(
        Reason::DigestMismatch,
        format!(
            "upstream sent {received} bytes that hash to {found} where {wanted} was asked for; nothing was kept"
        ),
    )
}

/// A manifest that is larger than any may be.
pub fn too_large(reference: &Reference) -> Failure {
    Failure::new(
        Reason::TooLarge,
        format!("the manifest {reference} has more than {MAX_MANIFEST} bytes; upstream must not send that"),
    )
}

fn said(headers: &HeaderMap) -> Option<Digest> {
    text(headers, DOCKER_CONTENT_DIGEST)?.parse().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn image() -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{EMPTY}","size":2}},"layers":[]}}"#
        )
    }

    fn tag() -> Reference {
        Reference::Tag("v1".parse().unwrap())
    }

    fn headers(digest: Option<&str>, kind: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(digest) = digest {
            headers.insert(DOCKER_CONTENT_DIGEST, HeaderValue::from_str(digest).unwrap());
        }
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        }
        headers
    }

    fn reply(headers: HeaderMap, size: Option<u64>) -> Reply {
        Reply {
            status: StatusCode::OK,
            headers,
            offset: 0,
            length: None,
            size,
            upstream: "https://up.example.com/".parse().unwrap(),
        }
    }

    #[test]
    fn a_manifest_is_what_its_bytes_hash_to() {
        let text = image();
        let digest = Digest::sha256(text.as_bytes());
        let by_digest = Reference::Digest(digest);
        let other = Reference::Digest(Digest::sha256(b"other"));
        let long = Digest::of(Algorithm::Sha512, text.as_bytes());
        let read = |reference: &Reference, said: Option<&str>| {
            manifest(reference, &headers(said, Some(OCI)), text.as_bytes())
                .map(|(digest, _)| digest)
                .map_err(|failure| failure.reason)
        };
        assert_eq!(read(&tag(), None), Ok(digest));
        assert_eq!(read(&tag(), Some(&digest.to_string())), Ok(digest));
        assert_eq!(read(&tag(), Some("not a digest")), Ok(digest));
        assert_eq!(read(&tag(), Some(&long.to_string())), Ok(long));
        assert_eq!(read(&tag(), Some(EMPTY)), Err(Reason::DigestMismatch));
        // By digest the header's word is not needed, and not asked.
        assert_eq!(read(&by_digest, Some(EMPTY)), Ok(digest));
        assert_eq!(read(&Reference::Digest(long), None), Ok(long));
        assert_eq!(read(&other, None), Err(Reason::DigestMismatch));
    }

    #[test]
    fn what_is_no_manifest_is_refused_even_where_the_digest_matches() {
        for (text, kind) in [("{}", OCI), ("not json", OCI), (&*image(), "text/plain")] {
            let by_digest = Reference::Digest(Digest::sha256(text.as_bytes()));
            let read = manifest(&by_digest, &headers(None, Some(kind)), text.as_bytes());
            assert_eq!(read.unwrap_err().reason, Reason::UpstreamManifestInvalid, "{text}");
        }
    }

    #[test]
    fn a_head_is_enough_when_it_says_digest_size_and_type() {
        let whole = reply(headers(Some(EMPTY), Some(OCI)), Some(2));
        let found = described(&tag(), &whole).unwrap().unwrap();
        assert_eq!((found.digest.to_string().as_str(), found.size), (EMPTY, 2));
        let lacking = [
            reply(headers(None, Some(OCI)), Some(2)),
            reply(headers(Some(EMPTY), None), Some(2)),
            reply(headers(Some(EMPTY), Some("text/plain")), Some(2)),
            reply(headers(Some(EMPTY), Some(OCI)), None),
            reply(headers(Some(EMPTY), Some(OCI)), Some(MAX_MANIFEST as u64 + 1)),
        ];
        for reply in lacking {
            assert_eq!(described(&tag(), &reply), Ok(None), "{reply:?}");
        }
    }

    #[test]
    fn a_head_by_digest_speaks_of_that_digest() {
        let reference = Reference::Digest(EMPTY.parse().unwrap());
        let silent = reply(headers(None, Some(OCI)), Some(2));
        assert!(described(&reference, &silent).unwrap().is_some());
        let other = Digest::sha256(b"other").to_string();
        let lying = reply(headers(Some(&other), Some(OCI)), Some(2));
        assert_eq!(described(&reference, &lying).unwrap_err().reason, Reason::DigestMismatch);
    }

    #[test]
    fn a_blob_has_the_size_that_its_manifest_says() {
        let digest = EMPTY.parse().unwrap();
        assert_eq!(blob_size(&digest, None, 5), Ok(()));
        assert_eq!(blob_size(&digest, Some(5), 5), Ok(()));
        assert_eq!(blob_size(&Digest::sha256(b""), None, 0), Ok(()));
        assert!(blob_size(&digest, None, 0).is_err(), "nothing hashes to something else");
        for found in [0, 4, 6, u64::MAX] {
            let failure = blob_size(&digest, Some(5), found).unwrap_err();
            assert_eq!(failure.reason, Reason::SizeMismatch);
        }
    }
}
