//! A store in one file on this machine. It survives crashes and power cuts.
//!
//! ```text
//! call ─▶ ledger (decides, in memory) ─▶ queue (64 MiB) ─▶ writer thread ─▶ redb file
//!                    └─▶ queue, or the file on the blocking pool ─▶ bytes
//! ```
//!
//! One thread writes. Vendor pages are committed at once, everything else within 200 ms. Changes
//! are written in the order of the queue, and a commit is atomic. So after a crash the file holds
//! the state that the ledger had at one moment.
//!
//! The file is opened in the background. A file that cannot be read is renamed to `….unreadable`,
//! and the store starts empty. If the disk fails or is full, the store is away and tries again
//! every ten seconds. Changes made meanwhile wait in the queue; those that do not fit are not kept.
//!
//! Nothing here may delay a request or the end of the process: no lock is held while the disk is
//! written, and readers have a time limit in [`Store`](super::Store).

mod examine;
mod medium;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{Semaphore, oneshot, watch};

pub use self::examine::{Examined, examine, wipe};
use self::medium::{Directory, is_damage};
pub use self::medium::{Medium, OpenFault, aside, builder, file_in};
use super::engine::{Engine, EngineState, StoreFault, StoreFuture, StoreOp, StoreReply};
use super::ledger::{Judged, Ledger, Place, Table, TableChange};
use crate::clock::Duration;
use crate::metrics::{RecordReject, StoreMetrics};

/// Sealed bytes that may wait to be written: some 64 vendor pages of the largest kind, or a minute
/// of answers while the disk is busy.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Changes that may wait to be written, whatever their size.
const QUEUE_CHANGES_MAX: usize = 1 << 16;
/// The most bytes in one commit.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How long changes that are not urgent wait for others, so that they share a commit.
const GATHER: Duration = Duration::from_millis(200);
/// How soon a file that another process has open is tried again. That process usually ends soon.
const LOCKED_RETRY: Duration = Duration::from_millis(250);
/// How soon a disk that failed is tried again.
const AWAY_RETRY: Duration = Duration::from_secs(10);
/// The most reads at once. A disk that hangs blocks no more threads than this.
const READS_MAX: usize = 32;

/// Identifies a file, so that another file in its place is noticed.
const FILE_ID: &[u8] = b"file";

/// The directory and the maximum size of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The directory. Nothing else may use it.
    pub directory: PathBuf,
    /// Sealed bytes kept. The file may take twice as much.
    pub bytes_max: u64,
}

/// A store on this machine's disk.
pub struct Disk {
    shared: Arc<DiskShared>,
    reads: Arc<Semaphore>,
}

struct DiskShared {
    state: Mutex<DiskState>,
    /// Wakes the writer.
    work: Condvar,
    /// Signals that the writer has ended.
    left: Condvar,
    phase: watch::Sender<EngineState>,
    metrics: Arc<StoreMetrics>,
    bytes_max: u64,
}

/// The number of a queued change and its bytes.
type Waiting = (u64, Option<Bytes>);

#[derive(Default)]
struct DiskState {
    /// `None` until the file was opened for the first time.
    ledger: Option<Ledger>,
    database: Option<Arc<Database>>,
    file_id: Option<Bytes>,
    queue: VecDeque<(u64, TableChange)>,
    queued_bytes: usize,
    /// The newest value of each place that is still queued.
    waiting: HashMap<Place, Waiting, RandomState>,
    /// Number of the last change that was queued.
    queued: u64,
    /// Notified when the change of this number is committed.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
    urgent: bool,
    /// Whether a read found damage.
    damaged: bool,
    closing: bool,
    left: bool,
    resets: u64,
}

/// The outcome of a call before anything is awaited.
enum Begun {
    Reply(StoreReply),
    /// Wait for the commit.
    Safe(StoreReply, oneshot::Receiver<()>),
    Read(Arc<Database>, Judged),
    Fault(StoreFault),
    Opening,
}

