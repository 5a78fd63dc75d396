//! The output of commands that keep running: `serve`, `demo`, `sandbox`.
//!
//! Each output has a writer of its own (see [`crate::telemetry`]), so a reader that is slow or gone
//! delays nothing. Commands that print and end write directly instead: `check | less` waits for its
//! reader.

use std::io::{IsTerminal, stderr, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use clap::ValueEnum;

use super::{REFUSED, refuse};
use crate::clock::{Clock, Duration};
use crate::metrics::Metrics;
use crate::telemetry::{EventLevel, Format, LogSink, Output, events_to, panics_to_events};

/// How long the end of the program waits for the readers of both outputs.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long the start waits to see whether its output can be written. A reader that is slow has not
/// left.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The form of log lines, if one was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line, for everything printed
    Json,
}

/// Starts the outputs, runs a command that keeps running, and closes them after it. Returns the
/// exit code. A refusal of the command is one line.
pub fn with_outputs(
    chosen: Option<LogFormat>,
    command: impl FnOnce(&Outputs, Arc<Metrics>, Clock) -> Result<i32, String>,
) -> i32 {
    let clock = Clock::system();
    let metrics = match Metrics::new() {
        Ok(metrics) => metrics,
        Err(error) => return refuse(error),
    };
    let outputs = match Outputs::start(chosen, &metrics, &clock) {
        Ok(outputs) => outputs,
        Err(why) => return refuse(why),
    };
    let code = command(&outputs, metrics, clock).unwrap_or_else(|why| outputs.refuse(why));
    outputs.close();
    code
}

/// Standard output and standard error.
pub struct Outputs {
    stdout: Output,
    stderr: Output,
    /// Whether everything is JSON because that was chosen, including lines that are not log lines.
    all_json: bool,
    clock: Clock,
}

impl Outputs {
    /// Starts the writers. Without a chosen format, log lines are text on a terminal and JSON
    /// elsewhere, and addresses and refusals are plain lines everywhere.
    ///
    /// # Errors
    /// Fails if the system has no descriptor or no thread left.
    fn start(
        chosen: Option<LogFormat>,
        metrics: &Arc<Metrics>,
        clock: &Clock,
    ) -> Result<Self, String> {
        let format = |is_terminal| match chosen {
            Some(LogFormat::Text) => Format::Text,
            Some(LogFormat::Json) => Format::Json,
            None if is_terminal => Format::Text,
            None => Format::Json,
        };
        // A descriptor of its own, because the standard library's buffer would hide whether lines
        // were written.
        let start = |name, fd: std::io::Result<OwnedFd>, format, carries_events| {
            let file = std::fs::File::from(fd?);
            let (metrics, clock) = (metrics.clone(), clock.clone());
            Output::start(name, Box::new(file), format, carries_events, metrics, clock)
        };
        let failed = |why| format!("the outputs cannot be opened: {why}");
        let fd = stdout().as_fd().try_clone_to_owned();
        let stdout = start("stdout", fd, format(stdout().is_terminal()), false).map_err(failed)?;
        let fd = stderr().as_fd().try_clone_to_owned();
        let stderr = start("stderr", fd, format(stderr().is_terminal()), true).map_err(failed)?;
        Ok(Self {
            stdout,
            stderr,
            all_json: chosen == Some(LogFormat::Json),
            clock: clock.clone(),
        })
    }

    /// Returns the sink of access log lines.
    pub fn access_log(&self) -> LogSink {
        LogSink::to(self.stdout.clone())
    }

    /// Sends events and panics to standard error.
    ///
    /// # Errors
    /// Fails like [`events_to`].
    pub fn take_events(&self, level: &str) -> Result<EventLevel, String> {
        let level = events_to(self.stderr.clone(), level, self.clock.clone())?;
        // A panic's own text may contain anything that a vendor or a caller sent.
        panics_to_events();
        Ok(level)
    }

    /// Prints lines to standard output.
    pub fn announce(&self, lines: &str) {
        self.print(&self.stdout, "INFO", "", lines);
    }

    /// Prints lines to standard output that the command cannot do without.
    ///
    /// # Errors
    /// Fails if they cannot be written. A slow reader is not a failure.
    pub fn hand_over(&self, lines: &str) -> Result<(), String> {
        self.announce(lines);
        self.stdout
            .settled(SETTLE_WAIT_MAX)
            .map_err(|kind| format!("standard output cannot be written: {kind}"))
    }

    /// Prints a warning to standard error, before events go there.
    pub fn warn(&self, why: impl std::fmt::Display) {
        self.print(
            &self.stderr,
            "WARN",
            "msp-gateway: warning: ",
            &why.to_string(),
        );
    }

    /// Prints why the command is refused. Returns the exit code.
    pub fn refuse(&self, why: impl std::fmt::Display) -> i32 {
        self.print(&self.stderr, "ERROR", "msp-gateway: ", &why.to_string());
        REFUSED
    }

    fn print(&self, output: &Output, level: &'static str, before: &str, lines: &str) {
        if self.all_json {
            let filled = lines.lines().filter(|line| !line.is_empty());
            filled.for_each(|line| output.print_json(level, line));
        } else {
            output.print(format!("{before}{lines}"));
        }
    }

    /// Waits a little for lines that are not yet written. Nothing may be printed after this.
    fn close(&self) {
        let until = self.clock.now() + CLOSE_WAIT_MAX;
        for output in [&self.stdout, &self.stderr] {
            output.close(until.saturating_duration_since(self.clock.now()));
        }
    }
}
