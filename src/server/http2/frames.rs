//! Counts frames as they arrive: where each ends, and whether they are worth their bytes.
//!
//! The h2 crate limits what each kind of frame can make it hold, and ends connections for some of
//! them. It does not end a connection that keeps it busy with frames that have no content. This
//! file does.

use crate::clock::{Clock, Instant};

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// Cost of a frame without a body. An answer earns many times as much. The answer to a PING (17
/// bytes), a reset (13) or an acknowledged SETTINGS (9) earns less.
const FRAME_COST: u64 = 32;
/// Credit at the start: a thousand frames at once are not yet a flood.
const CREDIT_MAX: u64 = 1_000 * FRAME_COST;
/// Credit earned by waiting: a hundred frames a second, many times what keeps a connection alive.
const CREDIT_PER_MS: u64 = FRAME_COST / 10;

/// The peer has sent more frames than they are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

/// Parses the frames that a peer sends.
#[derive(Debug)]
pub struct Frames {
    clock: Clock,
    at: At,
    /// Whether a header block has begun that continues in CONTINUATION frames.
    in_block: bool,
    /// Number of frames that have begun, without those that continue a header block.
    begun: u64,
    credit: u64,
    earned_until: Instant,
}

#[derive(Debug)]
enum At {
    /// Bytes of the preface that are still missing.
    Preface(usize),
    /// Bytes of a frame's header so far.
    Header([u8; HEADER_BYTES], usize),
    /// Bytes of its payload that are still missing, and whether they belong to a body.
    Payload(usize, bool),
}

impl Frames {
    /// Creates the state of a connection that was just opened.
    pub fn new(clock: Clock) -> Self {
        Self {
            earned_until: clock.now(),
            clock,
            at: At::Preface(PREFACE_BYTES),
            in_block: false,
            begun: 0,
            credit: CREDIT_MAX,
        }
    }

    /// Records received bytes.
    ///
    /// # Errors
    /// Fails if the connection should end.
    pub fn came(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let used = match &mut self.at {
                At::Preface(left) | At::Payload(left, _) => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        self.at = At::Header([0; HEADER_BYTES], 0);
                    }
                    used
                }
                At::Header(header, have) => {
                    if *have == 0 && !self.in_block {
                        self.begun += 1;
                    }
                    let mut used = 0;
                    for (to, from) in header.iter_mut().skip(*have).zip(bytes) {
                        *to = *from;
                        used += 1;
                    }
                    *have += used;
                    if *have == HEADER_BYTES {
                        let header = *header;
                        self.begin(header)?;
                    }
                    used
                }
            };
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    fn begin(&mut self, header: [u8; HEADER_BYTES]) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = header;
        let payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let has = |flag: u8| flags & flag != 0;
        match kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => self.in_block = !has(END_HEADERS),
            _ => {}
        }
        // With padding, an empty frame can look full.
        let is_body = kind == DATA && !has(PADDED) && (payload > 0 || has(END_STREAM));
        self.at = if payload == 0 {
            At::Header([0; HEADER_BYTES], 0)
        } else {
            At::Payload(payload, kind == DATA)
        };
        if is_body { Ok(()) } else { self.pay() }
    }

    fn pay(&mut self) -> Result<(), Flood> {
        if self.credit < FRAME_COST {
            // The clock is read only now, because reading it for every frame would be expensive.
            let now = self.clock.now();
            let idle = now.saturating_duration_since(self.earned_until);
            let earned = u64::try_from(idle.as_millis()).unwrap_or(CREDIT_MAX);
            self.earned_until = now;
            self.earn(earned.saturating_mul(CREDIT_PER_MS));
        }
        self.credit = self.credit.checked_sub(FRAME_COST).ok_or(Flood)?;
        Ok(())
    }

    fn earn(&mut self, credit: u64) {
        self.credit = self.credit.saturating_add(credit).min(CREDIT_MAX);
    }

    /// Records sent bytes.
    pub fn sent(&mut self, bytes: usize) {
        self.earn(bytes as u64);
    }

    /// Returns the number of the incomplete frame, or header block of several frames, which must be
    /// complete in time. `None` between frames. A body has a time limit of its own.
    pub fn unfinished(&self) -> Option<u64> {
        let between = match self.at {
            At::Preface(_) | At::Payload(_, false) => false,
            At::Payload(_, true) => true,
            At::Header(_, have) => have == 0,
        };
        (!between || self.in_block).then_some(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Duration, sleep};

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![
            0,
            (payload >> 8) as u8,
            payload as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        bytes.resize(HEADER_BYTES + payload, 0);
        bytes
    }

    fn opened() -> Frames {
        let mut frames = Frames::new(Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap()));
        assert_eq!(frames.unfinished(), Some(0));
        frames.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        assert_eq!(frames.unfinished(), None);
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn frames_end_where_they_end_however_they_come() {
        for piece in [1, 2, 8, 9, 10, 1000] {
            let mut frames = opened();
            let mut bytes = frame(4, 0, 6);
            bytes.extend(frame(HEADERS, 0, 300));
            bytes.extend(frame(CONTINUATION, 0, 0));
            for part in bytes.chunks(piece) {
                frames.came(part).unwrap();
            }
            // This is one header block, however many frames it has.
            assert_eq!(frames.unfinished(), Some(2), "{piece}");
            frames.came(&frame(CONTINUATION, END_HEADERS, 5)).unwrap();
            assert_eq!(frames.unfinished(), None, "{piece}");
            frames.came(&frame(DATA, 0, 100)[..50]).unwrap();
            assert_eq!(frames.unfinished(), None, "a body has its own time");
            frames.came(&[0; 59]).unwrap();
            frames.came(&frame(6, 0, 8)[..12]).unwrap();
            assert_eq!(frames.unfinished(), Some(4), "{piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_worth_nothing_ends_the_connection() {
        let empty = [
            (DATA, 0, 0),
            (DATA, PADDED, 40),
            (HEADERS, END_HEADERS, 1),
            (CONTINUATION, 0, 0),
            (2, 0, 5),
            (3, 0, 4),
            (4, 0, 0),
            (6, 0, 8),
            (8, 0, 4),
            (200, 0, 1),
        ];
        for (kind, flags, payload) in empty {
            let mut frames = opened();
            let bytes = frame(kind, flags, payload);
            let taken = (0..100_000).take_while(|_| frames.came(&bytes).is_ok());
            assert_eq!(taken.count(), 1_000, "{kind}");
            // A second later, a hundred more frames are accepted.
            sleep(Duration::from_secs(1)).await;
            let mut more = opened();
            (more.credit, more.earned_until) = (0, frames.earned_until);
            let taken = (0..1_000).take_while(|_| more.came(&bytes).is_ok());
            assert_eq!(taken.count(), 93, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn honest_traffic_never_runs_out() {
        let mut frames = opened();
        for _ in 0..100_000 {
            // A request, its answer of 300 bytes, and a reader that acknowledges often.
            frames.came(&frame(HEADERS, END_HEADERS, 40)).unwrap();
            frames.came(&frame(DATA, END_STREAM, 30)).unwrap();
            frames.sent(300);
            frames.came(&frame(8, 0, 4)).unwrap();
            frames.came(&frame(8, 0, 4)).unwrap();
        }
        // Pings are counted even if they are answered.
        let ping = frame(6, 0, 8);
        let mut pinged = 0;
        while frames.came(&ping).is_ok() {
            frames.sent(17);
            pinged += 1;
        }
        assert!((2_000..2_300).contains(&pinged), "{pinged}");
    }
}
