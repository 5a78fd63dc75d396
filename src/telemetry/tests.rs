//! Tests of both kinds of lines in both forms, and of outputs that fail in every possible way.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use http::Method;
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt as _;

use super::output::LINES_WAITING_MAX;
use super::*;
use crate::clock::Duration;
use crate::domain::Route;
use crate::metrics::Metrics;

/// Longer than any machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

fn entry(path: &str) -> AccessEntry {
    AccessEntry {
        request_id: [b'a'; 32],
        peer: Some("127.0.0.1:1".parse().unwrap()),
        caller: None,
        route: Route::Other,
        method: Method::from_bytes(b"X-ODD").unwrap(),
        path: Cow::Owned(logged_path(&path.parse().unwrap())),
        status: 404,
        code: Some("not_found"),
        cache: None,
        took: Duration::from_micros(1500),
        spent: None,
        trace_id: None,
        vendor_calls: 0,
        sent_bytes: 7,
        whole: true,
    }
}

fn json(entry: &AccessEntry) -> String {
    let mut out = String::new();
    entry.write_line(Format::Json, Timestamp::UNIX_EPOCH, &mut out);
    out
}

#[test]
fn an_access_line_is_one_json_object_without_the_query() {
    let out = json(&entry("/a%0d%0a\"?secret=1"));
    assert_eq!(out.matches('\n').count(), 1);
    assert!(!out.contains("secret"));
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["path"], "/a%0d%0a\"");
    assert_eq!(line["duration_ms"], 1.5);
    let times = ["wait_ms", "vendor_ms", "own_ms"].map(|name| line[name].as_f64());
    assert_eq!(times, [Some(0.0), Some(0.0), Some(1.5)]);
    assert_eq!(line["caller"], "anonymous");
    assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
}

#[test]
fn an_access_line_for_people_says_the_same() {
    let mut out = String::new();
    let mut entry = entry("/a?secret=1");
    entry.write_line(Format::Text, Timestamp::UNIX_EPOCH, &mut out);
    assert_eq!(
        out,
        format!(
            "1970-01-01T00:00:00.000Z 404 X-ODD /a caller=anonymous code=not_found cache=none ms=1.500 vendor_calls=0 bytes=7 peer=127.0.0.1 request_id={}\n",
            "a".repeat(32)
        )
    );
    out.clear();
    entry.spent = Some(Box::new(AccessTimes {
        waited: Duration::from_millis(1),
        vendor: Duration::from_micros(250),
        own: Duration::from_micros(250),
    }));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    entry.trace_id = Some(trace.into());
    entry.path = Cow::Owned("/\u{1b}[31m\r\n\u{2028}".to_owned());
    entry.whole = false;
    entry.write_line(Format::Text, Timestamp::UNIX_EPOCH, &mut out);
    assert!(out.contains(" cut ") && out.trim_end_matches('\n').chars().all(|c| !c.is_control()));
    assert!(
        out.contains(" ms=1.500 wait_ms=1.000 vendor_ms=0.250 own_ms=0.250 "),
        "{out}"
    );
    assert!(out.contains(&format!(" trace_id={trace} ")), "{out}");
    let line: serde_json::Value = serde_json::from_str(&json(&entry)).unwrap();
    assert_eq!(
        (&line["wait_ms"], &line["vendor_ms"]),
        (&1.0.into(), &0.25.into())
    );
    assert_eq!(line["trace_id"], trace);
}

#[test]
fn numbers_and_addresses_stand_as_everywhere() {
    for took_ns in [0, 1, 499, 500, 999_499, 999_500, 1_000_000, 30_000_000_499] {
        for peer in ["192.0.2.255:1", "0.10.0.1:1", "[2001:db8::1]:1"] {
            let mut entry = entry("/");
            entry.took = Duration::from_nanos(took_ns);
            entry.peer = Some(peer.parse().unwrap());
            entry.sent_bytes = u64::MAX;
            let out = json(&entry);
            let line: serde_json::Value = serde_json::from_str(&out).unwrap();
            let micros = took_ns.div_euclid(1000) + u64::from(took_ns % 1000 >= 500);
            let duration = format!("\"duration_ms\":{}.{:03},", micros / 1000, micros % 1000);
            assert!(out.contains(&duration), "{out}");
            assert_eq!(line["peer"], entry.peer.unwrap().ip().to_string());
            assert_eq!(line["bytes"], u64::MAX);
        }
    }
}

#[test]
fn hostile_texts_are_escaped_and_cut() {
    let mut out = String::from("{\"a\":1");
    let hostile = "\r\n\u{1b}[31m\u{2028}\u{2066}\u{7f}\u{85}\\\"".to_owned() + &"x".repeat(70_000);
    text_member(&mut out, "t", &hostile, 100);
    out.push('}');
    assert!(out.len() < 300);
    assert!(
        out.chars()
            .all(|c| !c.is_control() && c != '\u{2028}' && c != '\u{2066}')
    );
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(line["t"].as_str().unwrap().starts_with("\r\n\u{1b}[31m"));
}

