//! Compressed answers: they are not asked for, and some BMCs send them all the same. Pure.

use std::io::{self, Read as _};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use hyper::body::Bytes;

use super::line::BODY_MAX;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// An encoding that nobody asked for and that is not known.
    Unknown(String),
    /// It is not what its head says.
    Broken,
    /// It is larger than any answer.
    TooLarge,
}

/// The body as it was before it was compressed; the limit of a body holds for what comes out.
pub(super) fn decoded(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Unreadable> {
    let mut names = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        names.extend(text.split(',').map(|name| name.trim().to_owned()));
    }
    names.retain(|name| !name.is_empty() && name != "identity");
    match names.as_slice() {
        [] => Ok(body),
        _ if body.is_empty() => Ok(body),
        [one] => match one.as_str() {
            "gzip" | "x-gzip" => whole(MultiGzDecoder::new(&*body)),
            // By the standard with a zlib head; some leave it out.
            "deflate" => match whole(ZlibDecoder::new(&*body)) {
                Err(Unreadable::Broken) => whole(DeflateDecoder::new(&*body)),
                other => other,
            },
            _ => Err(Unreadable::Unknown(one.clone())),
        },
        several => Err(Unreadable::Unknown(several.join(", "))),
    }
}

fn whole(decoder: impl io::Read) -> Result<Bytes, Unreadable> {
    let mut bytes = Vec::new();
    let read = decoder.take(BODY_MAX as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(length) if length > BODY_MAX => Err(Unreadable::TooLarge),
        Ok(_) => Ok(bytes.into()),
        Err(_) => Err(Unreadable::Broken),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn said(encoding: &str, body: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        decoded(&headers, Bytes::copy_from_slice(body)).map(Into::into)
    }

    #[test]
    fn what_was_compressed_is_read_and_what_is_unknown_is_named() {
        let text = b"{\"Id\":\"one\"}";
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(text).unwrap();
        assert_eq!(said("gzip", &gzip).unwrap(), text);
        assert_eq!(said("X-GZIP", &gzip).unwrap(), text);
        assert_eq!(said("deflate", &zlib.finish().unwrap()).unwrap(), text);
        assert_eq!(said("deflate", &raw.finish().unwrap()).unwrap(), text);
        assert_eq!(said("identity", text).unwrap(), text);
        assert_eq!(said("br", text), Err(Unreadable::Unknown("br".to_owned())));
        assert_eq!(said("gzip, br", text), Err(Unreadable::Unknown("gzip, br".to_owned())));
        assert_eq!(said("gzip", text), Err(Unreadable::Broken));
        assert_eq!(said("gzip", &gzip[..gzip.len() - 9]), Err(Unreadable::Broken));
        assert_eq!(said("gzip", b""), Ok(Vec::new()));
    }

    #[test]
    fn a_small_body_that_grows_without_end_is_not_read() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![b' '; 64 << 20]).unwrap();
        let bomb = bomb.finish().unwrap();
        assert!(bomb.len() < BODY_MAX);
        assert_eq!(said("gzip", &bomb), Err(Unreadable::TooLarge));
    }
}
