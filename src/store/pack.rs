//! Bytes of records, field by field: fixed widths, little-endian, texts with their length before
//! them.

use bytes::Bytes;

use crate::clock::Stamp;

/// Writes fields one after the other.
#[derive(Debug, Default)]
pub struct PackWriter(Vec<u8>);

impl PackWriter {
    /// Writes bytes as they are, of a length that the reader knows.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes one byte.
    pub fn u8(&mut self, n: u8) -> &mut Self {
        self.fixed(&[n])
    }

    /// Writes a boolean as one byte.
    pub fn flag(&mut self, yes: bool) -> &mut Self {
        self.u8(u8::from(yes))
    }

    /// Writes four bytes.
    pub fn u32(&mut self, n: u32) -> &mut Self {
        self.fixed(&n.to_le_bytes())
    }

    /// Writes eight bytes.
    pub fn u64(&mut self, n: u64) -> &mut Self {
        self.fixed(&n.to_le_bytes())
    }

    /// Writes a moment.
    pub fn stamp(&mut self, stamp: Stamp) -> &mut Self {
        self.fixed(&stamp.to_bytes())
    }

    /// Writes a length, then as many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u64(bytes.len() as u64).fixed(bytes)
    }

    /// Returns the bytes written.
    pub fn done(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads fields in the order in which they were written. `None` past the end.
#[derive(Clone, Debug)]
pub struct PackReader(Bytes);

impl PackReader {
    /// Reads these bytes from their start.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    /// Reads as many bytes as the array has.
    pub fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.fixed().map(|[n]| n)
    }

    /// Reads a boolean. `None` for a byte other than 0 and 1.
    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Reads four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// Reads eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// Reads a moment.
    pub fn stamp(&mut self) -> Option<Stamp> {
        self.fixed().map(|bytes| Stamp::from_bytes(&bytes))
    }

    /// Reads a length, then as many bytes, shared and not copied.
    pub fn bytes(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.u64()?).ok()?;
        self.take(len)
    }

    /// Returns whether everything was read.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn fields_come_back_and_cut_ones_do_not() {
        let stamp = Clock::system().stamp();
        let packed = PackWriter::default()
            .u8(7)
            .flag(true)
            .u32(1 << 20)
            .u64(1 << 40)
            .stamp(stamp)
            .bytes(b"text")
            .done();
        let read = |bytes: &[u8]| {
            let mut reader = PackReader::new(Bytes::copy_from_slice(bytes));
            let read = (
                reader.u8()?,
                reader.flag()?,
                reader.u32()?,
                reader.u64()?,
                reader.stamp()?,
                reader.bytes()?,
            );
            reader.is_over().then_some(read)
        };
        let whole = (
            7,
            true,
            1 << 20,
            1 << 40,
            stamp,
            Bytes::from_static(b"text"),
        );
        assert_eq!(read(&packed), Some(whole));
        for cut in 0..packed.len() {
            assert_eq!(read(&packed[..cut]), None, "cut at {cut}");
        }
        let mut flag = packed;
        flag[1] = 2;
        assert_eq!(read(&flag), None);
    }
}
