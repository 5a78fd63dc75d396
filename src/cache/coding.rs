//! Content codings, and the effort of each.

use std::io::{self, Write as _};

use bytes::Bytes;
use http::HeaderValue;

/// A content coding in which bodies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `zstd`
    Zstd,
    /// `br`
    Brotli,
    /// `gzip`
    Gzip,
}

// A variant is made once and sent many times, so the levels favour small results. 250 cases of
// 131,718 bytes became 21,621 (zstd), 21,775 (br) and 22,531 (gzip). The next level of each takes
// twice the time for 3 % or less.
const ZSTD_LEVEL: i32 = 9;
const BROTLI_QUALITY: i32 = 6;
/// Bits of brotli's window: larger than any body here, so that the whole body is within it.
const BROTLI_WINDOW: i32 = 22;
const GZIP_LEVEL: u32 = 6;

impl Coding {
    /// Every coding, in order of preference. Their sizes differ by a few percent, and zstd costs a
    /// caller least to decode.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Returns the word in `Accept-Encoding`, `Content-Encoding`, tags and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the value of `Content-Encoding`.
    pub const fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }

    /// Encodes `body`. This takes milliseconds, so it must not run on a thread that answers
    /// requests.
    ///
    /// # Errors
    /// If the library fails. No input is known to cause it.
    pub fn encode(self, body: &[u8]) -> io::Result<Bytes> {
        let out = Vec::with_capacity(body.len() / 4);
        let coded = match self {
            Self::Zstd => {
                let mut coder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                // The frame's header contains the length, so a decoder can allocate once.
                coder.set_pledged_src_size(Some(body.len() as u64))?;
                coder.write_all(body)?;
                coder.finish()?
            }
            Self::Brotli => {
                let params = brotli::enc::BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW,
                    size_hint: body.len(),
                    ..Default::default()
                };
                let mut out = out;
                brotli::BrotliCompress(&mut &*body, &mut out, &params)?;
                out
            }
            Self::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                let mut coder = flate2::write::GzEncoder::new(out, level);
                coder.write_all(body)?;
                coder.finish()?
            }
        };
        // Spare capacity is freed, so that the charge equals the memory in use.
        Ok(coded.into_boxed_slice().into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Zstd => zstd::Decoder::new(coded).unwrap().read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out),
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    #[test]
    fn what_is_coded_can_be_read_again() {
        let rows = |n| {
            (0..n)
                .map(|n| format!("{{\"id\":{n}}},"))
                .collect::<String>()
        };
        for body in [String::new(), "x".to_owned(), rows(10), rows(20_000)] {
            for coding in Coding::ALL {
                let coded = coding.encode(body.as_bytes()).unwrap();
                assert_eq!(decoded(coding, &coded), body.as_bytes(), "{coding:?}");
                assert!(body.len() < 1000 || coded.len() < body.len() / 2);
            }
        }
    }
}