impl Disk {
    /// Begins to open the store in a directory.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn open(options: DiskOptions, metrics: Arc<StoreMetrics>) -> std::io::Result<Self> {
        let medium = Directory::new(options.directory);
        Self::over(medium, options.bytes_max, metrics)
    }

    /// Opens the store over any medium.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn over(
        medium: impl Medium,
        bytes_max: u64,
        metrics: Arc<StoreMetrics>,
    ) -> std::io::Result<Self> {
        metrics.up.set(0);
        let shared = Arc::new(DiskShared {
            state: Mutex::default(),
            work: Condvar::new(),
            left: Condvar::new(),
            phase: watch::Sender::new(EngineState::Opening),
            metrics,
            bytes_max,
        });
        let writer = DiskWriter {
            shared: shared.clone(),
            medium: Box::new(medium),
            told: false,
        };
        std::thread::Builder::new()
            .name("msp-store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            shared,
            reads: Arc::new(Semaphore::new(READS_MAX)),
        })
    }

    fn begin(&self, op: &StoreOp) -> Begun {
        let phase = *self.shared.phase.borrow();
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        let Some(ledger) = &mut state.ledger else {
            return match phase {
                EngineState::Opening => Begun::Opening,
                EngineState::Ok | EngineState::Away => Begun::Fault(StoreFault::Away),
            };
        };
        if state.closing
            || state.queued_bytes + op.bytes() > QUEUE_BYTES_MAX
            || state.queue.len() >= QUEUE_CHANGES_MAX
        {
            return Begun::Fault(StoreFault::Full);
        }
        let mut changes = Vec::new();
        let judged = ledger.judge(op, &mut changes);
        self.shared.metrics.bytes.set(signed(ledger.bytes()));
        let changed = !changes.is_empty();
        state.enqueue(changes);
        let begun = match judged {
            Judged::TooLarge => Begun::Fault(StoreFault::Full),
            // The change is queued, but it is unknown when it will be safe.
            Judged::Reply(_) if changed && op.is_to_be_safe() && phase == EngineState::Away => {
                Begun::Fault(StoreFault::Away)
            }
            Judged::Reply(reply) if changed && op.is_to_be_safe() => {
                let (tell, told) = oneshot::channel();
                state.waiters.push((state.queued, tell));
                state.urgent = true;
                Begun::Safe(reply, told)
            }
            Judged::Reply(reply) => Begun::Reply(reply),
            Judged::Read(place) => match state.waiting.get(&place) {
                Some((_, waiting)) => Begun::Reply(StoreReply::Value(waiting.clone())),
                None => state.read(Judged::Read(place)),
            },
            Judged::ReadHead(place, standing) => match state.waiting.get(&place) {
                Some((_, waiting)) => {
                    let head = waiting.clone().map(|head| (standing, head));
                    Begun::Reply(StoreReply::Head(head))
                }
                None => state.read(Judged::ReadHead(place, standing)),
            },
        };
        drop(guard);
        if changed {
            self.shared.work.notify_one();
        }
        begun
    }

    async fn finish(&self, begun: Begun, op: StoreOp) -> Result<StoreReply, StoreFault> {
        let mut begun = begun;
        loop {
            match begun {
                Begun::Reply(reply) => return Ok(reply),
                Begun::Fault(fault) => return Err(fault),
                Begun::Safe(reply, told) => {
                    // Without a notification, the store went away meanwhile or started empty.
                    return told.await.map(|()| reply).map_err(|_| StoreFault::Away);
                }
                Begun::Read(database, judged) => {
                    // The read holds its permit, so that abandoned reads count too.
                    let Ok(permit) = self.reads.clone().try_acquire_owned() else {
                        return Err(StoreFault::Full);
                    };
                    let shared = self.shared.clone();
                    let read = tokio::task::spawn_blocking(move || {
                        let _permit = permit;
                        shared.read(&database, judged)
                    });
                    return read.await.unwrap_or(Err(StoreFault::Failed));
                }
                Begun::Opening => {
                    let mut phase = self.shared.phase.subscribe();
                    let opened = phase.wait_for(|phase| *phase != EngineState::Opening);
                    if opened.await.is_err() {
                        return Err(StoreFault::Away);
                    }
                    begun = self.begin(&op);
                }
            }
        }
    }
}

