//! Compares the file with the model, and damages the file in every way.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use redb::StorageBackend;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, timeout};
use crate::metrics::Metrics;
use crate::store::Model;
use crate::store::histories::{OpRange, grown, histories, name, runtime};

/// The longest wait for the writer's thread on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ROOMY: u64 = 64 << 20;

fn metrics() -> Arc<StoreMetrics> {
    Metrics::new().unwrap().store.resolve()
}

fn disk_in(directory: &Path, bytes_max: u64) -> Disk {
    let options = DiskOptions {
        directory: directory.to_owned(),
        bytes_max,
    };
    Disk::open(options, metrics()).unwrap()
}

async fn ask(disk: &Disk, op: StoreOp) -> Result<StoreReply, StoreFault> {
    timeout(PATIENCE, disk.call(op)).await.expect("a reply")
}

async fn until(disk: &Disk, state: EngineState) {
    let mut phase = disk.shared.phase.subscribe();
    let reached = phase.wait_for(|phase| *phase == state);
    timeout(PATIENCE, reached).await.expect("in time").unwrap();
}

fn note(n: u8, text: &[u8]) -> StoreOp {
    StoreOp::Note {
        name: name(n),
        record: Bytes::copy_from_slice(text),
        safe: true,
    }
}

fn recall(n: u8) -> StoreOp {
    StoreOp::Recall { name: name(n) }
}

fn value(text: &[u8]) -> Result<StoreReply, StoreFault> {
    Ok(StoreReply::Value(Some(Bytes::copy_from_slice(text))))
}

const NOTHING: Result<StoreReply, StoreFault> = Ok(StoreReply::Value(None));

/// One step of a random history, over few names so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Op(StoreOp),
    /// Appends to a snapshot where it really stands.
    Grow(u8, u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let range = OpRange {
        names: 4,
        bytes_max: 12_000,
        stamp: Clock::system().stamp(),
        ms_before: 0,
        fenced: false,
    };
    prop_oneof![
        12 => range.op().prop_map(Step::Op),
        4 => (0..4_u8, any::<u8>()).prop_map(|(snapshot, fill)| Step::Grow(snapshot, fill)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(histories(24))]

    /// Compares reply by reply, across restarts, with room for a few records only.
    #[test]
    fn the_disk_replies_what_the_model_replies(
        steps in proptest::collection::vec(step(), 1..60),
        room in 1..12_u64,
    ) {
        let bytes_max = room * 8_192;
        let directory = TempDir::new().unwrap();
        let model = Model::new(bytes_max);
        runtime().block_on(async {
            let mut disk = disk_in(directory.path(), bytes_max);
            for step in steps {
                let op = match step {
                    Step::Op(op) => op,
                    Step::Grow(snapshot, fill) => {
                        let at = Clock::system().stamp();
                        grown(|op| model.apply(op), snapshot, fill, at)
                    }
                    Step::Reopen => {
                        disk.close(PATIENCE);
                        disk = disk_in(directory.path(), bytes_max);
                        continue;
                    }
                };
                let expected = model.apply(&op);
                assert_eq!(ask(&disk, op.clone()).await, expected, "{op:?}");
            }
        });
    }
}

#[tokio::test]
async fn a_file_and_its_directory_are_readable_by_their_owner_only() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("state/msp-gateway");
    let disk = disk_in(&directory, ROOMY);
    assert_eq!(ask(&disk, note(1, b"x")).await, Ok(StoreReply::Kept));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&file_in(&directory)), 0o600);
}

#[tokio::test]
async fn a_second_process_waits_until_the_first_has_left() {
    let directory = TempDir::new().unwrap();
    let first = disk_in(directory.path(), ROOMY);
    assert_eq!(ask(&first, note(1, b"first")).await, Ok(StoreReply::Kept));
    let second = disk_in(directory.path(), ROOMY);
    until(&second, EngineState::Away).await;
    assert_eq!(ask(&second, recall(1)).await, Err(StoreFault::Away));
    first.close(PATIENCE);
    until(&second, EngineState::Ok).await;
    assert_eq!(ask(&second, recall(1)).await, value(b"first"));
}

#[tokio::test]
async fn what_is_no_store_is_put_aside_and_the_store_begins_empty() {
    for (what, bytes) in [
        (
            "text",
            b"not a database, but long enough to look at ".repeat(400),
        ),
        ("zeros", vec![0; 1 << 16]),
        ("short", b"x".to_vec()),
    ] {
        let directory = TempDir::new().unwrap();
        let file = file_in(directory.path());
        std::fs::write(&file, &bytes).unwrap();
        let disk = disk_in(directory.path(), ROOMY);
        assert_eq!(ask(&disk, recall(1)).await, NOTHING, "{what}");
        assert_eq!(disk.resets(), 1, "{what}");
        assert_eq!(std::fs::read(aside(&file)).unwrap(), bytes, "{what}");
        assert_eq!(
            ask(&disk, note(1, b"new")).await,
            Ok(StoreReply::Kept),
            "{what}"
        );
    }
}

