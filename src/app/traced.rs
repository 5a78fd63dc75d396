//! Which requests are traced, and where their spans go, as the settings have it by now.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{BuildError, Way};
use crate::clock::{Clock, Duration};
use crate::config::{Secrets, Settings};
use crate::metrics::Metrics;
use crate::traces::{TraceOptions, Traces, collector_connector};

/// The exporter in use. A reload that changes nothing of it keeps it.
pub(super) struct Traced {
    way: Way,
    clock: Clock,
    metrics: Arc<Metrics>,
    current: ArcSwap<RunningTraces>,
}

/// An exporter and what it was started with.
pub(super) struct RunningTraces {
    options: Option<TraceOptions>,
    traces: Traces,
}

impl RunningTraces {
    /// Returns the traces for the stacks.
    pub(super) fn traces(&self) -> &Traces {
        &self.traces
    }
}

impl Traced {
    pub(super) fn new(
        way: &Way,
        settings: &Settings,
        secrets: &Secrets,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let running = started(way, options(settings, secrets), clock, metrics)?;
        Ok(Self {
            way: way.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            current: ArcSwap::from_pointee(running),
        })
    }

    pub(super) fn current(&self) -> Arc<RunningTraces> {
        self.current.load_full()
    }

    /// Starts the exporter for new settings. Dropping it changes nothing.
    pub(super) fn prepare(
        &self,
        settings: &Settings,
        secrets: &Secrets,
    ) -> Result<Arc<RunningTraces>, BuildError> {
        let (now, wanted) = (self.current(), options(settings, secrets));
        match now.options == wanted {
            true => Ok(now),
            false => started(&self.way, wanted, &self.clock, &self.metrics).map(Arc::new),
        }
    }

    /// Puts an exporter in force. The one before ends once the requests that it traces have ended.
    pub(super) fn commit(&self, running: Arc<RunningTraces>) {
        self.current.store(running);
    }

    /// Exports what waits, in `limit` at most.
    pub(super) async fn close(&self, limit: Duration) {
        self.current().traces.close(limit).await;
    }
}

fn options(settings: &Settings, secrets: &Secrets) -> Option<TraceOptions> {
    Some(TraceOptions {
        collector: settings.traces.otlp_endpoint.clone()?,
        sample_ratio: settings.traces.sample_ratio,
        headers: secrets.trace_headers.clone(),
    })
}

fn started(
    way: &Way,
    options: Option<TraceOptions>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<RunningTraces, BuildError> {
    let traces = match &options {
        None => Traces::off(),
        Some(options) => {
            let (clock, metrics) = (clock.clone(), metrics.traces.resolve());
            match way {
                Way::Network => {
                    let connector = collector_connector(&options.collector)
                        .map_err(|why| BuildError(format!("TLS cannot be set up: {why}")))?;
                    Traces::start(options, connector, clock, metrics)
                }
                Way::InMemory(connector) => {
                    Traces::start(options, connector.clone(), clock, metrics)
                }
            }
        }
    };
    Ok(RunningTraces { options, traces })
}