#[test]
fn events_have_one_shape_in_both_forms() {
    for format in [Format::Json, Format::Text] {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let theirs = lines.clone();
        let clock = Clock::system();
        let layer = EventLines::new(format, clock, move |line| theirs.lock().push(line));
        let registry = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(registry, || {
            let word = "two words";
            tracing::warn!(vendor = "wiv", word, ms = 7_u64, soft = true, why = %"a\nb", "it \"failed\"");
            tracing::info!(ratio = f64::NAN, at = -1, "plain");
        });
        let lines = lines.lock();
        let [first, second] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(
            lines
                .iter()
                .all(|line| line.chars().all(|c| !c.is_control()))
        );
        match format {
            Format::Json => {
                let line: serde_json::Value = serde_json::from_str(first).unwrap();
                assert_eq!(line["level"], "WARN");
                assert_eq!(line["message"], "it \"failed\"");
                assert_eq!((&line["vendor"], &line["ms"]), (&"wiv".into(), &7.into()));
                assert_eq!(
                    (&line["soft"], &line["why"]),
                    (&true.into(), &"a\nb".into())
                );
                assert_eq!(line["target"], module_path!());
                assert!(line["time"].as_str().unwrap().ends_with('Z'));
                let line: serde_json::Value = serde_json::from_str(second).unwrap();
                assert_eq!((&line["ratio"], &line["at"]), (&"NaN".into(), &(-1).into()));
            }
            Format::Text => {
                let rest = "WARN  it \\\"failed\\\" vendor=wiv word=\"two words\" ms=7 soft=true why=a\\u000ab";
                assert_eq!(first.split_once(' ').unwrap().1, rest);
                assert_eq!(
                    second.split_once(' ').unwrap().1,
                    "INFO  plain ratio=NaN at=-1"
                );
            }
        }
    }
}

/// The bytes that were accepted.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Vec<u8>>>);

/// An output that accepts as much as `take` allows.
struct Odd<F> {
    disk: Disk,
    take: F,
}

impl<F: FnMut(usize) -> io::Result<usize>> Write for Odd<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = (self.take)(bytes.len())?;
        self.disk.0.lock().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decides how many of the given number of bytes are accepted.
type Take = Box<dyn FnMut(usize) -> io::Result<usize> + Send>;

/// A disk with this much room. After every second failure, the same amount of room is freed.
fn filling(room: usize) -> Take {
    let (mut left, mut failed) = (room, false);
    Box::new(move |count| {
        if left == 0 {
            failed = !failed;
            left = if failed { 0 } else { room };
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = count.min(left);
        left -= taken;
        Ok(taken)
    })
}

/// A pipe that was made non-blocking, with a slow reader.
fn trickling() -> Take {
    let mut turn = 0_u32;
    Box::new(move |count| {
        turn += 1;
        match turn % 3 {
            0 => Err(io::ErrorKind::Interrupted.into()),
            1 if turn < 20 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(count.min(1 + turn as usize)),
        }
    })
}

/// A reader that stops until the sender is dropped.
fn stuck(until: Receiver<()>) -> Take {
    Box::new(move |count| {
        let _ = until.recv();
        Ok(count)
    })
}

#[test]
fn every_line_is_written_whole_or_counted_whatever_the_output_does() {
    let (release, until) = channel();
    let outputs: [(&str, Take, u64); 8] = [
        ("good", Box::new(Ok), 0),
        ("slow", trickling(), 0),
        ("its reader stops", stuck(until), 0),
        (
            "its reader left",
            Box::new(|_| Err(io::ErrorKind::BrokenPipe.into())),
            u64::MAX,
        ),
        (
            "full",
            Box::new(|_| Err(io::ErrorKind::StorageFull.into())),
            u64::MAX,
        ),
        ("takes nothing", Box::new(|_| Ok(0)), u64::MAX),
        ("fills up", filling(1000), 1),
        ("fills up within a line", filling(7), 1),
    ];
    let mut release = Some(release);
    for (what, take, lost) in outputs {
        let metrics = Metrics::new().unwrap();
        let disk = Disk::default();
        let odd = Odd {
            disk: disk.clone(),
            take,
        };
        let clock = Clock::system();
        let output = Output::start(
            "test",
            Box::new(odd),
            Format::Json,
            false,
            metrics.clone(),
            clock,
        )
        .unwrap();
        let sink = LogSink::to(output.clone());
        let is_stuck = what == "its reader stops";
        // For a stuck output, more lines and bytes than may wait.
        let turns = if is_stuck { 3 * LINES_WAITING_MAX } else { 300 };
        let mut total = 0;
        for turn in 0..turns {
            sink.write(None, || entry("/x"));
            output.print(format!(
                "{{\"turn\":{turn},\"more\":\"{}\"}}",
                "y".repeat(turn % 50)
            ));
            output.print("{\"first\":1}\n{\"second\":2}");
            total += 4;
            if turn % 100 == 0 && !is_stuck {
                let _ = output.settled(PATIENCE);
            }
        }
        if is_stuck {
            assert!(output.settled(Duration::from_millis(1)).is_ok());
            assert!(metrics.log_lines_dropped.get() > total / 2, "{what}");
            release.take();
        }
        let end = output.settled(PATIENCE);
        // For an output that fills up, the last lines may be the ones that fitted.
        let known = lost != 1;
        assert!(
            !known || end.is_err() == (lost == u64::MAX),
            "{what}: {end:?}"
        );
        output.close(PATIENCE);
        let text = String::from_utf8(disk.0.lock().clone()).unwrap();
        let (whole, torn): (Vec<_>, Vec<_>) = text
            .lines()
            .partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        let dropped = metrics.log_lines_dropped.get();
        assert_eq!(
            whole.len() as u64 + dropped,
            total,
            "{what}: {} torn",
            torn.len()
        );
        assert!(torn.len() as u64 <= dropped, "{what}");
        match lost {
            0 if is_stuck => {}
            0 => assert_eq!(dropped, 0, "{what}"),
            u64::MAX => assert_eq!(dropped, total, "{what}"),
            _ => assert!(dropped > 0 && !text.is_empty(), "{what}"),
        }
        sink.write(None, || entry("/late"));
        assert_eq!(
            metrics.log_lines_dropped.get(),
            dropped + 1,
            "{what}: after its end"
        );
    }
}