#[tokio::test]
async fn the_file_of_another_format_stays_for_a_day() {
    let directory = TempDir::new().unwrap();
    let (newer, older) = ("store-2.redb", "store-0.redb");
    for name in [newer, older, "other.redb"] {
        let file = std::fs::File::create(directory.path().join(name)).unwrap();
        if name != newer {
            let days = Duration::from_secs(2 * 24 * 3600);
            let then = file.metadata().unwrap().modified().unwrap() - days;
            file.set_modified(then).unwrap();
        }
    }
    let disk = disk_in(directory.path(), ROOMY);
    assert_eq!(ask(&disk, recall(1)).await, NOTHING);
    let exists = |name: &str| directory.path().join(name).exists();
    assert_eq!(
        [newer, older, "other.redb"].map(exists),
        [true, false, true]
    );
}

/// A file with some records in it, closed properly.
async fn written(directory: &Path) -> Vec<u8> {
    let disk = disk_in(directory, ROOMY);
    for n in 0..20 {
        let record = Bytes::from(vec![n; 9_000]);
        let negative = false;
        let op = StoreOp::Land {
            name: name(n),
            record,
            negative,
        };
        assert_eq!(ask(&disk, op).await, Ok(StoreReply::Kept));
    }
    disk.close(PATIENCE);
    std::fs::read(file_in(directory)).unwrap()
}

/// Reads the records of [`written`] from a store. Retries failed reads, because a failed read may
/// lead to an empty start.
async fn records(disk: &Disk) -> Vec<Option<Bytes>> {
    let mut found = Vec::new();
    for n in 0..20 {
        let op = StoreOp::Find { name: name(n) };
        found.push(match ask(disk, op).await {
            Ok(StoreReply::Value(value)) => value,
            Ok(other) => panic!("{other:?}"),
            Err(StoreFault::Away | StoreFault::Failed | StoreFault::Full) => None,
        });
    }
    found
}

/// Each record must be as written, changed if a bit was flipped in it, or missing, but never
/// another one.
fn assert_plausible(found: &[Option<Bytes>], flipped: usize, what: &str) {
    for (n, record) in found.iter().enumerate() {
        if let Some(record) = record {
            let wrong = record.iter().filter(|b| usize::from(**b) != n).count();
            assert!(
                record.len() == 9_000 && wrong <= flipped,
                "{what}: record {n}"
            );
        }
    }
}

