//! Writes the events of `tracing` as lines of the log.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::output::Output;
use super::{Format, TEXT_CHARS_MAX, push_text, text_member};
use crate::clock::Clock;

/// Changes the level of logged events while the program runs.
#[derive(Clone, Debug)]
pub struct EventLevel(reload::Handle<EnvFilter, Registry>);

impl EventLevel {
    /// Sets the level: from now on, events of this level and above are logged. `level` as for
    /// [`events_to`].
    ///
    /// # Errors
    /// Fails if the level cannot be parsed.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|why| why.to_string())
    }
}

/// Sends events to `output`, one line each. `level` is a word such as `info`, or a filter in the
/// form of `RUST_LOG` such as `msp_gateway=debug`.
///
/// # Errors
/// Fails if the level cannot be parsed, or if events already have a destination.
pub fn events_to(output: Output, level: &str, clock: Clock) -> Result<EventLevel, String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    tracing_subscriber::registry()
        .with(filter)
        .with(EventLines::new(output.format(), clock, move |line| {
            output.print(line)
        }))
        .try_init()
        .map_err(|why| why.to_string())?;
    Ok(EventLevel(handle))
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    // In its detailed events, the h2 crate may include targets and headers as peers sent them.
    EnvFilter::try_new(format!("{level},h2=error")).map_err(|why| why.to_string())
}

/// Reports every panic as one event that names the place. The payload is left out, because it may
/// contain anything that a caller or a vendor sent.
pub fn panics_to_events() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place = place.as_deref().unwrap_or("unknown"),
            thread = thread.name().unwrap_or("unnamed"),
            "panic"
        );
    }));
}

/// Formats each event as a line and passes it to `take`, without a line end.
pub struct EventLines<F> {
    format: Format,
    clock: Clock,
    take: F,
}

impl<F: Fn(String) + 'static> EventLines<F> {
    /// Creates a formatter for lines in this form.
    pub fn new(format: Format, clock: Clock, take: F) -> Self {
        Self {
            format,
            clock,
            take,
        }
    }
}

impl<S: Subscriber, F: Fn(String) + Send + Sync + 'static> Layer<S> for EventLines<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields {
            format: self.format,
            message: String::new(),
            target: None,
            rest: String::new(),
        };
        event.record(&mut fields);
        let about = event.metadata();
        let (at, level) = (self.clock.wall(), about.level().as_str());
        let mut line = String::with_capacity(160 + fields.rest.len());
        // Writing to a String cannot fail.
        let _ = match self.format {
            Format::Json => write!(line, "{{\"time\":\"{at:.3}\",\"level\":\"{level}\""),
            Format::Text => write!(line, "{at:.3} {level:5} "),
        };
        match self.format {
            Format::Json => {
                text_member(&mut line, "message", &fields.message, TEXT_CHARS_MAX);
                line.push_str(&fields.rest);
                let target = fields.target.as_deref().unwrap_or(about.target());
                text_member(&mut line, "target", target, TEXT_CHARS_MAX);
                line.push('}');
            }
            Format::Text => {
                push_text(&mut line, &fields.message, TEXT_CHARS_MAX);
                line.push_str(&fields.rest);
            }
        }
        (self.take)(line);
    }
}

/// The fields of an event, in order.
struct Fields {
    format: Format,
    message: String,
    /// The origin of an event of the `log` crate.
    target: Option<String>,
    rest: String,
}

impl Fields {
    fn text(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "log.target" => self.target = Some(value.to_owned()),
            // The other members of an event of the `log` crate name a file and a line of some
            // library.
            name if name.starts_with("log.") => {}
            name => match self.format {
                Format::Json => text_member(&mut self.rest, name, value, TEXT_CHARS_MAX),
                Format::Text => {
                    let _ = write!(self.rest, " {name}=");
                    let quoted = value.is_empty() || value.contains([' ', '"', '=']);
                    if quoted {
                        self.rest.push('"');
                    }
                    push_text(&mut self.rest, value, TEXT_CHARS_MAX);
                    if quoted {
                        self.rest.push('"');
                    }
                }
            },
        }
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name().starts_with("log.") {
            return;
        }
        // Writing to a String cannot fail.
        let _ = match self.format {
            Format::Json => write!(self.rest, ",\"{}\":{value}", field.name()),
            Format::Text => write!(self.rest, " {}={value}", field.name()),
        };
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.plain(field, value),
            false => self.text(field, &value.to_string()),
        }
    }
}