impl Engine for Disk {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        let begun = self.begin(&op);
        Box::pin(self.finish(begun, op))
    }

    fn state(&self) -> EngineState {
        *self.shared.phase.borrow()
    }

    fn resets(&self) -> u64 {
        self.shared.state.lock().resets
    }

    fn close(&self, limit: Duration) {
        let mut state = self.shared.state.lock();
        state.closing = true;
        self.shared.work.notify_one();
        let left = |state: &mut DiskState| !state.left;
        self.shared.left.wait_while_for(&mut state, left, limit);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_one();
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.as_str())
}

impl DiskState {
    fn enqueue(&mut self, changes: Vec<TableChange>) {
        for (place, value) in changes {
            self.queued += 1;
            self.queued_bytes += value.as_ref().map_or(0, Bytes::len);
            self.waiting
                .insert(place.clone(), (self.queued, value.clone()));
            self.queue.push_back((self.queued, (place, value)));
        }
    }

    fn read(&self, judged: Judged) -> Begun {
        match &self.database {
            Some(database) => Begun::Read(database.clone(), judged),
            None => Begun::Fault(StoreFault::Away),
        }
    }

    /// Returns the next changes to commit together. They stay queued until they are committed.
    fn batch(&self) -> Vec<(u64, TableChange)> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        for (number, change) in &self.queue {
            bytes += change.1.as_ref().map_or(0, Bytes::len);
            batch.push((*number, change.clone()));
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        batch
    }

    /// Removes the changes up to `number` from the queue, because they are committed.
    fn committed(&mut self, number: u64) {
        while let Some((queued, _)) = self.queue.front()
            && *queued <= number
            && let Some((queued, (place, value))) = self.queue.pop_front()
        {
            self.queued_bytes -= value.as_ref().map_or(0, Bytes::len);
            if self
                .waiting
                .get(&place)
                .is_some_and(|(newest, _)| *newest == queued)
            {
                self.waiting.remove(&place);
            }
        }
        let (safe, waiters) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|(waits_for, _)| *waits_for <= number);
        self.waiters = waiters;
        let safe: Vec<(u64, oneshot::Sender<()>)> = safe;
        for (_, waiter) in safe {
            // The waiting operation may have been dropped.
            let _ = waiter.send(());
        }
        self.urgent = !self.waiters.is_empty();
    }

    /// Starts empty: all stored and queued changes are gone.
    fn begin_empty(&mut self, ledger: Ledger) {
        self.ledger = Some(ledger);
        self.queue.clear();
        self.queued_bytes = 0;
        self.waiting.clear();
        self.waiters.clear();
        self.urgent = false;
    }
}

impl DiskShared {
    /// Reads from the file, on a thread that may wait for the disk.
    fn read(&self, database: &Database, judged: Judged) -> Result<StoreReply, StoreFault> {
        let (place, standing) = match judged {
            Judged::Read(place) => (place, None),
            Judged::ReadHead(place, standing) => (place, Some(standing)),
            Judged::Reply(reply) => return Ok(reply),
            Judged::TooLarge => return Err(StoreFault::Full),
        };
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| get(database, &place)));
        let value = match read {
            Ok(Ok(value)) => value,
            Ok(Err(error)) if !is_damage(&error) => {
                tracing::debug!(%error, "the store could not be read");
                return Err(StoreFault::Failed);
            }
            Ok(Err(_)) | Err(_) => {
                self.state.lock().damaged = true;
                self.work.notify_one();
                return Err(StoreFault::Failed);
            }
        };
        Ok(match standing {
            None => StoreReply::Value(value),
            Some(standing) => StoreReply::Head(value.map(|head| (standing, head))),
        })
    }

    fn turn(&self, phase: EngineState) {
        self.metrics.up.set(i64::from(phase == EngineState::Ok));
        self.phase.send_replace(phase);
    }
}

fn get(database: &Database, (table, key): &Place) -> Result<Option<Bytes>, redb::Error> {
    let read = database.begin_read()?;
    let table = read.open_table(definition(*table))?;
    let value = table.get(key.as_slice())?;
    Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
}

