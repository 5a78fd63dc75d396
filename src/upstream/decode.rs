//! Decodes answers that a vendor sends in a content coding, although none was asked for.
//!
//! The gateway asks for `identity`, but a network in front of the vendor may compress answers with
//! gzip all the same. Such an answer is valid. Its decoded size has the same limit as a plain body,
//! so a small answer that decodes to gigabytes uses no more memory than the limit.

use std::io::{self, Read};

use bytes::Bytes;
use http::{HeaderMap, header};

use super::Fault;
use super::body::{BodyFault, malformed};

/// The most codings of one body. Real answers have one.
const CODINGS_MAX: usize = 3;
/// Bytes decoded before the task yields.
const DECODED_AT_ONCE: usize = 256 << 10;
/// zstd: largest window, as a power of two. RFC 9659 lets no content coding need more than 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// brotli: buffer of the reader. Its window is at most 16 MiB by RFC 7932.
const BROTLI_BUFFER: usize = 4096;

const UNKNOWN: BodyFault =
    malformed("the body has a content coding that the gateway does not know");
const BROKEN: BodyFault = malformed("the body does not decode as its Content-Encoding says");
const TOO_LARGE: BodyFault = (Fault::TooLarge, "the decoded body is larger than the limit");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The codings of a body in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, BodyFault> {
    let mut found = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| UNKNOWN)?;
        for word in text.split(',').map(str::trim) {
            found.push(match word.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                _ => return Err(UNKNOWN),
            });
        }
    }
    if found.len() > CODINGS_MAX {
        return Err(malformed("the body has too many content codings"));
    }
    Ok(found)
}

/// Returns the body without its content codings, at most `bytes_max` bytes of it.
///
/// # Errors
/// [`Fault::Malformed`] if it does not decode, [`Fault::TooLarge`] if it decodes to more.
pub(super) async fn decoded(
    headers: &HeaderMap,
    mut body: Bytes,
    bytes_max: usize,
) -> Result<Bytes, BodyFault> {
    for coding in codings(headers)?.into_iter().rev() {
        // Boxed, because every vendor call would carry the room for a decoder, and few need one.
        body = Box::pin(undo(coding, &body, bytes_max)).await?;
    }
    Ok(body)
}

async fn undo(coding: Coding, body: &[u8], bytes_max: usize) -> Result<Bytes, BodyFault> {
    match coding {
        Coding::Gzip => drain(flate2::read::MultiGzDecoder::new(body), bytes_max).await,
        // The name means zlib, but some senders omit its two header bytes.
        Coding::Deflate if is_zlib(body) => {
            drain(flate2::read::ZlibDecoder::new(body), bytes_max).await
        }
        Coding::Deflate => drain(flate2::read::DeflateDecoder::new(body), bytes_max).await,
        Coding::Brotli => drain(brotli::Decompressor::new(body, BROTLI_BUFFER), bytes_max).await,
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(body).map_err(|_| BROKEN)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|_| BROKEN)?;
            drain(decoder, bytes_max).await
        }
    }
}

/// The method is deflate, and both bytes together are a multiple of 31: RFC 1950.
fn is_zlib(body: &[u8]) -> bool {
    match body {
        [first, second, ..] => {
            first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0
        }
        _ => false,
    }
}

async fn drain(mut decoder: impl Read, bytes_max: usize) -> Result<Bytes, BodyFault> {
    let mut out = Vec::new();
    loop {
        let room = bytes_max - out.len();
        // Decoding one byte beyond the limit shows that the body is too large.
        let part = DECODED_AT_ONCE.min(room.saturating_add(1)) as u64;
        match io::copy(&mut decoder.by_ref().take(part), &mut out) {
            Ok(0) => {
                // Snapshots keep rows within the body, so nothing unused may hang on it.
                out.shrink_to_fit();
                return Ok(out.into());
            }
            Ok(_) if out.len() > bytes_max => return Err(TOO_LARGE),
            Ok(_) => tokio::task::yield_now().await,
            Err(_) => return Err(BROKEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const PLAIN: &[u8] = br#"{"data":[],"next_page_key":null}"#;

    fn coded(coding: &str, plain: &[u8]) -> Vec<u8> {
        use flate2::Compression;
        match coding {
            "gzip" => {
                let mut w = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
                w.write_all(plain).unwrap();
                w.finish().unwrap()
            }
            "zlib" => {
                let mut w = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
                w.write_all(plain).unwrap();
                w.finish().unwrap()
            }
            "raw" => {
                let mut w = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
                w.write_all(plain).unwrap();
                w.finish().unwrap()
            }
            "br" => {
                let mut out = Vec::new();
                brotli::CompressorWriter::new(&mut out, 4096, 5, 22)
                    .write_all(plain)
                    .unwrap();
                out
            }
            "zstd" => zstd::stream::encode_all(plain, 1).unwrap(),
            _ => plain.to_vec(),
        }
    }

    async fn decode(header: &str, body: Vec<u8>, max: usize) -> Result<Bytes, BodyFault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, header.parse().unwrap());
        decoded(&headers, body.into(), max).await
    }

    #[tokio::test]
    async fn every_coding_of_the_registry_is_undone() {
        for (name, how) in [
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("GZIP", "gzip"),
            ("deflate", "zlib"),
            ("deflate", "raw"),
            ("br", "br"),
            ("zstd", "zstd"),
            ("identity", "none"),
            ("identity, gzip", "gzip"),
            ("", "none"),
        ] {
            let plain = decode(name, coded(how, PLAIN), 1000).await;
            assert_eq!(plain.unwrap(), PLAIN, "{name} {how}");
        }
        let twice = coded("zstd", &coded("gzip", PLAIN));
        assert_eq!(decode("gzip, zstd", twice, 1000).await.unwrap(), PLAIN);
    }

    #[tokio::test]
    async fn bombs_and_rubbish_are_told_apart() {
        let zeros = vec![b'0'; 4 << 20];
        for how in ["gzip", "zlib", "raw", "br", "zstd"] {
            let name = match how {
                "zlib" | "raw" => "deflate",
                name => name,
            };
            let bomb = coded(how, &zeros);
            assert!(bomb.len() < 100_000, "{how}");
            let end = decode(name, bomb.clone(), 1 << 20).await;
            assert_eq!(end, Err(TOO_LARGE), "{how}");
            assert_eq!(decode(name, bomb, 4 << 20).await.unwrap().len(), 4 << 20);
            let whole = coded(how, PLAIN);
            let cut = whole[..whole.len() / 2].to_vec();
            assert_eq!(decode(name, cut, 1000).await, Err(BROKEN), "{how}");
            let rubbish = vec![0xff; 40];
            assert_eq!(decode(name, rubbish, 1000).await, Err(BROKEN), "{how}");
        }
        for unknown in ["compress", "gzip;q=1", "\u{1}"] {
            if http::HeaderValue::from_str(unknown).is_ok() {
                assert_eq!(decode(unknown, PLAIN.to_vec(), 1000).await, Err(UNKNOWN));
            }
        }
        let many = decode("gzip, gzip, gzip, gzip", PLAIN.to_vec(), 1000).await;
        assert_eq!(many.unwrap_err().0, Fault::Malformed);
    }
}