fn campaign(few: usize) -> usize {
    let asked = std::env::var("STORE_DAMAGES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(few)
}

#[tokio::test]
async fn a_truncated_file_opens_or_begins_empty() {
    let home = TempDir::new().unwrap();
    let whole = written(home.path()).await;
    let places = campaign(12);
    for n in 0..places {
        let directory = TempDir::new().unwrap();
        let file = file_in(directory.path());
        std::fs::write(&file, &whole[..whole.len() * n / places]).unwrap();
        let disk = disk_in(directory.path(), ROOMY);
        assert_plausible(&records(&disk).await, 0, &format!("cut at {n} of {places}"));
        until(&disk, EngineState::Ok).await;
        assert_eq!(ask(&disk, note(1, b"new")).await, Ok(StoreReply::Kept));
    }
}

#[tokio::test]
async fn a_flipped_bit_ends_nothing_but_what_it_is_in() {
    let home = TempDir::new().unwrap();
    let whole = written(home.path()).await;
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..campaign(24) {
        let directory = TempDir::new().unwrap();
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        std::fs::write(file_in(directory.path()), &bytes).unwrap();
        let disk = disk_in(directory.path(), ROOMY);
        assert_plausible(&records(&disk).await, 1, &format!("flipped at {at}"));
        until(&disk, EngineState::Ok).await;
        assert_eq!(ask(&disk, note(1, b"new")).await, Ok(StoreReply::Kept));
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_away_and_comes_back() {
    let home = TempDir::new().unwrap();
    // A file stands where the directory should be.
    let directory = home.path().join("directory");
    std::fs::write(&directory, b"").unwrap();
    let disk = disk_in(&directory, ROOMY);
    until(&disk, EngineState::Away).await;
    assert_eq!(ask(&disk, recall(1)).await, Err(StoreFault::Away));
    assert_eq!(ask(&disk, note(1, b"x")).await, Err(StoreFault::Away));
    disk.close(PATIENCE);
    assert!(disk.shared.state.lock().left, "it leaves though it is away");
}

/// A storage that loses unsynced data, and fails for good after a number of writes.
#[derive(Clone, Debug, Default)]
struct Torn(Arc<TornFile>);

#[derive(Debug, Default)]
struct TornFile {
    /// The bytes on the platter.
    synced: Mutex<Vec<u8>>,
    /// The bytes on the platter and in the cache.
    cached: Mutex<Vec<u8>>,
    writes_left: AtomicUsize,
    /// Whether a part of the unsynced data reaches the platter.
    leaks: bool,
}

fn no_power() -> std::io::Error {
    std::io::Error::other("no power")
}

impl Torn {
    fn spend(&self) -> std::io::Result<()> {
        let left = &self.0.writes_left;
        let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        spent.map(|_| ()).map_err(|_| no_power())
    }
}

impl StorageBackend for Torn {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.cached.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let (cached, at) = (self.0.cached.lock(), offset as usize);
        let bytes = cached.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.spend()?;
        self.0.cached.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.spend()?;
        self.0.synced.lock().clone_from(&self.0.cached.lock());
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let spent = self.spend();
        let at = offset as usize;
        if spent.is_ok() {
            self.0.cached.lock()[at..at + data.len()].copy_from_slice(data);
        } else if self.0.leaks {
            // The first half of the write reached the platter before the power cut.
            let mut synced = self.0.synced.lock();
            let some = data.len() / 2;
            if let Some(bytes) = synced.get_mut(at..at + some) {
                bytes.copy_from_slice(&data[..some]);
            }
        }
        spent
    }
}

struct TornMedium(Torn);

impl Medium for TornMedium {
    fn open(&mut self) -> Result<Database, OpenFault> {
        let opened = builder().create_with_backend(self.0.clone());
        opened.map_err(|error| OpenFault::of(&error.into()))
    }

    fn set_aside(&mut self) -> Result<(), String> {
        self.0.0.cached.lock().clear();
        Ok(())
    }
}

/// Runs a history and cuts the power after `writes` writes. Returns the bytes on the platter, the
/// last note that was safe, and whether the power was cut.
async fn power_cut(writes: usize, leaks: bool) -> (Vec<u8>, u8, bool) {
    let torn = Torn(Arc::new(TornFile {
        writes_left: AtomicUsize::new(writes),
        leaks,
        ..TornFile::default()
    }));
    let disk = Disk::over(TornMedium(torn.clone()), ROOMY, metrics()).unwrap();
    let mut safe = 0;
    for n in 1..=6 {
        // Before it a page of rows, so that commits are not all alike.
        let record = Bytes::from(vec![n; 30_000]);
        let land = StoreOp::Land {
            name: name(n),
            record,
            negative: false,
        };
        let landed = ask(&disk, land).await;
        if landed.is_err() || ask(&disk, note(1, &[n])).await != Ok(StoreReply::Kept) {
            break;
        }
        safe = n;
    }
    let went = torn.0.writes_left.load(Ordering::SeqCst) == 0;
    disk.close(PATIENCE);
    let platter = torn.0.synced.lock().clone();
    (platter, safe, went)
}

#[tokio::test]
async fn what_was_safe_survives_a_power_cut_at_every_write() {
    let step = if std::env::var_os("STORE_DAMAGES").is_some() {
        1
    } else {
        5
    };
    for leaks in [false, true] {
        let mut writes = 1;
        loop {
            let (platter, safe, went) = power_cut(writes, leaks).await;
            let torn = Torn(Arc::new(TornFile {
                synced: Mutex::new(platter.clone()),
                cached: Mutex::new(platter),
                writes_left: AtomicUsize::new(usize::MAX),
                leaks: false,
            }));
            let disk = Disk::over(TornMedium(torn), ROOMY, metrics()).unwrap();
            let at = format!("cut at write {writes}, leaks: {leaks}");
            let note = ask(&disk, recall(1)).await;
            match note {
                Ok(StoreReply::Value(Some(note))) => {
                    // The next note may have been written too.
                    assert!(note[0] == safe || note[0] == safe + 1, "{at}");
                }
                Ok(StoreReply::Value(None)) => assert_eq!(safe, 0, "{at}"),
                other => panic!("{at}: {other:?}"),
            }
            for n in 1..=safe {
                let found = ask(&disk, StoreOp::Find { name: name(n) }).await;
                assert_eq!(found, value(&vec![n; 30_000]), "{at}");
            }
            if !went {
                break;
            }
            writes += step;
        }
        assert!(writes > 20, "the history has only {writes} writes");
    }
}

#[tokio::test]
async fn the_queue_has_a_bound() {
    let torn = Torn::default();
    // No write succeeds, and opening is retried forever.
    let disk = Disk::over(TornMedium(torn), ROOMY, metrics()).unwrap();
    until(&disk, EngineState::Away).await;
    // Simulates a store that was open: the ledger exists, but the disk fails.
    disk.shared.state.lock().ledger = Some(Ledger::new(1 << 30));
    let record = Bytes::from(vec![1; (8 << 20) - 1024]);
    let mut taken = 0;
    let refused = loop {
        let op = StoreOp::Land {
            name: name(taken),
            record: record.clone(),
            negative: false,
        };
        match ask(&disk, op).await {
            Ok(_) => taken += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!((taken, refused), (8, StoreFault::Full));
    // Queued records are found.
    let found = ask(&disk, StoreOp::Find { name: name(0) }).await;
    assert!(matches!(found, Ok(StoreReply::Value(Some(_)))), "{found:?}");
}