/// The content of a file when it was opened.
struct Opened {
    database: Database,
    ledger: Ledger,
    file_id: Bytes,
}

/// Reads everything except the bytes of records.
fn load(database: Database, bytes_max: u64) -> Result<Opened, redb::Error> {
    let write = database.begin_write()?;
    for table in Table::ALL {
        write.open_table(definition(table))?;
    }
    let file_id = {
        let mut state = write.open_table(definition(Table::State))?;
        let known = state
            .get(FILE_ID)?
            .map(|id| Bytes::copy_from_slice(id.value()));
        match known {
            Some(id) => id,
            None => {
                let id = Bytes::copy_from_slice(&fastrand::u128(..).to_le_bytes());
                state.insert(FILE_ID, id.as_ref())?;
                id
            }
        }
    };
    write.commit()?;
    let mut ledger = Ledger::new(bytes_max);
    let read = database.begin_read()?;
    for table in [Table::Answers, Table::Lines, Table::Snapshots] {
        for entry in read.open_table(definition(table))?.iter()? {
            let (key, value) = entry?;
            let value = Bytes::copy_from_slice(value.value());
            if ledger.take_in(table, key.value(), value).is_none() {
                return Err(redb::Error::Corrupted(format!(
                    "an entry of {}",
                    table.as_str()
                )));
            }
        }
    }
    drop(read);
    Ok(Opened {
        database,
        ledger,
        file_id,
    })
}

fn commit(database: &Database, batch: &[(u64, TableChange)]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let [mut answers, mut lines, mut snapshots, mut chunks, mut state] = [
            write.open_table(definition(Table::Answers))?,
            write.open_table(definition(Table::Lines))?,
            write.open_table(definition(Table::Snapshots))?,
            write.open_table(definition(Table::Chunks))?,
            write.open_table(definition(Table::State))?,
        ];
        for (_, ((table, key), value)) in batch {
            let table = match table {
                Table::Answers => &mut answers,
                Table::Lines => &mut lines,
                Table::Snapshots => &mut snapshots,
                Table::Chunks => &mut chunks,
                Table::State => &mut state,
            };
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_ref())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// The thread that opens, writes and closes the file.
struct DiskWriter {
    shared: Arc<DiskShared>,
    medium: Box<dyn Medium>,
    /// Whether it was logged that the store is away. It is logged again only after the store was
    /// back.
    told: bool,
}

impl DiskWriter {
    fn run(mut self) {
        loop {
            let opened = self.open();
            let Some(database) = opened else { break };
            if self.write(&database) {
                break;
            }
        }
        let mut state = self.shared.state.lock();
        state.database = None;
        state.ledger = None;
        state.left = true;
        drop(state);
        self.shared.turn(EngineState::Away);
        self.shared.left.notify_all();
    }

    /// Opens the file, however long it takes. `None` if the gateway ends first.
    fn open(&mut self) -> Option<Arc<Database>> {
        loop {
            if self.shared.state.lock().closing {
                return None;
            }
            let bytes_max = self.shared.bytes_max;
            let medium = &mut self.medium;
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
                let database = medium.open()?;
                load(database, bytes_max).map_err(|error| OpenFault::of(&error))
            }));
            let fault = match opened {
                Ok(Ok(opened)) => return Some(self.take_over(opened)),
                Ok(Err(fault)) => fault,
                Err(_) => OpenFault::Unreadable("its reader panicked".to_owned()),
            };
            match fault {
                OpenFault::Locked => {
                    self.away("another process has the store's file open");
                    self.rest(LOCKED_RETRY);
                }
                OpenFault::Io(why) => {
                    self.away(&why);
                    self.rest(AWAY_RETRY);
                }
                OpenFault::Unreadable(why) => {
                    if !self.set_aside(&why) {
                        self.rest(AWAY_RETRY);
                    }
                }
            }
        }
    }

    fn take_over(&mut self, opened: Opened) -> Arc<Database> {
        let Opened {
            database,
            mut ledger,
            file_id,
        } = opened;
        let database = Arc::new(database);
        let mut changes = Vec::new();
        ledger.shrink(&mut changes);
        let mut state = self.shared.state.lock();
        let is_another = state
            .file_id
            .as_ref()
            .is_some_and(|known| *known != file_id);
        if is_another || state.ledger.is_none() {
            if is_another {
                state.resets += 1;
                self.shared.metrics.resets.inc();
            }
            let (answers, snapshots) = ledger.counts();
            let bytes = ledger.bytes();
            tracing::info!(answers, snapshots, bytes, "the store is open");
            self.shared.metrics.bytes.set(signed(bytes));
            state.begin_empty(ledger);
            state.enqueue(changes);
        } else {
            // The file will match the ledger in memory once the queue is written.
            tracing::info!(waiting = state.queue.len(), "the store is back");
        }
        state.file_id = Some(file_id);
        state.database = Some(database.clone());
        state.damaged = false;
        drop(state);
        self.told = false;
        self.shared.turn(EngineState::Ok);
        database
    }

    /// Writes changes until the disk fails or the gateway ends. Returns whether the gateway ends.
    fn write(&mut self, database: &Arc<Database>) -> bool {
        loop {
            let batch = {
                let mut state = self.shared.state.lock();
                let idle = |state: &mut DiskState| {
                    state.queue.is_empty() && !state.closing && !state.damaged
                };
                self.shared.work.wait_while(&mut state, idle);
                let patient =
                    |state: &mut DiskState| !state.urgent && !state.closing && !state.damaged;
                self.shared.work.wait_while_for(&mut state, patient, GATHER);
                if state.damaged {
                    drop(state);
                    self.leave_database();
                    self.set_aside("a page of it is damaged");
                    return false;
                }
                if state.queue.is_empty() {
                    // The store is closing, and everything is written.
                    return true;
                }
                state.batch()
            };
            let last = batch.last().map_or(0, |(number, _)| *number);
            let committed = std::panic::catch_unwind(AssertUnwindSafe(|| commit(database, &batch)));
            match committed {
                Ok(Ok(())) => self.shared.state.lock().committed(last),
                Ok(Err(error)) if !is_damage(&error) => {
                    self.away(&error.to_string());
                    let closing = self.shared.state.lock().closing;
                    self.leave_database();
                    if closing {
                        return true;
                    }
                    self.rest(AWAY_RETRY);
                    return false;
                }
                Ok(Err(error)) => {
                    self.leave_database();
                    self.set_aside(&error.to_string());
                    return false;
                }
                Err(_) => {
                    self.leave_database();
                    self.set_aside("its writer panicked");
                    return false;
                }
            }
        }
    }

    /// Drops the database, so that it can be opened again. Reads in progress hold it until they
    /// end, and until then the file is locked.
    fn leave_database(&self) {
        self.shared.state.lock().database = None;
    }

    fn away(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                why,
                "the store is away: nothing new outlives a restart until it is back"
            );
        }
        let mut state = self.shared.state.lock();
        // The changes stay queued, but it is unknown when they will be safe.
        state.waiters.clear();
        state.urgent = false;
        drop(state);
        self.shared.turn(EngineState::Away);
    }

    /// Renames an unreadable file. Returns whether that succeeded.
    fn set_aside(&mut self, why: &str) -> bool {
        self.shared.metrics.reject(RecordReject::File);
        match self.medium.set_aside() {
            Ok(()) => {
                tracing::warn!(
                    why,
                    "the store's file could not be read; it is renamed to end in .unreadable, and the store begins empty"
                );
                let mut state = self.shared.state.lock();
                state.resets += 1;
                state.file_id = None;
                state.ledger = None;
                self.shared.metrics.resets.inc();
                true
            }
            Err(error) => {
                self.away(&format!(
                    "unreadable ({why}), and it cannot be renamed: {error}"
                ));
                false
            }
        }
    }

    /// Waits for `time`, or until the gateway ends.
    fn rest(&self, time: Duration) {
        let mut state = self.shared.state.lock();
        let going_on = |state: &mut DiskState| !state.closing;
        self.shared.work.wait_while_for(&mut state, going_on, time);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
